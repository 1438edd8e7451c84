"""Which form lies over the page? The session remembers: a page drawn anew, as when a job ends, keeps it open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, ParamSpec

import streamlit as st

_OPEN, _ABOUT = "open form", "what the open form is about"

Arguments = ParamSpec("Arguments")


def form(
    title: str, width: Literal["small", "medium"] = "small"
) -> Callable[[Callable[Arguments, None]], Callable[Arguments, None]]:
    """Makes a function draw its widgets in a dialog over the page."""
    return st.dialog(title, width=width, on_dismiss=close)


def button(label: str, name: str, icon: str, *, disabled: bool = False) -> bool:
    """A button that opens a form of this name; whether the form is to be drawn."""
    st.button(label, icon=icon, key=f"ask {name}", disabled=disabled, on_click=open_with, args=(name,))
    return st.session_state.get(_OPEN) == name and not disabled


def about() -> str | None:
    """What the open form should begin with, None where nobody said."""
    return st.session_state.get(_ABOUT)


def close() -> None:
    """Leaves no form open; the page has to be drawn anew to show it."""
    for key in (_OPEN, _ABOUT):
        st.session_state.pop(key, None)


def leave() -> None:
    """Closes the open form and draws the page anew."""
    close()
    st.rerun()


def open_with(name: str, about: str | None = None) -> None:
    """Opens a form of this name, which begins with what it is about; the page has to be drawn anew to show it."""
    close()
    st.session_state[_OPEN], st.session_state[_ABOUT] = name, about
