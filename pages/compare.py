"""What do selections have in common, what sets two of them apart, and how far do two runs of one pool agree?"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from clipsel_core.curation.exploring.agreement import Overlap, overlap
from clipsel_core.curation.recipes.recipe import AnyStep, Change, Intersect, differences, load_recipe
from clipsel_core.errors import ClipselError
from clipsel_core.runs.store import Run
from clipsel_core.tasks import Report, Task
from pages.parts import messages, progress_bars, recipes, state, words
from pages.parts.catalog import Entry
from pages.parts.compare import runs
from pages.parts.pair import galleries

_DRAFT = "draft"
_MOST = 12
_MEASURES = {
    "pairs": "Pairs in both of two selections",
    "share of the row": "Of each selection's pairs, the share that another has, too",
    "Jaccard": "Pairs in both, as a share of the pairs in either (Jaccard)",
}
_USUAL = 5


def show(entry: Entry) -> None:
    st.title("Compare")
    state.require_table(entry)
    messages.show_unfinished(state.open_run(entry))
    views = {"Selections": compare_selections, "Runs": runs.compare_runs}
    for tab, draw in zip(st.tabs(list(views), key="what", bind="query-params"), views.values(), strict=True):
        if tab.open:
            with tab:
                draw(entry)


def compare_selections(entry: Entry) -> None:
    """Draws what the recipes and lists of a run keep in common, and two of them against each other."""
    run = state.open_run(entry)
    texts, errors = _known(entry, run)
    for error in errors.values():
        messages.show_error(error, "One of the selections cannot be compared")
    if len(texts) < 2:
        why = "Save a recipe on the Select page, or add a list of uids there; each can be compared with the draft."
        messages.show_empty("Nothing to compare with yet", why)
        return
    # The draft and a few saved ones at first.
    if not set(st.session_state.get("compared", ())) <= set(texts):
        del st.session_state["compared"]
    names = st.multiselect(
        "Selections",
        list(texts),
        list(texts)[:_USUAL],
        key="compared",
        format_func=_shown,
        max_selections=_MOST,
        placeholder="choose recipes and lists",
        bind="query-params",
        on_change=galleries.rewind_sorted,
    )
    if len(names) < 2:
        messages.show_empty("Choose two or more", "Their overlaps are shown here.")
        return
    found = progress_bars.value_of(_overlap(entry, tuple((name, texts[name]) for name in names)), key="sharing")
    if found is None:
        return
    _draw_overlap([_shown(name) for name in names], found)
    for name in (name for name in names if name.startswith("list ")):
        if unknown := state.picked(entry, texts[name]).selection.report[0].unknown:
            messages.show_note(f"{_shown(name)} names {words.number(unknown)} more uids that this run lacks.")
    _two(entry, texts, found)


def _shown(name: str) -> str:
    """A selection's name as people read it."""
    return "the draft" if name == _DRAFT else name.partition(" ")[2]


def _known(entry: Entry, run: Run) -> tuple[dict[str, str], dict[str, ClipselError]]:
    """What can be compared, as recipes (YAML) by name; and what cannot, with the reason."""
    texts, errors = {_DRAFT: recipes.draft_yaml(entry, run)}, {}
    for stem, path in recipes.saved(run).items():
        try:
            texts[f"recipe {stem}"] = recipes.as_yaml(list(load_recipe(path, state.open_table(entry).columns).steps))
        except ClipselError as error:
            errors[f"recipe {stem}"] = error
    for name in recipes.list_files(run):
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


