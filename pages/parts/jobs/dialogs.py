"""Which form lies over the page? The session remembers: a page drawn anew, as when a job ends, keeps it open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, ParamSpec

import streamlit as st

from pages.parts import sessions

# What is chosen stays chosen, also where the page ends before it has drawn the form.
STAYS: dict[str, Any] = {"persist_state": "page"}

Arguments = ParamSpec("Arguments")


@dataclass
class Form:
    """The form that lies over a session's page. about: what it begins with. turn: how often one was opened.

    suggested: by the key of a field, what its suggestion was made of, and the suggestion.
    """

    name: str | None = None
    about: str | None = None
    turn: int = 0
    suggested: dict[str, tuple[object, str]] = field(default_factory=dict)


def form(
    title: str, width: Literal["small", "medium"] = "small"
) -> Callable[[Callable[Arguments, None]], Callable[Arguments, None]]:
    """Makes a function draw its widgets in a dialog over the page."""
    return sessions.dialog(title, width=width, on_dismiss=close)


def button(label: str, name: str, icon: str, *, why_not: str = "") -> bool:
    """A button that opens a form of this name; whether the form is to be drawn. why_not: why it cannot be opened."""
    how: dict[str, Any] = {"icon": icon, "disabled": bool(why_not), "help": why_not or None}
    st.button(label, key=f"ask {name}", on_click=open_with, args=(name,), **how)
    return sessions.get(Form).name == name and not why_not


def about() -> str | None:
    """What the open form should begin with, None where nobody said."""
    return sessions.get(Form).about


def key(field: str) -> str:
    """The key of a field of the open form; a form that is opened again has other ones, and begins anew."""
    return f"form {sessions.get(Form).turn} {field}"


def beginning_with(value: object, field: str) -> str:
    """The key of a field that begins with a value, and then keeps what it holds whatever happens around it."""
    st.session_state.setdefault(key(field), value)
    return key(field)


def ask_for_choice(label: str, options: Sequence[str], placeholder: str, **shown: Any) -> str | None:
    """A field whose value is chosen or typed, None where it is neither. shown: as st.selectbox takes it."""
    asked = {"index": None, "key": key(label), "accept_new_options": True, "placeholder": placeholder}
    return st.selectbox(label, options, **{**asked, **STAYS, **shown})


def ask_for_name(place: Any, label: str, about: object, suggest: Callable[[], str], **shown: Any) -> str:
    """A text field with a suggestion; returns what it holds, less the blanks around it.

    about: what the suggestion is made of. Where that changes there is another one, unless somebody has typed.
    """
    suggested, own = sessions.get(Form).suggested, key(label)
    known, said = suggested.get(own, (None, ""))
    if known != about and st.session_state.get(own, said) == said:
        suggested[own] = about, suggest()
        st.session_state[own] = suggested[own][1]
    return (place.text_input(label, key=own, max_chars=64, **STAYS, **shown) or "").strip()


def close() -> None:
    """Leaves no form open; the page has to be drawn anew to show it."""
    form = sessions.get(Form)
    form.name = form.about = None
    form.suggested = {}


def leave() -> None:
    """Closes the open form and draws the page anew."""
    close()
    st.rerun()


def open_with(name: str, about: str | None = None) -> None:
    """Opens a form of this name, which begins with what it is about; the page has to be drawn anew to show it."""
    close()
    form = sessions.get(Form)
    form.name, form.about, form.turn = name, about, form.turn + 1
