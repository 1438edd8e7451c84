"""Is the threshold in the right place? The pairs just below it and just above it, side by side, for one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from clipsel_core.curation.recipes.recipe import AtMost
from clipsel_core.curation.selecting.live import ScoreStep, Side, boundary
from clipsel_core.runs.store import Run
from pages.parts import messages, metrics, recipes, state, words
from pages.parts.catalog import Entry
from pages.parts.gallery import pager
from pages.parts.pair import galleries

_SIDE = 12


def draw_expander(entry: Entry, run: Run) -> DeltaGenerator | None:
    """An expander for draw_pairs to fill; None while it is shut or where no step has a threshold."""
    if not _steps(entry, run):
        return None
    box = st.expander("Pairs at the threshold", icon=":material/compare:", key="at threshold", on_change="rerun")
    return box if box.open else None


def draw_pairs(entry: Entry, run: Run, recipe: str) -> None:
    """What the expander holds. recipe: the draft's YAML, which fits the run."""
    steps = _steps(entry, run)
    first = next(iter(steps))
    if st.session_state.get("threshold of") not in steps:
        st.session_state["threshold of"] = first
    asked = st.segmented_control(
        "Step",
        list(steps),
        format_func=lambda place: f"{place + 1} · {metrics.title(steps[place].metric)}",
        key="threshold of",
        required=True,
        label_visibility="collapsed",
    )
    place = first if asked is None else asked
    found = boundary(state.open_picker(entry), state.parse(entry, recipe), place)
    upward, kept = not isinstance(steps[place], AtMost), state.keeps(entry, recipe)
    messages.show_note("Of the pairs that reach this step, the nearest first. K keeps and D drops the pair in focus.")
    sides = (
        ("below", found.failing if upward else found.passing),
        ("above", found.passing if upward else found.failing),
    )
    for column, (side, listed) in zip(st.columns(2, gap="large"), sides, strict=True):
        pager.rewind_on_change(_pager(side), found.cuts)
        with column:
            _side(entry, steps[place], side, listed, kept, passes=(side == "above") == upward)


def _steps(entry: Entry, run: Run) -> dict[int, ScoreStep]:
    """The draft's steps with a threshold, by their places."""
    draft = recipes.draft(entry, run).values()
    return {place: step for place, step in enumerate(draft) if isinstance(step, ScoreStep)}


def _pager(side: str) -> str:
    return f"{side}_page"


def _side(entry: Entry, step: ScoreStep, side: str, listed: Side, kept: state.Keeps, *, passes: bool) -> None:
    verb = "passes the step" if passes else "fails the step"
    if not len(listed):
        why = f"No pair that reaches this step {verb}; move its thumb."
        messages.show_empty(f"No pair just {side} the threshold", why)
        return
    pages, title = _Pages(listed), st.container()
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        page = pager.choose_page(_pager(side), pages)
    values = state.open_table(entry).take(step.metric, pages.rows(page))
    # In a large run the pairs of a page may differ by less than is said of a score.
    span = " to ".join(dict.fromkeys(words.score(float(end)) for end in (values.min(), values.max())))
    with title:
        said = f"{words.pairs(len(listed))}, these have {metrics.title(step.metric)} {span}"
        messages.show_title(f"Just {side}: {verb}", said)
    shown: dict[str, Any] = {"title": f"Pairs just {side} the threshold", "keeps": kept, "pager_key": _pager(side)}
    galleries.draw_gallery(entry, pages, step.metric, key=f"just {side}", page=page, **shown)


@dataclass(frozen=True)
class _Pages:
    """One side of a threshold, in pages."""

    listed: Side
    size: int = _SIDE

    def __len__(self) -> int:
        return len(self.listed)

    def rows(self, page: int) -> np.ndarray:
        return self.listed.rows((page - 1) * self.size, self.size)

    def row_at(self, place: int) -> int:
        return int(self.listed.rows(place, 1)[0])
