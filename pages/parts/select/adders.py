"""How is a step of another kind than by a score added? By a category, by words, at random, by a mix."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import streamlit as st

from clipsel_core.curation.recipes.recipe import AnyStep, Contains, In, KeepTop, Random
from clipsel_core.errors import ClipselError
from clipsel_core.runs.store import Run
from pages.parts import categories, messages, recipes, registry, sessions, state
from pages.parts.catalog import Entry

# A category with no more values begins with all of them ticked.
_FEW_VALUES = 12
_MIXED = 2


def draw_kinds_adder(entry: Entry, run: Run) -> None:
    """A panel that adds one of these steps; what it offers is looked for once it is open."""
    kinds: dict[str, Callable[[Entry], AnyStep | None]] = {
        "a category": _ask_for_category,
        "words": _ask_for_words,
        "at random": _at_random,
        "a mix": _mix,
    }
    panel = st.popover("Other kinds", icon=":material/tune:", key="other kinds", on_change="rerun")
    if not panel.open:
        return

    @sessions.callback
    def add(step: AnyStep) -> None:
        recipes.add_step(entry, run, step)
        # What was added appears where the panel lies.
        st.session_state["other kinds"] = False

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
    names = categories.offered(entry, wait=True)
    where = "a column that sorts pairs" if names else "no column that sorts pairs"
    titles = registry.titles(entry)
    name = st.selectbox("Category", names, None, titles, key="new category", placeholder=where, disabled=not names)
    messages.show_note("Keeps pairs with one of the values that are ticked on its card.")
    if name is None:
        return None
    found = categories.find_categories(entry, name)
    if found is None:
        messages.show_note(categories.too_many(registry.title(entry, name)))
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


def _mix(entry: Entry) -> AnyStep | None:
    messages.show_note("Keeps the top 30 % by a weighted sum of columns; the weights are set on its card.")
    names = registry.own_numbers(entry)
    better = [name for name in names if registry.column_of(entry, name).direction == "higher"]
    mixed = tuple((name, Decimal(1)) for name in [*better, *names][:_MIXED])
    return KeepTop.model_validate({"mix": mixed, "keep_top": Decimal("0.3")}) if mixed else None
