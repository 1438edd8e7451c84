"""What does a session keep from run to run, and what of its pages runs by itself?

It keeps typed objects, beyond what its widgets say. Streamlit may end a run wherever st.session_state is touched; what
changes within these objects changes in place.

Fragments, dialogs and callbacks run apart from the page. Where one of them cannot be drawn or done, one line says why,
with a way back; what a whole page meets, the frame of the pages catches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import streamlit as st

from clipsel_core.errors import ClipselError
from pages.parts.messages import error_text, show_error

Kind = TypeVar("Kind")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def get(kind: type[Kind], key: str = "") -> Kind:
    """This session's object of a class, made without arguments at first. key: tells several of a class apart."""
    name = f"{kind.__module__}.{kind.__qualname__} {key}"
    if name not in st.session_state:
        st.session_state[name] = kind()
    return st.session_state[name]


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
