"""Is the threshold in the right place? The pairs just below it and just above it, side by side, for one step."""

from __future__ import annotations

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from clipsel_core.curation.recipes.recipe_steps import AtMost
from clipsel_core.curation.selecting.boundary import Boundary, boundary
from clipsel_core.curation.selecting.live import ScoreStep
from clipsel_core.runs.store import Run
from pages.parts import empty, facts, metrics, recipes, state, words
from pages.parts.catalog import Entry
from pages.parts.pair import pairs

_SIDE = 12


def panel(entry: Entry, run: Run) -> DeltaGenerator | None:
    """An expander for `show` to fill; None while it is shut or where no step has a threshold."""
    if not _steps(entry, run):
        return None
    box = st.expander("Pairs at the threshold", icon=":material/compare:", key="at threshold", on_change="rerun")
    return box if box.open else None


def show(entry: Entry, run: Run, recipe: str) -> None:
    """What the panel holds. recipe: the draft's YAML, which fits the run."""
    steps = _steps(entry, run)
    if st.session_state.get("threshold of") not in steps:
        st.session_state["threshold of"] = next(iter(steps))
    place = st.segmented_control(
        "Step",
        list(steps),
        format_func=lambda place: f"{place + 1} · {metrics.title(steps[place].metric)}",
        key="threshold of",
        required=True,
        label_visibility="collapsed",
    )
    found = _boundary(entry, state.recipe_stamp(entry, recipe), recipe, place)
    upward, kept = not isinstance(steps[place], AtMost), state.keeps(entry, recipe)
    facts.show_note("Of the pairs that reach this step, the nearest first. K keeps and D drops the pair in focus.")
    sides = (
        ("below", found.failing if upward else found.passing),
        ("above", found.passing if upward else found.failing),
    )
    for column, (side, rows) in zip(st.columns(2, gap="large"), sides, strict=True):
        with column:
            _side(entry, steps[place], side, rows, kept, passes=(side == "above") == upward)


def _steps(entry: Entry, run: Run) -> dict[int, ScoreStep]:
    """The draft's steps with a threshold, by their places."""
    draft = recipes.draft(entry, run).values()
    return {place: step for place, step in enumerate(draft) if isinstance(step, ScoreStep)}


def _side(entry: Entry, step: ScoreStep, side: str, rows: np.ndarray, kept: state.Keeps, *, passes: bool) -> None:
    verb = "passes the step" if passes else "fails the step"
    if not len(rows):
        empty.show_empty(
            f"No pair just {side} the threshold", f"No pair that reaches this step {verb}; move its thumb."
        )
        return
    values = state.open_table(entry).take(step.metric, rows)
    span = f"{metrics.title(step.metric)} {words.score(float(values.min()))} to {words.score(float(values.max()))}"
    facts.show_title(f"Just {side}: {verb}", span)
    pairs.gallery(entry, rows, step.metric, key=f"just {side}", label=f"Pairs just {side} the threshold", kept=kept)


@st.cache_resource(max_entries=16, show_spinner=False)
def _boundary(entry: Entry, stamp: state.Stamp, recipe: str, place: int) -> Boundary:
    return boundary(state.open_picker(entry), state.parse(entry, recipe), place, most=_SIDE)
