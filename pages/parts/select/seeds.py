"""How much of the selection is luck of the draw? What another seed would change, and the pairs on the edge."""

from __future__ import annotations

from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from clipsel_core.curation.selecting import stability
from clipsel_core.curation.selecting.live import ScoreStep
from clipsel_core.curation.selecting.stability import Stability
from pages.parts import messages, metrics, state, words
from pages.parts.catalog import Entry
from pages.parts.gallery import cards, pager
from pages.parts.pair import galleries

_LISTED, _CARDS, _PAGE = 960, 24, "edge_page"


def draw_expander() -> DeltaGenerator | None:
    """An expander for draw_flips to fill; None while it is shut."""
    box = st.expander("Under another seed", icon=":material/casino:", key="other seed", on_change="rerun")
    return box if box.open else None


def draw_flips(entry: Entry, recipe: str) -> None:
    """What the expander holds. recipe: the draft's YAML, which fits the run."""
    found = _stability(entry, recipe)
    for metric in found.unknown:
        messages.show_note(f"A step uses {metrics.title(metric)}; how much of it is chance is not on record.")
    if not found.noisy:
        title = "No step of this recipe depends on the seed"
        messages.show_empty(
            title, "CLIPScore and NormSim are the same under every seed; only s-CLIPLoss divides at random."
        )
    elif found.scored_once:
        one = "It made one division, which shows no spread. Score with --divisions 5 or more to see how much is chance."
        same = "Every shard is one batch, so the divisions are all the same and nothing was drawn at random."
        why = one if state.open_run(entry).config.divisions < 2 else same
        messages.show_empty("The run has no record of chance", why)
    else:
        _draw_flips(entry, found, recipe)


def _draw_flips(entry: Entry, found: Stability, recipe: str) -> None:
    flips = f"{found.flips:,.1f}" if found.flips < 10 else words.count(round(found.flips))
    share = words.share(found.flips, found.kept)
    share = share if share.startswith(("under", "over")) else f"about {share}"
    messages.show_title(
        f"{share[:1].upper()}{share[1:]} of the selection would be other pairs under another seed",
        f"{flips} of {words.count(found.kept)} leave, as many join",
    )
    divisions = state.open_run(entry).config.divisions
    messages.show_note(
        f"Estimated from how far each pair's s-CLIPLoss moved between the run's {divisions} divisions. "
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
