"""Which rows are on a page of a long list, and which is at a place of it?"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import streamlit as st

from clipsel_core.curation.listing import Listing, ListOrder

_PAGES_AT_ONCE = 16


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

    def rows(self, page: int) -> np.ndarray:
        """The rows of a page, from 1. Finding one costs as much as finding many, so those around it come along."""
        block, place = divmod(page - 1, _PAGES_AT_ONCE)
        found = _block((self.name, self.order, self.size, self.seed, self.centre, block), self, block)
        return found[place * self.size : (place + 1) * self.size]

    def row_at(self, place: int) -> int:
        """The row at a place of the list, from 0."""
        page, at = divmod(place, self.size)
        return int(self.rows(page + 1)[at])


@st.cache_resource(max_entries=64, show_spinner=False)
def _block(name: Hashable, _leaves: Leaves, _number: int) -> np.ndarray:
    limit = _PAGES_AT_ONCE * _leaves.size
    return _leaves.listing.page(
        _leaves.order, offset=_number * limit, limit=limit, seed=_leaves.seed, centre=_leaves.centre
    )
