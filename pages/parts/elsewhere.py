"""Is what the address asked for there, and the run that was on show still? If not, the page says so before all else.

Without a word the picker would show another run in its place, and what is exported would come from that.
"""

from __future__ import annotations

import streamlit as st

from pages.parts import facts

# The parameter of an address that says which page was asked for in vain.
NO_PAGE = "no_page"
_SHOWN, _GONE = "run on show", "run gone"
_LONGEST = 200


def look_for(labels: list[str]) -> None:
    """Remembers which run was asked for in vain. Called before the picker draws. labels: of the runs there are."""
    asked = st.session_state.get(_SHOWN) or st.query_params.get("run", "")
    if asked and asked not in labels:
        st.session_state[_GONE] = asked
    if st.session_state.get(_GONE) in labels:
        chosen()


def chosen() -> None:
    """Somebody has chosen a run: there is nothing more to say."""
    st.session_state.pop(_GONE, None)


def show_no_page() -> None:
    """Says that the address named no page, where it did."""
    asked = st.query_params.get(NO_PAGE)
    if asked is None:
        return
    with st.container(border=True, key="no-page", gap="small"):
        facts.show_title("There is no such page", "this is Overview; the list at the side has all pages")
        facts.show_facts({"Asked for": f"/{asked[:_LONGEST]}"})
        st.button("Go on", key="go on from no page", on_click=_go_on)


def _go_on() -> None:
    st.query_params.pop(NO_PAGE, None)


def show(label: str) -> None:
    """Says that a run is not there, and which one is shown instead. label: of the run on show."""
    st.session_state[_SHOWN] = label
    if _GONE not in st.session_state:
        return
    with st.container(border=True, key="elsewhere", gap="small"):
        facts.show_title("This run is not here", "deleted, renamed, or on another server")
        facts.show_facts({"Asked for": st.session_state[_GONE], "Shown instead, on every page": label})
        st.button("Go on with this one", key="go on with this", on_click=chosen)