def _two(entry: Entry, texts: dict[str, str], found: Overlap) -> None:
    """Two of them against each other."""
    names = list(found.names)
    left, right, _ = st.columns([2, 2, 3], gap="medium")
    shared: dict[str, Any] = {"format_func": _shown, "bind": "query-params", "on_change": galleries.rewind_sorted}
    for key in ("this", "against"):
        if st.session_state.get(key, names[0]) not in names:
            del st.session_state[key]
    first = left.selectbox("This", names, key="this", **shared)
    second = right.selectbox("against", [*names[1:], names[0]], key="against", **shared)
    if first == second:
        messages.show_empty("The same selection twice", "Choose another one to compare it with.")
        return
    if not any(name.startswith("list ") for name in (first, second)):
        changes = differences(state.parse(entry, texts[first]), state.parse(entry, texts[second]))
        _draw_changes(entry, _shown(first), _shown(second), changes)
    # The pairs of one and not the other, and of both.
    i, j = found.names.index(first), found.names.index(second)
    both = int(found.both[i, j])
    counts = (int(found.sizes[i]) - both, both, int(found.sizes[j]) - both)
    part = galleries.ask_for_part(counts, key="part")

    def bits() -> np.ndarray:
        mine, theirs = (state.kept_bits(entry, texts[name]) for name in (first, second))
        return (mine & ~theirs, mine & theirs, theirs & ~mine)[part]

    title = (f"Only in {_shown(first)}", "In both", f"Only in {_shown(second)}")[part]
    about = (part, *((texts[name], state.recipe_stamp(entry, texts[name])) for name in (first, second)))
    galleries.draw_sorted(entry, counts[part], bits, name=about, title=title)


@state.per_run(16, stamp=lambda entry, known: tuple(state.recipe_stamp(entry, text) for _, text in known))
def _overlap(entry: Entry, known: tuple[tuple[str, str], ...]) -> Task[Overlap]:
    """What selections share. known: the name and the recipe (YAML) of each."""
    picker, parsed = state.open_picker(entry), {name: state.parse(entry, text) for name, text in known}

    def count(report: Report) -> Overlap:
        bits = {}
        for place, (name, recipe) in enumerate(parsed.items()):
            report(place, len(parsed), "", f"Working out selection {place + 1} of {len(parsed)} …")
            bits[name] = picker.select(recipe).bits()
        return overlap(bits)

    return Task(count)


def _draw_overlap(labels: Sequence[str], found: Overlap) -> None:
    """The matrix of what each two share, as a count or as a share."""
    measure = st.segmented_control(
        "Measure",
        list(_MEASURES),
        default="pairs",
        required=True,
        key="measure",
        label_visibility="collapsed",
        bind="query-params",
    )
    messages.show_title(_MEASURES[measure], "stronger colour is more in common")
    shares = found.jaccard if measure == "Jaccard" else found.of_row
    head = "".join(f"<th>{html.escape(label)}</th>" for label in labels)
    rows = []
    for i, label in enumerate(labels):
        cells = [f'<th>{html.escape(label)}</th><td data-of="pairs">{words.number(found.sizes[i])}</td>']
        for j, other in enumerate(labels):
            share = float(shares[i, j])
            text = words.number(found.both[i, j]) if measure == "pairs" else words.percentage(share)
            # data-of: the column's name, for screens that have no room for columns.
            shade = f'data-of="with {html.escape(other)}" style="--part:{100 * np.nan_to_num(share):.0f}%"'
            told = 'class="self"' if i == j else shade
            cells.append(f"<td {told}>{text}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    st.html(
        f'<div class="matrix"><table><thead><tr><th></th><th>pairs</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _draw_changes(entry: Entry, first: str, second: str, changes: Sequence[Change]) -> None:
    """Two recipes side by side, a row for each of their steps."""
    differing = sum(change.kind != "same" for change in changes)
    said = "the same steps" if not differing else f"{differing} of {len(changes)} steps differ"
    messages.show_title("Step by step", said)
    rows = "".join(
        f'<tr class="{change.kind}"><td>{"" if change.kind == "same" else change.kind}</td>'
        f"<td>{_step(entry, change.before)}</td><td>{_step(entry, change.after)}</td></tr>"
        for change in changes
    )
    st.html(
        f'<div class="matrix changes"><table><thead><tr><th></th><th>{html.escape(first)}</th>'
        f"<th>{html.escape(second)}</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _step(entry: Entry, step: AnyStep | None) -> str:
    return html.escape(recipes.step_in_words(entry, step)) if step is not None else ""


show(state.current())
