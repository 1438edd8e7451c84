"""How does one leaf through many pairs? A page of cards at a time; the captions of the next are read meanwhile.

Every gallery that has pages is drawn here, so that the pager, the keyboard and an opened pair go through all alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from pages.parts.catalog import Entry
from pages.parts.gallery import images, pager, records
from pages.parts.pair import pair, pairs


class Pages(Protocol):
    """A list of pairs in pages of a size. Each method may be asked from another thread."""

    @property
    def size(self) -> int:
        """Pairs a page."""

    def __len__(self) -> int:
        """Pairs on all pages."""

    def rows(self, page: int) -> np.ndarray:
        """The rows of a page, from 1."""

    def row_at(self, place: int) -> int:
        """The row at a place of the list, from 0."""


@dataclass(frozen=True)
class Rows:
    """The pages of a list that is at hand: (M,) int64 row numbers."""

    listed: np.ndarray
    size: int

    def __len__(self) -> int:
        return len(self.listed)

    def rows(self, page: int) -> np.ndarray:
        return self.listed[(page - 1) * self.size : page * self.size]

    def row_at(self, place: int) -> int:
        return int(self.listed[place])


def pages_of(listed: Pages) -> int:
    """How many pages a list has."""
    return pager.pages_of(len(listed), listed.size)


def show(
    entry: Entry, listed: Pages, page: int, metric: str, *, key: str, gallery: str, title: str, **shown: Any
) -> None:
    """Draws a page, from 1, as cards with a metric. key: of the pager that the caller drew; gallery: of the cards.

    title: what is listed, for who cannot see it. shown: what `pairs.gallery` takes besides.
    """
    pages = pages_of(listed)
    left = partial(pager.turn_to, key, listed.size)
    walk = pair.Walk(len(listed), listed.row_at, first=(page - 1) * listed.size, left=left)
    turned = pager.by_keyboard(key, pages)
    label = f"{title}, page {page} of {pages}"
    pairs.gallery(entry, listed.rows(page), metric, key=gallery, label=label, walk=walk, turned=turned, **shown)
    if page < pages:
        records.ahead(entry, gallery, partial(listed.rows, page + 1), images.columns(entry))
