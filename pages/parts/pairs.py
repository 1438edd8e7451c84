"""How do row numbers become cards, and what does an opened pair show? Captions stay text all the way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from clipsel_core import uids
from pages.parts import cards, facts, marginals, metrics, recipes, routes, state, words
from pages.parts.catalog import Entry

_LONGEST_CAPTION = 2_000


def gallery(
    entry: Entry,
    rows: np.ndarray,
    metric: str,
    *,
    key: str,
    label: str,
    kept: np.ndarray | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Draws pairs as cards with one score, and opens the one that is clicked.

    kept: (N,) bool, for the badge. notes: words to go behind it, one for each of the rows.
    """
    table = state.open_table(entry)
    spread = marginals.marginal(entry, metric)
    names = uids.to_hex(table.uids_at(rows)).to_pylist()
    captions = table.metadata(rows, ("caption",))["caption"]
    values = table.take(metric, rows)
    pictured, hand = has_images(entry), recipes.by_hand(entry, state.open_run(entry))
    drawn = [
        _card(entry, name, caption, float(value), spread, pictured, _badge(kept, row, hand.get(name), note))
        for row, name, caption, value, note in zip(
            rows, names, captions, values, notes or [""] * len(rows), strict=True
        )
    ]
    opened = cards.show_cards(drawn, key=key, label=label, judged=partial(_judge, entry, key, frozenset(names)))
    if opened in names:
        _open(entry, int(rows[names.index(opened)]), opened)


def _judge(entry: Entry, key: str, names: frozenset[str]) -> None:
    """Takes a K or D on one of these cards into the recipe."""
    said = cards.judgement(key)
    if said and said[0] in names:
        recipes.judge(entry, state.open_run(entry), *said)


def _badge(kept: np.ndarray | None, row: int, hand: str | None, note: str) -> str:
    if hand:
        said = "kept by hand" if hand == "keep" else "dropped by hand"
    else:
        said = "" if kept is None else ("kept" if kept[row] else "dropped")
    return " · ".join(word for word in (said, note) if word)


def has_images(entry: Entry) -> bool:
    """Whether the run's pool is at hand and knows where its images are."""
    pool = state.find_pool(entry)
    return bool(pool and pool.has_images)


def _card(
    entry: Entry, uid: str, caption: str, value: float, spread: marginals.Marginal, pictured: bool, badge: str
) -> cards.Card:
    scored = np.isfinite(value)
    percentile = spread.percentile(value) if scored else None
    return cards.Card(
        uid=uid,
        src=routes.image_url(entry, uid) if pictured else "",
        caption=str(caption)[:_LONGEST_CAPTION],
        value=words.score(value),
        rank=f"P{percentile:.1f}" if percentile is not None else "not scored",
        percentile=percentile,
        badge=badge,
    )


@st.dialog("Pair", width="large")
def _open(entry: Entry, row: int, uid: str) -> None:
    table = state.open_table(entry)
    rows = np.array([row])
    known = table.metadata(rows, ("caption", "url")).iloc[0]
    left, right = st.columns([2, 3], gap="medium")
    with left:
        cards.show_picture(routes.image_url(entry, uid) if has_images(entry) else "", key="opened picture")
    with right:
        st.text(str(known["caption"])[:_LONGEST_CAPTION] or "no caption")
        _judging(entry, uid)
        facts.show_facts({"uid": uid, "url": str(known["url"])[:_LONGEST_CAPTION] or "none", "row": words.count(row)})
        st.dataframe(
            pd.DataFrame([_score_row(entry, metric, float(table.take(metric, rows)[0])) for metric in table.metrics]),
            hide_index=True,
            width="stretch",
            column_config={
                "score": st.column_config.NumberColumn(format="%.4f"),
                "percentile": st.column_config.ProgressColumn(format="%.1f", min_value=0, max_value=100),
            },
        )


def _judging(entry: Entry, uid: str) -> None:
    """Buttons that keep or drop the opened pair by hand, and close it."""
    run = state.open_run(entry)
    said = recipes.by_hand(entry, run).get(uid)
    with st.container(horizontal=True, gap="small"):
        for kind, word, icon in (("keep", "Keep", ":material/check:"), ("drop", "Drop", ":material/block:")):
            label = f"Take back: {kind} by hand" if said == kind else f"{word} by hand"
            if st.button(label, icon=icon, key=f"{kind} opened"):
                recipes.judge(entry, run, uid, kind)
                st.rerun()


def _score_row(entry: Entry, metric: str, value: float) -> dict[str, object]:
    percentile = marginals.marginal(entry, metric).percentile(value) if np.isfinite(value) else None
    return {"metric": metrics.title(metric), "score": value, "percentile": percentile}
