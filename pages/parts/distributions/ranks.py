"""Where do two metrics disagree about who is good? Rank against rank, and the pairs that only one of them likes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from clipsel_core.curation.exploring.agreement import Disagreement, End, disagreement, keep_gaps
from clipsel_core.runs.columns import CLIP_SCORE, S_CLIPLOSS
from clipsel_core.tasks import Report, Task, part_of
from pages.parts import charts, messages, progress_bars, registry, state, words
from pages.parts.catalog import Entry
from pages.parts.gallery import pager
from pages.parts.gallery.cards import Bar
from pages.parts.pair import galleries

_CELLS = 100
_TOP = 30
_CARDS = 12
_ENDS: tuple[End, End] = ("first", "second")


def draw_ranks(entry: Entry) -> None:
    """Draws the ranks by two metrics against each other, and a gallery of either end."""
    names = registry.offered(entry, keys=("one", "other"))
    left, right = st.columns(2)

    def rewind() -> None:
        for end in _ENDS:
            pager.rewind(f"{end} page")

    shared: dict[str, Any] = {"format_func": registry.titles(entry), "bind": "query-params", "on_change": rewind}
    first, second = (
        names.index(name) if name in names else min(place, len(names) - 1)
        for place, name in enumerate((CLIP_SCORE.name, S_CLIPLOSS.name))
    )
    x = left.selectbox("One metric", names, first, key="one", **shared)
    y = right.selectbox("Another", names, second, key="other", **shared)
    if x == y:
        messages.show_empty("One metric agrees with itself", "Choose another one to compare it with.")
        return
    found = progress_bars.value_of(_disagreement(entry, x, y), key="disagreement")
    if found is None:
        return
    if not found.pairs:
        messages.show_empty("Nothing to rank", "No pair of this run has both scores. Choose another metric.")
        return
    one, other = registry.title(entry, x), registry.title(entry, y)
    left, right = st.columns([3, 2], gap="large")
    with left:
        note = f"{words.pairs(found.pairs)}, stronger colour is more"
        messages.show_title(f"Rank by {other} against rank by {one}", note)
        charts.draw_rank_density(found.counts, one, other)
    with right:
        _show_agreement(found, one, other)
    for end in _ENDS:
        _draw_end(entry, found, end, (x, y))


@state.per_run(4)
def _disagreement(entry: Entry, x: str, y: str) -> Task[Disagreement]:
    """Two metrics being ranked against each other, once for all sessions."""
    table = state.open_table(entry)

    def rank(report: Report) -> Disagreement:
        told = part_of(report, 0, 1, "Ranking all pairs by both …")
        found = disagreement(table.ranking(x), table.ranking(y), bins=_CELLS, report=told)
        # Of the run's own; the index knows nothing of the pool's table.
        if table.index_folder is None or not {x, y} <= set(table.metrics):
            return found
        return keep_gaps(found, table.index_folder, "-".join(f"{table.metrics.index(name):02d}" for name in (x, y)))

    return Task(rank)


def _show_agreement(found: Disagreement, one: str, other: str) -> None:
    top = found.counts[_CELLS - _TOP :]
    both = top[:, _CELLS - _TOP :].sum()
    messages.show_title("How far they agree")
    messages.show_facts(
        {
            "Rank correlation": f"{found.spearman:.4f} (Spearman)" if np.isfinite(found.spearman) else "none",
            f"Top {_TOP} % in common": words.share(int(both), int(top.sum())),
            f"{one} likes more": _largest(found, "first"),
            f"{other} likes more": _largest(found, "second"),
        }
    )
    messages.show_note(
        "On the diagonal both agree. A pair's percentile rank is the share of pairs below it, ties in the middle; the "
        "galleries below begin with the largest difference of the two ranks."
    )


def _largest(found: Disagreement, end: End) -> str:
    rows = found.page(end, limit=1)
    return f"by up to {found.points(rows)[0]:.1f} points of rank" if len(rows) else "no pair"


def _draw_end(entry: Entry, found: Disagreement, end: End, names: tuple[str, str]) -> None:
    """One end of the differences, a page at a time: the pairs that one of the two metrics likes more."""
    listed, key = found.listed(end), f"{end} page"
    liked, other = map(registry.titles(entry), names if end == "first" else names[::-1])
    title = f"{liked} likes, {other} does not"
    messages.show_title(title, f"{words.pairs(listed)} that {liked} ranks higher, the largest difference first")
    if not listed:
        messages.show_empty(
            "No such pair", "In this direction the two metrics rank no pair apart. Choose another metric."
        )
        return
    ends = _End(found, end)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        page = pager.choose_page(key, ends)
    also = [(Bar("ranks apart", f"{gap:.1f}", "points", gap),) for gap in found.points(ends.rows(page))]
    x, y = names
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
