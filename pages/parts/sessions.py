"""What does a session keep from run to run, and what of its pages runs by itself?

It keeps typed objects, beyond what its widgets say. Streamlit may end a run wherever st.session_state is touched; what
changes within these objects changes in place.

Fragments, dialogs and callbacks run apart from the page. Where one of them cannot be drawn or done, one line says why,
with a way back; what a whole page meets, the frame of the pages catches.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

import numpy as np
import streamlit as st

from clipsel_core.errors import ClipselError
from pages.parts.messages import error_text, show_error

Kind = TypeVar("Kind")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_numbers = itertools.count(1)


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

    gallery: the keys of the run and of the gallery. place: in the gallery's list. look_back: told the place when the
    pair is closed. trail: rows of the pairs that were opened one from another since. number: tells it from others.
    """

    gallery: tuple[str, str]
    listed: PairList
    place: int
    look_back: Callable[[int], None] = lambda place: None
    trail: list[int] = field(default_factory=list)
    number: int = field(default_factory=lambda: next(_numbers))

    @property
    def row(self) -> int:
        """The row of the pair on show."""
        return self.trail[-1] if self.trail else self.listed.row_at(self.place)


@dataclass
class Pairs:
    """Which pairs a session looks at. to_open: the uid of a pair that a gallery opens when it is drawn next.

    left: the one that was closed last; what was typed in it may come later. last: the gallery, as in OpenPair, and the
    place that was looked at last. news: what was done to a pair that is not on show any more. heard: the number of the
    last press that was heard, by gallery.
    """

    opened: OpenPair | None = None
    left: OpenPair | None = None
    last: tuple[tuple[str, str], int] | None = None
    to_open: dict[str, str] = field(default_factory=dict)
    news: str = ""
    heard: dict[str, int] = field(default_factory=dict)

    def close(self) -> None:
        """Leaves the open pair: the gallery shows the page that it is on, and marks its card."""
        if self.opened is not None:
            self.left, self.opened = self.opened, None
            self.last = self.left.gallery, self.left.place
            self.left.look_back(self.left.place)

    def turn(self, pair: OpenPair, by: int) -> None:
        """Goes on to another pair of the gallery that this one was opened from; it may be closed already."""
        place = min(max(pair.place + by, 0), len(pair.listed) - 1)
        if pair is self.left:
            # First, as this may end the run: nothing has changed then, and it is done again.
            pair.look_back(place)
            self.last = pair.gallery, place
        pair.place = place
        pair.trail.clear()

    def numbered(self, number: int) -> OpenPair | None:
        """The pair of this number, where it is open or was closed last."""
        return next((pair for pair in (self.opened, self.left) if pair is not None and pair.number == number), None)


def get(kind: type[Kind], key: str = "") -> Kind:
    """This session's object of a class, made without arguments at first. key: tells several of a class apart."""
    name = f"{kind.__module__}.{kind.__qualname__} {key}"
    if name not in st.session_state:
        st.session_state[name] = kind()
    return st.session_state[name]


def close_pair() -> None:
    """Leaves no pair open, as where another page is gone to; the page has to be drawn anew to show it."""
    pairs = get(Pairs)
    pairs.opened = pairs.left = pairs.last = None


@dataclass
class Callbacks:
    """Why the last one of a session could not be done, to be said."""

    failed: str = ""


def fragment(draw: Callable[Arguments, None], *, run_every: float | None = None) -> Callable[Arguments, None]:
    """A part of a page that is drawn by itself, guarded."""
    return st.fragment(_guarded(draw), run_every=run_every)


def dialog(title: str, **shown: Any) -> Callable[[Callable[Arguments, None]], Callable[Arguments, None]]:
    """What lies over a page, guarded. shown: as st.dialog takes it."""
    return lambda draw: st.dialog(title, **shown)(_guarded(draw))


def _guarded(draw: Callable[Arguments, None]) -> Callable[Arguments, None]:
    @wraps(draw)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        show_failed_callback()
        try:
            draw(*args, **kwargs)
        except (ClipselError, OSError) as error:
            show_unreadable(error)

    return guarded


def show_unreadable(error: Exception) -> None:
    """The error in its own words, with a button that draws the page anew: without the run, where that is gone."""
    show_error(error_text(error), "This cannot be shown: it was changed or taken away meanwhile")
    if st.button("Draw the page anew", icon=":material/refresh:", key=f"anew {error_text(error)}"):
        st.rerun()


def callback(act: Callable[Arguments, Result]) -> Callable[Arguments, Result | None]:
    """Guards what a widget calls before the page runs again, which then says why it could not be done."""

    @wraps(act)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result | None:
        try:
            return act(*args, **kwargs)
        except (ClipselError, OSError) as error:
            get(Callbacks).failed = error_text(error)
            return None

    return guarded


def show_failed_callback() -> None:
    """Says once what could not be done."""
    callbacks = get(Callbacks)
    if callbacks.failed:
        show_error(callbacks.failed, "This could not be done")
        callbacks.failed = ""
