"""Which of several selections keeps what? Their overlaps, then two against each other, by steps and by pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import streamlit as st

from clipsel_core.curation.recipes.recipe import Intersect, Recipe, differences
from clipsel_core.curation.recipes.recipe_files import load_recipe
from clipsel_core.curation.selecting.overlap import Overlap, of_bitmaps
from clipsel_core.curation.selecting.picker import Picker
from clipsel_core.errors import ClipselError
from clipsel_core.runs.store import Run
from clipsel_core.tasks import Report, Task
from pages.parts import empty, facts, lists, recipes, state, watching, words
from pages.parts.catalog import Entry
from pages.parts.compare import matrix
from pages.parts.pair import galleries

_DRAFT = "draft"
_MOST = 12
_USUAL = 5


def show(entry: Entry) -> None:
    """The page's part about selections of this run."""
    run = state.open_run(entry)
    texts, errors = _known(entry, run)
    for error in errors.values():
        empty.show_error(error, "One of the selections cannot be compared")
    if len(texts) < 2:
        why = "Save a recipe on the Select page, or add a list of uids there; each can be compared with the draft."
        empty.show_empty("Nothing to compare with yet", why)
        return
    names = _choose(list(texts))
    if len(names) < 2:
        empty.show_empty("Choose two or more", "Their overlaps are shown here.")
        return
    sharing = _sharing(entry, tuple((name, texts[name], state.recipe_stamp(entry, texts[name])) for name in names))
    sharing.work.begin()
    if sharing.work.error:
        raise sharing.work.error
    found = sharing.found
    if found is None:
        watching.until_done(sharing.work, key="sharing")
        return
    matrix.show([shown(name) for name in names], found)
    _note_unknown(entry, {name: texts[name] for name in names})
    _two(entry, texts, found)


def shown(name: str) -> str:
    """A selection's name as people read it."""
    return "the draft" if name == _DRAFT else name.partition(" ")[2]


def _known(entry: Entry, run: Run) -> tuple[dict[str, str], dict[str, ClipselError]]:
    """What can be compared, as recipes (YAML) by name; and what cannot, with the reason."""
    texts, errors = {_DRAFT: recipes.draft_yaml(entry, run)}, {}
    for stem, path in recipes.saved(run).items():
        try:
            texts[f"recipe {stem}"] = recipes.as_yaml(list(load_recipe(path, run.metrics).steps))
        except ClipselError as error:
            errors[f"recipe {stem}"] = error
    for name in lists.known(run):
        texts[f"list {name}"] = recipes.as_yaml([Intersect(intersect=name)])
    fitting = {}
    for name, text in texts.items():
        try:
            if text:
                state.parse(entry, text)
                fitting[name] = text
        except ClipselError as error:
            errors[name] = error
    return fitting, errors


def _choose(names: list[str]) -> list[str]:
    """The selections that the curator wants to see, the draft and a few saved ones at first."""
    if not set(st.session_state.get("compared", ())) <= set(names):
        del st.session_state["compared"]
    return st.multiselect(
        "Selections",
        names,
        names[:_USUAL],
        key="compared",
        format_func=shown,
        max_selections=_MOST,
        placeholder="choose recipes and lists",
        bind="query-params",
        on_change=galleries.rewind,
    )


def _note_unknown(entry: Entry, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        if name.startswith("list "):
            report = state.picked(entry, text).selection.report[0]
            if report.unknown:
                facts.show_note(f"{shown(name)} names {words.count(report.unknown)} more uids that this run lacks.")


def _two(entry: Entry, texts: dict[str, str], found: Overlap) -> None:
    """Two of them against each other."""
    names = list(found.names)
    left, right, _ = st.columns([2, 2, 3], gap="medium")
    shared: dict[str, Any] = {"format_func": shown, "bind": "query-params", "on_change": galleries.rewind}
    for key in ("this", "against"):
        if st.session_state.get(key, names[0]) not in names:
            del st.session_state[key]
    first = left.selectbox("This", names, key="this", **shared)
    second = right.selectbox("against", [*names[1:], names[0]], key="against", **shared)
    if first == second:
        empty.show_empty("The same selection twice", "Choose another one to compare it with.")
        return
    if not any(name.startswith("list ") for name in (first, second)):
        changes = differences(state.parse(entry, texts[first]), state.parse(entry, texts[second]))
        matrix.show_changes(shown(first), shown(second), changes)
    _parts(entry, texts, found, first, second)


def _parts(entry: Entry, texts: dict[str, str], found: Overlap, first: str, second: str) -> None:
    """The pairs of one and not the other, and of both."""
    i, j = found.names.index(first), found.names.index(second)
    both = int(found.both[i, j])
    counts = (int(found.sizes[i]) - both, both, int(found.sizes[j]) - both)
    part = galleries.choose_part(counts, key="part")

    def bits() -> np.ndarray:
        mine, theirs = (state.kept_bits(entry, texts[name]) for name in (first, second))
        return (mine & ~theirs, mine & theirs, theirs & ~mine)[part]

    title = (f"Only in {shown(first)}", "In both", f"Only in {shown(second)}")[part]
    about = (part, *((texts[name], state.recipe_stamp(entry, texts[name])) for name in (first, second)))
    galleries.draw_sorted(entry, counts[part], bits, name=about, title=title)


class _Sharing:
    """Selections being counted against each other, once for all sessions. found: what they share, once it is there."""

    def __init__(self, picker: Picker, known: Mapping[str, Recipe]) -> None:
        self.found: Overlap | None = None
        self.work = Task(self._do)
        self._picker, self._known = picker, known

    def _do(self, report: Report) -> None:
        bits = {}
        for place, (name, recipe) in enumerate(self._known.items()):
            report(place, len(self._known), "", f"Working out selection {place + 1} of {len(self._known)} …")
            bits[name] = self._picker.select(recipe).bits()
        self.found = of_bitmaps(bits)


@st.cache_resource(max_entries=16, show_spinner=False)
def _sharing(entry: Entry, stamps: tuple[tuple[str, str, state.Stamp], ...]) -> _Sharing:
    return _Sharing(state.open_picker(entry), {name: state.parse(entry, text) for name, text, _ in stamps})
