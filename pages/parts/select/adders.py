"""How is a step of another kind than by a score added? By a category, by words, at random, by a mix, as samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

import streamlit as st

from clipsel_core.curation.recipes.recipe import AnyOf, AnyStep, Contains, In, KeepTop, Known, Random, Sample
from clipsel_core.errors import ClipselError
from clipsel_core.runs.store import Run
from pages.parts import messages, recipes, registry, sessions, state
from pages.parts.catalog import Entry
from pages.parts.select import fields

# A category with no more values begins with all of them ticked.
_FEW_VALUES = 12
_MIXED = 2


@dataclass
class _Adder:
    """How many steps a session added with the panel: each has one of its own."""

    added: int = 0


def draw_kinds_adder(entry: Entry, run: Run) -> None:
    """A panel that adds one of these steps; what it offers is looked for once it is open."""
    kinds: dict[str, Callable[[Entry], AnyStep | None]] = {
        "a category": _ask_for_category,
        "words": _ask_for_words,
        "a mix": _mix,
        "any of several": _any_of,
        "what is known": _known,
        "at random": _at_random,
        "samples": partial(_sample, run=run),
    }
    adder = sessions.get(_Adder)
    panel = st.popover("Other kinds", icon=":material/tune:", key=f"other kinds {adder.added}", on_change="rerun")
    if not panel.open:
        return

    @sessions.callback
    def add(step: AnyStep) -> None:
        recipes.add_step(entry, run, step)
        # What was added appears where the panel lies. The browser would open the same one again with what it says next.
        adder.added += 1

    with panel:
        kind = st.segmented_control("Keep by", list(kinds), default="a category", required=True, key="kind of step")
        step = None
        try:
            step = kinds[kind or "a category"](entry)
        except ClipselError as error:
            messages.show_error(error, "What the pool holds cannot be read")
        empty = Random(random=Decimal(1))
        st.button("Add", type="primary", key="add kind", disabled=step is None, on_click=add, args=(step or empty,))


def _ask_for_category(entry: Entry) -> AnyStep | None:
    names = registry.kind_columns(entry, wait=True)
    where = "a column that sorts pairs" if names else "no column that sorts pairs"
    titles = registry.titles(entry)
    name = st.selectbox("Category", names, None, titles, key="new category", placeholder=where, disabled=not names)
    messages.show_note("Keeps pairs with one of the values that are ticked on its card.")
    if name is None:
        return None
    found = registry.find_categories(entry, name)
    if found is None:
        messages.show_note(registry.too_many_values(registry.title(entry, name)))
        typed = st.text_input("One of its values", key="new value", max_chars=200)
        return In.model_validate({"column": name, "in": (typed,)}) if typed else None
    labels = found.labels
    return In.model_validate({"column": name, "in": labels[: None if len(labels) <= _FEW_VALUES else 1]})


def _ask_for_words(entry: Entry) -> AnyStep | None:
    names = registry.offered(entry, "text", wait=True)
    pool = state.open_table(entry).metadata.pool
    captions = pool.text_column if pool else None
    at = names.index(captions) if captions in names else None
    where = "a column of texts" if names else "the pool is not at hand, or has no texts"
    titles = registry.titles(entry)
    name = st.selectbox("Texts", names, at, titles, key="new texts", placeholder=where, disabled=not names)
    said = st.text_input("Words", key="new words", max_chars=200, placeholder="dog, cat")
    messages.show_note("Keeps pairs whose text has one of these, as whole words. Separate them by commas.")
    asked = [word.strip() for word in said.split(",") if any(letter.isalnum() for letter in word)]
    return Contains(column=name, contains=tuple(asked)) if name and asked else None


def _at_random(entry: Entry) -> AnyStep:
    messages.show_note("Keeps half of the pairs that reach it: which, is decided by a seed and each pair's uid.")
    return Random(random=Decimal("0.5"))


def _any_of(entry: Entry) -> AnyStep:
    messages.show_note("Keeps pairs that pass one of several filters, which are set on its card.")
    return AnyOf(any_of=(fields.next_filter(entry),))


def _known(entry: Entry) -> AnyStep:
    messages.show_note("Keeps pairs that have a value in a column, or those that have none; which, is set on its card.")
    # What was added later may lack pairs; what was computed seldom does.
    return Known(column=registry.own_numbers(entry)[-1], known=True)


def _sample(entry: Entry, run: Run) -> AnyStep | None:
    if any(isinstance(step, Sample) for step in recipes.draft(entry, run).values()):
        messages.show_note("The recipe draws samples already: its last step.")
        return None
    messages.show_note("Draws samples of what is kept, the last of all steps; a pair may be drawn several times.")
    by = ((_best(entry)[0], Decimal(1)),)
    return Sample.model_validate({"sample": len(state.open_table(entry)), "by": by, "standardise": "zscore"})


def _best(entry: Entry) -> list[str]:
    """The run's own columns of numbers, those first of which more is better."""
    names = registry.own_numbers(entry)
    return list(dict.fromkeys([*(n for n in names if registry.column_of(entry, n).direction == "higher"), *names]))


def _mix(entry: Entry) -> AnyStep | None:
    messages.show_note("Keeps the top 30 % by a weighted sum of columns; the weights are set on its card.")
    mixed = tuple((name, Decimal(1)) for name in _best(entry)[:_MIXED])
    return KeepTop.model_validate({"mix": mixed, "keep_top": Decimal("0.3")}) if mixed else None
