"""On which page of a gallery is the curator? A number with Previous and Next beside it, kept in the link.

An opened pair is not in the link, so neither is a page of what is shown within it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import streamlit as st

from pages.parts import words


def show(key: str, pages: int, said: str = "", *, linked: bool = True) -> int:
    """Draws the pager into the row it is called in and returns the page, from 1.

    said: what is listed, in words. linked: whether the link holds the page.
    """
    _clamp(key, pages)
    if pages == 1:
        # Nowhere to turn to.
        if said:
            st.text(said)
        return 1
    back = st.empty()
    bare: dict[str, Any] = {"label_visibility": "collapsed", "width": 130, "bind": "query-params" if linked else None}
    page = int(st.number_input("Page", 1, pages, key=key, **bare))
    left, right = ":material/chevron_left:", ":material/chevron_right:"
    back.button("Previous", icon=left, on_click=_turn, args=(key, -1), disabled=page == 1, key=f"previous {key}")
    st.text(f"of {words.count(pages)}")
    st.button("Next", icon=right, on_click=_turn, args=(key, 1), disabled=page == pages, key=f"next {key}")
    if said:
        st.text(said)
    return page


def pages_of(listed: int, size: int) -> int:
    """How many pages of a size there are; an empty list has one."""
    return max(1, -(-listed // size))


def rewind(key: str) -> None:
    """Goes back to the first page."""
    st.session_state[key] = 1


def rewind_for(key: str, listed: object) -> None:
    """Goes back to the first page where something else is listed than before. listed: tells that from others.

    For lists that change in more ways than by the widgets of their page. Before the pager is drawn.
    """
    if st.session_state.setdefault(f"{key} of", listed) != listed:
        st.session_state[f"{key} of"] = listed
        rewind(key)


def turn_to(key: str, size: int, place: int) -> None:
    """Goes to the page that holds a place of the list."""
    st.session_state[key] = place // size + 1


def by_keyboard(key: str, pages: int) -> Callable[[int], None]:
    """What to call when Page Up or Page Down was pressed on a gallery's cards; told by how many pages to turn."""
    return partial(_turn_by_key, key, pages)


def _turn_by_key(key: str, pages: int, by: int) -> None:
    st.session_state[key] = min(max(1, st.session_state.get(key, 1) + by), pages)


def _turn(key: str, step: int) -> None:
    st.session_state[key] += step


def _clamp(key: str, pages: int) -> None:
    if key in st.session_state:
        st.session_state[key] = min(max(1, st.session_state[key]), pages)
