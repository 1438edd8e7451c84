"""How does one get to a search? By a link that says what is asked, or on the Search page by a button."""

from __future__ import annotations

from dataclasses import dataclass, field

import streamlit as st

from pages.parts import sessions

TEXT, PICTURE, PAIR = "a text", "a picture", "a pair"
# The address's parameter with the file of an earlier search of the whole pool.
_KEPT = "kept"


@dataclass
class _Search:
    """Which earlier search is on show: its file's name. asked: how often one was asked for; linked: by which links."""

    file: str | None = None
    asked: int = 0
    linked: dict[str, str | None] = field(default_factory=dict)


def draw_link(label: str, icon: str, *, key: str, **asked: str) -> None:
    """Leads to the Search page. asked: like, the uid of a pair; or kept, the file of an earlier search."""
    if not (st.context.url or "").partition("?")[0].endswith("/search"):
        st.page_link("search.py", label=label, icon=icon, query_params=asked)
    # There a link to the page itself would change nothing.
    elif st.button(label, icon=icon, key=key, on_click=_ask, args=(asked,)):
        sessions.close_pair()
        st.rerun()


def follow_link() -> None:
    """On the Search page: a link asks for what it says, whatever was asked before."""
    linked = sessions.get(_Search).linked
    for name in ("like", _KEPT):
        asked = st.query_params.get(name)
        if asked and asked != linked.get(name):
            linked[name] = asked
            _ask({name: asked})


def search_on_show() -> str | None:
    """The file of the earlier search that is to be shown."""
    return sessions.get(_Search).file


def field_key() -> str:
    """The key of the field that says which earlier search is on show: a new one each time one is asked for.

    A widget's value that is set from here may be set back by the browser, which tells what it shows with whatever else
    it asks for, as panels do that draw themselves anew twice a second. A new widget it cannot know yet.
    """
    return f"{_KEPT} {sessions.get(_Search).asked}"


def note_search(file: str | None) -> None:
    """Notes which earlier search is on show, in the address too."""
    search = sessions.get(_Search)
    search.file = file
    if file != st.query_params.get(_KEPT):
        search.linked[_KEPT] = file
        if file:
            st.query_params[_KEPT] = file
        else:
            del st.query_params[_KEPT]


def leave_search() -> None:
    """No earlier search is on show any more."""
    _ask({})


def _ask(asked: dict[str, str]) -> None:
    search = sessions.get(_Search)
    search.file, search.asked = asked.get(_KEPT), search.asked + 1
    if "like" in asked:
        st.session_state["like"], st.session_state["by"] = asked["like"], PAIR
