"""Where do two metrics disagree about who is good? Rank against rank, and the pairs that only one of them likes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from clipsel_core.curation.index.ranks import Disagreement, End, disagreement, kept
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.tasks import Report, Task, part_of
from pages.parts import charts, empty, facts, metrics, state, watching, words
from pages.parts.catalog import Entry
from pages.parts.gallery import pager
from pages.parts.gallery.cards import Bar
from pages.parts.pair import galleries

_CELLS = 100
_TOP = 30
_CARDS = 12


def show(entry: Entry, names: list[str]) -> None:
    """Draws the two rankings against each other, and a gallery of either end."""
    left, right = st.columns(2)
    shared: dict[str, Any] = {
        "options": names,
        "format_func": metrics.title,
        "bind": "query-params",
        "on_change": _rewind,
    }
    x = left.selectbox("One metric", key="one", index=_place(names, "clip_score", 0), **shared)
    y = right.selectbox("Another", key="other", index=_place(names, "s_cliploss", 1), **shared)
    if x == y:
        empty.show_empty("One metric agrees with itself", "Choose another one to compare it with.")
        return
    ranking = _ranking(entry, x, y, state.scores_stamp(entry))
    ranking.work.begin()
    found = ranking.found
    if ranking.work.error:
        raise ranking.work.error
    if found is None:
        watching.until_done(ranking.work, key="disagreement")
        return
    if not found.pairs:
        empty.show_empty("Nothing to rank", "No pair of this run has both scores. Choose another metric.")
        return
    one, other = metrics.title(x), metrics.title(y)
    left, right = st.columns([3, 2], gap="large")
    with left:
        note = f"{words.pairs(found.pairs)}, stronger colour is more"
        facts.show_title(f"Rank by {other} against rank by {one}", note)
        charts.rank_density(found.counts, one, other)
    with right:
        _in_words(found, one, other)
    _gallery(entry, found, "first", (x, y), (one, other))
    _gallery(entry, found, "second", (x, y), (one, other))


def _place(names: list[str], name: str, otherwise: int) -> int:
    return names.index(name) if name in names else min(otherwise, len(names) - 1)


class _Ranking:
    """Two metrics being ranked against each other, once for all sessions. found: what came out, once it is there."""

    def __init__(self, table: ScoreTable, x: str, y: str) -> None:
        self.found: Disagreement | None = None
        self.work = Task(self._do)
        self._table, self._names = table, (x, y)

    def _do(self, report: Report) -> None:
        x, y = (self._table.bins(name) for name in self._names)
        told = part_of(report, 0, 1, "Ranking all pairs by both …")
        found, folder = disagreement(x, y, bins=_CELLS, report=told), self._table.index_folder
        if folder is not None:
            places = (self._table.metrics.index(name) for name in self._names)
            found = kept(found, folder, "-".join(f"{place:02d}" for place in places))
        self.found = found


@st.cache_resource(max_entries=4, show_spinner=False)
def _ranking(entry: Entry, x: str, y: str, stamp: state.Stamp) -> _Ranking:
    return _Ranking(state.open_table(entry), x, y)


def _in_words(found: Disagreement, one: str, other: str) -> None:
    top = found.counts[_CELLS - _TOP :]
    both = top[:, _CELLS - _TOP :].sum()
    facts.show_title("How far they agree")
    facts.show_facts(
        {
            "Rank correlation": f"{found.spearman:.4f} (Spearman)" if np.isfinite(found.spearman) else "none",
            f"Top {_TOP} % in common": words.share(int(both), int(top.sum())),
            f"{one} likes more": _largest(found, "first"),
            f"{other} likes more": _largest(found, "second"),
        }
    )
    facts.show_note(
        "On the diagonal both agree. A pair's percentile rank is the share of pairs below it, ties in the middle; the "
        "galleries below begin with the largest difference of the two ranks."
    )


def _largest(found: Disagreement, end: End) -> str:
    rows = found.page(end, limit=1)
    return f"by up to {found.points(rows)[0]:.1f} points of rank" if len(rows) else "no pair"


def _gallery(entry: Entry, found: Disagreement, end: End, metrics_of: tuple[str, str], titles: tuple[str, str]) -> None:
    """One end of the differences, a page at a time: the pairs that one of the two metrics likes more."""
    listed, key = found.listed(end), f"{end} page"
    liked, other = titles if end == "first" else titles[::-1]
    title = f"{liked} likes, {other} does not"
    facts.show_title(title, f"{words.pairs(listed)} that {liked} ranks higher, the largest difference first")
    if not listed:
        empty.show_empty("No such pair", "In this direction the two metrics rank no pair apart. Choose another metric.")
        return
    ends = _End(found, end)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        page = pager.choose_page(key, ends)
    also = [(_gap(points),) for points in found.points(ends.rows(page))]
    x, y = metrics_of
    shown: dict[str, Any] = {"title": title, "more": [y], "also": also}
    galleries.draw_gallery(entry, ends, x, key=f"cards {end}", page=page, pager_key=key, **shown)


@dataclass(frozen=True)
class _End:
    """One end of the differences, in pages."""

    found: Disagreement
    end: End
    size: int = _CARDS

    def __len__(self) -> int:
        return self.found.listed(self.end)

    def rows(self, page: int) -> np.ndarray:
        return self.found.page(self.end, offset=(page - 1) * self.size, limit=self.size)

    def row_at(self, place: int) -> int:
        return int(self.found.page(self.end, offset=place, limit=1)[0])


def _gap(points: float) -> Bar:
    return Bar("ranks apart", f"{points:.1f}", "points", points)


def _rewind() -> None:
    for end in ("first", "second"):
        pager.rewind(f"{end} page")
