"""Is the run that the address asked for, or that was on show, still there? If not, the page says so before all else.

Without a word the picker would show another run in its place, and what is exported would come from that.
"""

from __future__ import annotations

import streamlit as st

from pages.parts import facts

_SHOWN, _GONE = "run on show", "run gone"


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


def show(label: str) -> None:
    """Says that a run is not there, and which one is shown instead. label: of the run on show."""
    st.session_state[_SHOWN] = label
    if _GONE not in st.session_state:
        return
    with st.container(border=True, key="elsewhere", gap="small"):
        facts.show_title("This run is not here", "deleted, renamed, or on another server")
        facts.show_facts({"Asked for": st.session_state[_GONE], "Shown instead, on every page": label})
        st.button("Go on with this one", key="go on with this", on_click=chosen)
