"""What does a session look at, beyond what its widgets say? Typed objects, kept from run to run.

Streamlit may end a run wherever st.session_state is touched. What changes within these objects changes in place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import streamlit as st

Kind = TypeVar("Kind")


class PairList(Protocol):
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


@dataclass
class OpenPair:
    """A pair that lies open over the page, and the gallery that it was opened from.

    gallery: the keys of the run and of the gallery. place: in the gallery's list. trail: rows of the pairs that were
    opened one from another since. closed: told the place when the pair is closed.
    """

    gallery: tuple[str, str]
    listed: PairList
    place: int
    closed: Callable[[int], None] | None = None
    trail: list[int] = field(default_factory=list)


@dataclass
class Pairs:
    """Which pairs a session looks at. to_open: the uid of a pair that a gallery opens when it is drawn next.

    last: the gallery, as in OpenPair, and the place that was looked at last. news: what was done to a pair that is not
    on show any more.
    """

    opened: OpenPair | None = None
    last: tuple[tuple[str, str], int] | None = None
    to_open: dict[str, str] = field(default_factory=dict)
    news: str = ""


def get(kind: type[Kind], key: str = "") -> Kind:
    """This session's object of a class, made without arguments at first. key: tells several of a class apart."""
    name = f"{kind.__module__}.{kind.__qualname__} {key}"
    if name not in st.session_state:
        st.session_state[name] = kind()
    return st.session_state[name]


def close_pair() -> None:
    """Leaves no pair open, as where another page is gone to; the page has to be drawn anew to show it."""
    pairs = get(Pairs)
    pairs.opened = pairs.last = None
