"""What else than a thumb does a step's card hold? Values to tick, words, ends of an interval, weights, a seed.

A field says its whole content when it is changed; the step is then made anew, unless it cannot have that.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import streamlit as st
from pydantic import ValidationError

from clipsel_core.curation.recipes.recipe import (
    AnyStep,
    Between,
    Contains,
    In,
    Random,
    ScoreStep,
)
from clipsel_core.errors import ClipselError, RecipeError
from clipsel_core.runs.store import Run
from pages.parts import categories, charts, marginals, messages, recipes, registry, sessions, words
from pages.parts.brush import Chart
from pages.parts.catalog import Entry
from pages.parts.pair import marked

_BINS = 128
_EXPECTED = {
    "in": "a value to keep",
    "contains": "a word",
    "between": "two numbers, the lower first",
    "random": "a share, 0 to 100 %, and a seed",
    **dict.fromkeys(
        ("keep_top", "keep_bottom", "at_least", "at_most"), "at least one column, with another weight than 0"
    ),
}
_STANDARDISED = {"zscore": "z-scores", "rank": "ranks", "none": "values as they are"}
_OF = {"survivors": "of the survivors", "pool": "of the pool"}


def draw_fields(entry: Entry, run: Run, number: int, step: AnyStep) -> None:
    """Draws what a step is set with beside its thumb; nothing where it has only that, or nothing to be set."""
    match step:
        case In():
            _draw_values(entry, run, number, step)
        case Contains():
            _draw_words(entry, run, number, step)
        case Between():
            _draw_interval(entry, run, number, step)
        case Random():
            _draw_random(entry, run, number, step)
        case ScoreStep() if step.mix:
            _draw_weights(entry, run, number, dict(step.mix), step)


@sessions.callback
def _change(entry: Entry, run: Run, number: int, told: Callable[[AnyStep], dict[str, Any]]) -> None:
    """Makes a step anew with what its fields say. told: reads them, as keys of the step."""
    step = recipes.draft(entry, run).get(number)
    if step is None:
        return
    try:
        made = type(step).model_validate({**step.model_dump(by_alias=True, exclude_none=True), **told(step)})
    except (ValidationError, ValueError, ArithmeticError) as error:
        raise RecipeError(step.where, expected=_EXPECTED[step.kind], found="something else") from error
    recipes.change_step(entry, run, number, made)


def _draw_values(entry: Entry, run: Run, number: int, step: In) -> None:
    try:
        found = categories.find_categories(entry, step.column)
    except ClipselError:  # Numbers, or a pool that is not at hand.
        found = None
    counts = dict(zip(found.labels, found.counts.tolist(), strict=True)) if found else {}
    if not counts and registry.column_of(entry, step.column).kind == "text":
        messages.show_note("It has many values, which cannot be listed: type those to keep, as they are written.")

    def label(value: str) -> str:
        return f"{categories.shown(value)} · {words.number(counts[value])}" if value in counts else value

    key = f"values-{number}"
    st.multiselect(
        "Values to keep",
        list(dict.fromkeys([*counts, *step.in_])),
        list(step.in_),
        format_func=label,
        key=key,
        placeholder="type to find a value" if counts else "type a value",
        accept_new_options=not counts,
        label_visibility="collapsed",
        on_change=_change,
        args=(entry, run, number, lambda _: {"in": list(st.session_state[key])}),
    )


def _draw_words(entry: Entry, run: Run, number: int, step: Contains) -> None:
    key = f"words-{number}"
    st.multiselect(
        "Words, any of which must be there",
        list(step.contains),
        list(step.contains),
        key=key,
        placeholder="type a word",
        accept_new_options=True,
        on_change=_change,
        args=(entry, run, number, lambda _: {"contains": list(st.session_state[key])}),
        help="Whole words, upper and lower case alike; of several words the text must have them one after another.",
    )


def _draw_interval(entry: Entry, run: Run, number: int, step: Between) -> None:
    low, high = f"low-{number}", f"high-{number}"

    def told(_: AnyStep) -> dict[str, Any]:
        return {"between": [st.session_state[low], st.session_state[high]]}

    with st.container(horizontal=True, gap="small"):
        wide: dict[str, Any] = {"format": "%.10g", "width": 170, "on_change": _change}
        wide["args"] = (entry, run, number, told)
        st.number_input("From", value=step.between[0], key=low, **wide)
        st.number_input("To", value=step.between[1], key=high, **wide)
    spread = marginals.marginal(entry, step.column)
    edges, whole = spread.coarse(_BINS)
    passing = np.where((step.between[0] <= edges[1:]) & (edges[:-1] <= step.between[1]), whole, 0)
    ends = [charts.Mark(end, "") for end in step.between if edges[0] <= end <= edges[-1]]
    layers = [charts.Layer("pool", "pool", whole), charts.Layer("kept", "in the interval", passing)]
    note = registry.column_of(entry, step.column).help
    unit = registry.unit_of(registry.column_of(entry, step.column))
    shown = registry.title(entry, step.column)
    chart = Chart(entry.key, f"between-{number}", step.column)
    charts.draw_histogram(shown, note, edges, layers, ends, chart=chart, height=110, unit=unit)
    marked.draw_interval(entry, chart, _BINS)


def _draw_random(entry: Entry, run: Run, number: int, step: Random) -> None:
    share, seed, of = f"random-{number}", f"seed-{number}", f"of-{number}"

    def told(old: AnyStep) -> dict[str, Any]:
        typed = st.session_state[share]
        same = isinstance(old, Random) and float(old.random * 100) == typed
        part = old.value if same else Decimal(f"{typed:.10g}") / 100
        return {"random": part, "seed": int(st.session_state[seed]), "of": st.session_state[of]}

    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        again: dict[str, Any] = {"on_change": _change, "args": (entry, run, number, told)}
        percent = float(step.random * 100)
        st.number_input("Percent", 0.0, 100.0, percent, 1.0, format="%.10g", key=share, width=130, **again)
        st.selectbox("Of", list(_OF), list(_OF).index(step.of), _OF.__getitem__, key=of, width=170, **again)
        st.number_input("Seed", 0, value=step.seed, key=seed, width=110, **again)


def _draw_weights(entry: Entry, run: Run, number: int, weights: dict[str, Decimal], step: ScoreStep) -> None:
    """The columns of a mix, what is done to each before, and its weight."""
    chosen, how = f"mixed-{number}", f"standardise-{number}"

    def told(old: AnyStep) -> dict[str, Any]:
        kept, before = {}, dict(old.mix or ()) if isinstance(old, ScoreStep) else {}
        for name in st.session_state[chosen]:
            typed, weight = st.session_state.get(f"weight-{number}-{name}"), before.get(name, Decimal(1))
            # As it was written, unless another was typed.
            kept[name] = weight if typed is None or float(weight) == typed else Decimal(f"{typed:.10g}")
        return {"mix": kept, "standardise": st.session_state[how]}

    again: dict[str, Any] = {"on_change": _change, "args": (entry, run, number, told)}
    titles = registry.titles(entry)
    left, right = st.columns([5, 2])
    names = list(dict.fromkeys([*registry.offered(entry), *weights]))
    left.multiselect("Columns of the mix", names, list(weights), format_func=titles, key=chosen, **again)
    ways = list(_STANDARDISED)
    right.selectbox(
        "What is weighed",
        ways,
        ways.index(step.standardise or "zscore"),
        _STANDARDISED.__getitem__,
        key=how,
        help="Of each column its z-scores, its ranks from 0 to 1, or its values.",
        **again,
    )
    for place, (name, weight) in enumerate(weights.items()):
        if place % 3 == 0:
            row = st.columns(3)
        with row[place % 3]:
            wide: dict[str, Any] = {"format": "%.10g", **again}
            wide["help"] = words.as_markdown(registry.column_of(entry, name).help)
            label = words.as_markdown(titles(name))
            st.number_input(label, value=float(weight), step=0.1, key=f"weight-{number}-{name}", **wide)
