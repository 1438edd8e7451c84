"""What happens where a part of a page cannot be drawn, or a press cannot be done? One line says why, with a way back.

The frame of the pages catches what a whole page meets. Fragments, dialogs and callbacks run apart from the page and are
guarded here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import streamlit as st

from clipsel_core.errors import ClipselError
from pages.parts import views
from pages.parts.messages import error_text, show_error

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


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
            views.get(Callbacks).failed = error_text(error)
            return None

    return guarded


def show_failed_callback() -> None:
    """Says once what could not be done."""
    callbacks = views.get(Callbacks)
    if callbacks.failed:
        show_error(callbacks.failed, "This could not be done")
        callbacks.failed = ""
