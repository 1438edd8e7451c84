"""Which page of a list of pairs is on show, and which pairs are on it? The link holds its number.

An opened pair is not in the link, so neither is a page of what is shown within it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from clipsel_core.cache import Recent
from clipsel_core.curation.index.ordering import Listing, ListOrder, page_of
from pages.parts import words
from pages.parts.sessions import PairList

_PAGES_AT_ONCE = 16
_blocks: Recent[np.ndarray] = Recent(64)
_listings: Recent[Listing] = Recent(10)


@dataclass(frozen=True)
class RowList:
    """The pages of a list that is at hand. listed: (M,) int64 row numbers. size: pairs a page.

    keys: (M,) numbers without NaN; the list is sorted by them, lowest first, as its pages are asked for. It ascends as
    it is given then.
    """

    listed: np.ndarray
    size: int
    keys: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.listed)

    def rows(self, page: int) -> np.ndarray:
        """The rows of a page, from 1."""
        return self._part((page - 1) * self.size, self.size)

    def row_at(self, place: int) -> int:
        """The row at a place of the list, from 0."""
        return int(self._part(place, 1)[0])

    def _part(self, offset: int, limit: int) -> np.ndarray:
        if self.keys is None:
            return self.listed[offset : offset + limit]
        return page_of(self.keys, self.listed, offset, limit)


@dataclass(frozen=True)
class SortedList:
    """The pages of a listing in an order. name: tells it apart from all others, also from what it was before.

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
        limit = _PAGES_AT_ONCE * self.size

        def find() -> np.ndarray:
            return self.listing.page(self.order, offset=block * limit, limit=limit, seed=self.seed, centre=self.centre)

        found = _blocks.get((self.name, self.order, self.size, self.seed, self.centre, block), find)
        return found[place * self.size : (place + 1) * self.size]

    def row_at(self, place: int) -> int:
        """The row at a place of the list, from 0."""
        page, at = divmod(place, self.size)
        return int(self.rows(page + 1)[at])


def sort_pairs(
    name: Hashable, find: Callable[[], Listing], order: ListOrder, size: int, *, seed: int = 0, centre: float = 0.0
) -> SortedList:
    """The pages of a listing in an order; it is found where it is not known by its name yet. See SortedList."""
    return SortedList(name, _listings.get(name, find), order, size, seed, centre)


def count_pages(listed: PairList) -> int:
    """How many pages a list has; an empty one has one."""
    return max(1, -(-len(listed) // listed.size))


def choose_page(key: str, listed: PairList, said: str = "", *, linked: bool = True) -> int:
    """Draws the pager of a list into the row it is called in and returns the page, from 1.

    said: what is listed, in words. linked: whether the link holds the page.
    """
    pages = count_pages(listed)
    if key in st.session_state:
        st.session_state[key] = min(max(1, st.session_state[key]), pages)
    if pages == 1:
        # Nowhere to turn to.
        if said:
            st.text(said)
        return 1
    back = st.empty()
    bare: dict[str, Any] = {"label_visibility": "collapsed", "width": 130, "bind": "query-params" if linked else None}
    page = int(st.number_input("Page", 1, pages, key=key, **bare))
    left, right = ":material/chevron_left:", ":material/chevron_right:"
    back.button("Previous", icon=left, on_click=turn, args=(key, pages, -1), disabled=page == 1, key=f"previous {key}")
    st.text(f"of {words.number(pages)}")
    st.button("Next", icon=right, on_click=turn, args=(key, pages, 1), disabled=page == pages, key=f"next {key}")
    if said:
        st.text(said)
    return page


def turn(key: str, pages: int, by: int) -> None:
    """Turns by so many pages, but no further than there are."""
    st.session_state[key] = min(max(1, st.session_state.get(key, 1) + by), pages)


def turn_to(key: str, size: int, place: int) -> None:
    """Goes to the page that holds a place of the list."""
    st.session_state[key] = place // size + 1


def rewind(key: str) -> None:
    """Goes back to the first page."""
    st.session_state[key] = 1


def rewind_on_change(key: str, listed: object) -> None:
    """Goes back to the first page where something else is listed than before. listed: tells that from others.

    For lists that change in more ways than by the widgets of their page. Before the pager is drawn.
    """
    if st.session_state.setdefault(f"{key} of", listed) != listed:
        st.session_state[f"{key} of"] = listed
        rewind(key)
