"""How does one get to a search from elsewhere? By a link that says what is asked, or on the Search page by a button."""

from __future__ import annotations

import streamlit as st

from pages.parts import views

TEXT, PICTURE, PAIR = "a text", "a picture", "a pair"
# Of a search of the whole pool that was made before: the name of its file.
KEPT = "kept"
_TURN = "kept turn"


def to_search(label: str, icon: str, *, key: str, **asked: str) -> None:
    """Leads to the Search page. asked: like, the uid of a pair; or kept, see above."""
    if not (st.context.url or "").partition("?")[0].endswith("/search"):
        st.page_link("search.py", label=label, icon=icon, query_params=asked)
    # There a link to the page itself would change nothing.
    elif st.button(label, icon=icon, key=key, on_click=_ask, args=(asked,)):
        views.close_pair()
        st.rerun()


def follow() -> None:
    """On the Search page: a link asks for what it says, whatever was asked before."""
    for name in ("like", KEPT):
        linked, mark = st.query_params.get(name), f"linked {name}"
        if linked and linked != st.session_state.get(mark):
            st.session_state[mark] = linked
            _ask({name: linked})


def kept() -> tuple[str | None, str]:
    """Which earlier search is to be shown, and the key of the field that says so: a new one each time one is asked for.

    A widget's value that is set from here may be set back by the browser, which tells what it shows with whatever else
    it asks for, as panels do that draw themselves anew twice a second. A new widget it cannot know yet.
    """
    return st.session_state.get(KEPT), f"{KEPT} {st.session_state.get(_TURN, 0)}"


def remember(kept: str | None) -> None:
    """Notes which earlier search is on show, in the address too."""
    st.session_state[KEPT] = kept
    if kept != st.query_params.get(KEPT):
        st.session_state[f"linked {KEPT}"] = kept
        if kept:
            st.query_params[KEPT] = kept
        else:
            del st.query_params[KEPT]


def leave_kept() -> None:
    """No earlier search is on show any more."""
    _ask({})


def _ask(asked: dict[str, str]) -> None:
    st.session_state.update({KEPT: None, **asked})
    st.session_state[_TURN] = st.session_state.get(_TURN, 0) + 1
    if "like" in asked:
        st.session_state["by"] = PAIR
