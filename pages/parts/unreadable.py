"""What does a page say when what it draws cannot be read, or is gone since? One line, and a way back.

The frame of the pages catches what a whole page meets. What is drawn or done apart from the page, a fragment, a form or
what a button calls, is guarded here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import streamlit as st

from clipsel_core.errors import ClipselError, reason_of
from pages.parts import empty

_FAILED = "could not be done"

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def show(error: Exception) -> None:
    """The error in its own words, with a button that draws the page anew: without the run, where that is gone."""
    empty.show_error(in_words(error), "This cannot be shown: it was changed or taken away meanwhile")
    if st.button("Draw the page anew", icon=":material/refresh:", key=f"anew {in_words(error)}"):
        st.rerun()


def fragment(draw: Callable[Arguments, None], *, run_every: float | None = None) -> Callable[Arguments, None]:
    """A part of a page that is drawn by itself, guarded."""
    return st.fragment(_guarded(draw), run_every=run_every)


def dialog(title: str, **shown: Any) -> Callable[[Callable[Arguments, None]], Callable[Arguments, None]]:
    """What lies over a page, guarded. shown: as st.dialog takes it."""
    return lambda draw: st.dialog(title, **shown)(_guarded(draw))


def _guarded(draw: Callable[Arguments, None]) -> Callable[Arguments, None]:
    @wraps(draw)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        show_undone()
        try:
            draw(*args, **kwargs)
        except (ClipselError, OSError) as error:
            show(error)

    return guarded


def doing(act: Callable[Arguments, Result]) -> Callable[Arguments, Result | None]:
    """Guards what a widget calls before the page runs again, which then says why it could not be done."""

    @wraps(act)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result | None:
        try:
            return act(*args, **kwargs)
        except (ClipselError, OSError) as error:
            st.session_state[_FAILED] = in_words(error)
            return None

    return guarded


def show_undone() -> None:
    """Says once what could not be done."""
    if _FAILED in st.session_state:
        empty.show_error(st.session_state.pop(_FAILED), "This could not be done")


def in_words(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {reason_of(error)}"
    return str(error)
