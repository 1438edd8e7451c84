"""Which rows are on a page of a long list, and which is at a place of it?"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from clipsel_core.curation.index.listing import Listing, ListOrder
from clipsel_core.curation.index.recent import Recent

_PAGES_AT_ONCE = 16
_MOST_BLOCKS = 64
_blocks: Recent[np.ndarray] = Recent(_MOST_BLOCKS)


@dataclass(frozen=True)
class Leaves:
    """A listing in an order, in pages. name: tells it apart from all others, also from what it was before.

    seed: of the order "random". centre: the score that "near" counts from.
    """

    name: Hashable
    listing: Listing
    order: ListOrder
    size: int
    seed: int = 0
    centre: float = 0.0

    def __len__(self) -> int:
        return len(self.listing)

    def rows(self, page: int) -> np.ndarray:
        """The rows of a page, from 1. Finding one costs as much as finding many, so those around it come along."""
        block, place = divmod(page - 1, _PAGES_AT_ONCE)
        name = (self.name, self.order, self.size, self.seed, self.centre, block)
        found = _blocks.get(name, lambda: self._block(block))
        return found[place * self.size : (place + 1) * self.size]

    def row_at(self, place: int) -> int:
        """The row at a place of the list, from 0."""
        page, at = divmod(place, self.size)
        return int(self.rows(page + 1)[at])

    def _block(self, number: int) -> np.ndarray:
        limit = _PAGES_AT_ONCE * self.size
        return self.listing.page(self.order, offset=number * limit, limit=limit, seed=self.seed, centre=self.centre)
