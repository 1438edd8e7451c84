"""Which pairs could as well be kept or dropped? Those around a threshold, and those that another seed would change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from clipsel_core.curation.recipes.recipe import AtMost, KeepBottom, ScoreStep
from clipsel_core.curation.selecting import stability
from clipsel_core.curation.selecting.live import BoundarySide, boundary
from clipsel_core.curation.selecting.stability import Stability
from clipsel_core.runs.columns import CLIP_SCORE, NORMSIM, S_CLIPLOSS
from clipsel_core.runs.store import Run
from pages.parts import messages, recipes, registry, state, words
from pages.parts.catalog import Entry
from pages.parts.gallery import cards, pager
from pages.parts.pair import galleries

_SIDE = 12
_LISTED, _CARDS, _PAGE = 960, 24, "edge_page"


def draw_threshold_expander(entry: Entry, run: Run) -> DeltaGenerator | None:
    """An expander for draw_threshold to fill; None while it is shut or where no step has a threshold."""
    if not _steps(entry, run):
        return None
    box = st.expander("Pairs at the threshold", icon=":material/compare:", key="at threshold", on_change="rerun")
    return box if box.open else None


def draw_threshold(entry: Entry, run: Run, recipe: str) -> None:
    """What the expander holds. recipe: the draft's YAML, which fits the run."""
    steps = _steps(entry, run)
    first = next(iter(steps))
    if st.session_state.get("threshold of") not in steps:
        st.session_state["threshold of"] = first
    asked = st.segmented_control(
        "Step",
        list(steps),
        format_func=lambda place: f"{place + 1} · {registry.title(entry, recipes.ranked_by(steps[place]))}",
        key="threshold of",
        required=True,
        label_visibility="collapsed",
    )
    place = first if asked is None else asked
    found = boundary(state.open_picker(entry), state.parse(entry, recipe), place)
    upward, kept = not isinstance(steps[place], AtMost | KeepBottom), state.keeps(entry, recipe)
    messages.show_note("Of the pairs that reach this step, the nearest first. K keeps and D drops the pair in focus.")
    sides = (
        ("below", found.failing if upward else found.passing),
        ("above", found.passing if upward else found.failing),
    )
    for column, (side, listed) in zip(st.columns(2, gap="large"), sides, strict=True):
        pager.rewind_on_change(_pager(side), found.cuts)
        with column:
            _side(entry, steps[place], side, listed, kept, passes=(side == "above") == upward)


def draw_seed_expander() -> DeltaGenerator | None:
    """An expander for draw_seed to fill; None while it is shut."""
    box = st.expander("Under another seed", icon=":material/casino:", key="other seed", on_change="rerun")
    return box if box.open else None


def draw_seed(entry: Entry, recipe: str) -> None:
    """What the expander holds. recipe: the draft's YAML, which fits the run."""
    found = _stability(entry, recipe)
    for metric in found.unknown:
        messages.show_note(f"A step uses {registry.title(entry, metric)}; how much of it is chance is not on record.")
    if not found.noisy:
        title = "No step of this recipe depends on the seed"
        messages.show_empty(
            title,
            f"{CLIP_SCORE.title} and {NORMSIM} are the same under every seed; only {S_CLIPLOSS.title} divides at "
            "random.",
        )
    elif found.scored_once:
        one = "It made one division, which shows no spread. Score with --divisions 5 or more to see how much is chance."
        same = "Every shard is one batch, so the divisions are all the same and nothing was drawn at random."
        why = one if state.open_run(entry).config.divisions < 2 else same
        messages.show_empty("The run has no record of chance", why)
    else:
        _draw_flips(entry, found, recipe)


def _steps(entry: Entry, run: Run) -> dict[int, ScoreStep]:
    """The draft's steps with a threshold, by their places."""
    draft = recipes.draft(entry, run).values()
    return {place: step for place, step in enumerate(draft) if isinstance(step, ScoreStep)}


def _pager(side: str) -> str:
    return f"{side}_page"


def _side(entry: Entry, step: ScoreStep, side: str, listed: BoundarySide, kept: state.Keeps, *, passes: bool) -> None:
    verb = "passes the step" if passes else "fails the step"
    if not len(listed):
        why = f"No pair that reaches this step {verb}; move its thumb."
        messages.show_empty(f"No pair just {side} the threshold", why)
        return
    pages, title = _Pages(listed), st.container()
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        page = pager.choose_page(_pager(side), pages)
    metric = recipes.ranked_by(step)
    values = state.open_table(entry).take(metric, pages.rows(page))
    # In a large run the pairs of a page may differ by less than is said of a score.
    span = " to ".join(dict.fromkeys(words.decimal(float(end)) for end in (values.min(), values.max())))
    with title:
        said = f"{words.pairs(len(listed))}, these have {registry.title(entry, metric)} {span}"
        messages.show_title(f"Just {side}: {verb}", said)
    shown: dict[str, Any] = {"title": f"Pairs just {side} the threshold", "keeps": kept, "pager_key": _pager(side)}
    galleries.draw_gallery(entry, pages, metric, key=f"just {side}", page=page, **shown)


@dataclass(frozen=True)
class _Pages:
    """One side of a threshold, in pages."""

    listed: BoundarySide
    size: int = _SIDE

    def __len__(self) -> int:
        return len(self.listed)

    def rows(self, page: int) -> np.ndarray:
        return self.listed.rows((page - 1) * self.size, self.size)

    def row_at(self, place: int) -> int:
        return int(self.listed.rows(place, 1)[0])


def _draw_flips(entry: Entry, found: Stability, recipe: str) -> None:
    flips = f"{found.flips:,.1f}" if found.flips < 10 else words.number(round(found.flips))
    share = words.share(found.flips, found.kept)
    share = share if share.startswith(("under", "over")) else f"about {share}"
    messages.show_title(
        f"{share[:1].upper()}{share[1:]} of the selection would be other pairs under another seed",
        f"{flips} of {words.number(found.kept)} leave, as many join",
    )
    divisions = state.open_run(entry).config.divisions
    messages.show_note(
        f"Estimated from how far each pair's {S_CLIPLOSS.title} moved between the run's {divisions} divisions. "
        "Steps on other metrics have no part in it. Below: the pairs most likely to change sides."
    )
    if not len(found.rows):
        messages.show_empty("No pair is on the edge", "No pair lies so close to a threshold that chance could move it.")
        return
    listed = pager.RowList(found.rows, _CARDS)
    # Whoever judges a pair here goes on from there; another threshold makes another list.
    pager.rewind_on_change(_PAGE, [step for step in state.parse(entry, recipe).steps if isinstance(step, ScoreStep)])
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        page = pager.choose_page(_PAGE, listed)
    shown: dict[str, Any] = {"title": "Pairs most likely to change sides", "keeps": state.keeps(entry, recipe)}
    # One half, the most there is, fills the bar.
    bars = [
        (cards.Bar("chance to flip", f"{100 * chance:.0f} %", "", min(200 * float(chance), 100.0)),)
        for chance in found.chances[(page - 1) * _CARDS : page * _CARDS]
    ]
    galleries.draw_gallery(
        entry, listed, stability.NOISY, key="on the edge", page=page, pager_key=_PAGE, also=bars, **shown
    )


@state.per_run(16, stamp=state.recipe_stamp)
def _stability(entry: Entry, recipe: str) -> Stability:
    return stability.stability(state.picked(entry, recipe).selection, state.parse(entry, recipe), most=_LISTED)
