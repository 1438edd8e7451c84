"""Who has the keyboard after a button was pressed that is then drawn anew elsewhere, or not at all?

The browser takes it away together with the button. A callback names who is to have it, and the page's next drawing
hands it over, unless somebody else has it by then.
"""

from __future__ import annotations

import streamlit as st

from pages.parts.component import component

_TURN, _KEYS = "keyboard turn", "keyboard goes to"
_keyboard = component("keyboard", '<div class="keyboard"></div>', js=("select/keyboard.js",))


def hand_to(*keys: str) -> None:
    """Has the next drawing give the keyboard to the first of these buttons that is there and can be pressed."""
    st.session_state[_TURN] = st.session_state.get(_TURN, 0) + 1
    st.session_state[_KEYS] = keys


def show() -> None:
    """Hands it over where that was asked for; nothing is seen. To be drawn in one place, on every run of the page."""
    _keyboard(data={"turn": st.session_state.get(_TURN, 0), "keys": st.session_state.get(_KEYS, ())}, key="keyboard")
