"""Which form lies over the page? The session remembers: a page drawn anew, as when a job ends, keeps it open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, ParamSpec

import streamlit as st

_OPEN = "open form"

Arguments = ParamSpec("Arguments")


def form(
    title: str, width: Literal["small", "medium"] = "small"
) -> Callable[[Callable[Arguments, None]], Callable[Arguments, None]]:
    """Makes a function draw its widgets in a dialog over the page."""
    return st.dialog(title, width=width, on_dismiss=close)


def button(label: str, name: str, icon: str, *, disabled: bool = False) -> bool:
    """A button that opens a form of this name; whether the form is to be drawn."""
    st.button(label, icon=icon, key=f"ask {name}", disabled=disabled, on_click=_open, args=(name,))
    return st.session_state.get(_OPEN) == name and not disabled


def close() -> None:
    """Leaves no form open; the page has to be drawn anew to show it."""
    st.session_state.pop(_OPEN, None)


def leave() -> None:
    """Closes the open form and draws the page anew."""
    close()
    st.rerun()


def _open(name: str) -> None:
    st.session_state[_OPEN] = name
