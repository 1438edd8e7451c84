"""The frame of every page: which pages there are, and which run they show."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from clipsel_core.errors import ClipselError
from pages.parts import catalog, elsewhere, empty, links, opening, state, unreadable, views
from pages.parts.gallery import images
from pages.parts.jobs import forms, jobs, starting

PARTS = Path(__file__).parent / "parts"
st.set_page_config(page_title="clipsel", page_icon=PARTS / "icon.svg", layout="wide")
st.html(PARTS / "style.css")
st.logo(PARTS / "logo.svg", size="large")

page = st.navigation(
    {
        "Look": [
            st.Page("overview.py", title="Overview", icon=":material/dashboard:", default=True),
            st.Page("distributions.py", title="Distributions", icon=":material/bar_chart:"),
            st.Page("map.py", title="Map", icon=":material/map:"),
            st.Page("gallery.py", title="Gallery", icon=":material/grid_view:"),
            st.Page("search.py", title="Search", icon=":material/search:"),
        ],
        "Choose": [
            st.Page("select.py", title="Select", icon=":material/tune:"),
            st.Page("compare.py", title="Compare", icon=":material/compare_arrows:"),
        ],
    },
    expanded=True,
)
st.set_page_config(page_title=f"{page.title} · clipsel")

# What lies over a page, a form or a pair, does not follow to the next one.
if st.session_state.get("page on show") != page.url_path:
    forms.close()
    views.close_pair()
st.session_state["page on show"] = page.url_path

entries = catalog.entries()
labels = [entry.label for entry in entries]
elsewhere.look_for(labels)
elsewhere.show_no_page()
with st.sidebar:
    if entries:
        st.selectbox("Run", labels, key="run", bind="query-params", on_change=elsewhere.chosen)
    for root in catalog.missing():
        st.warning("Named when the server started, but it holds no run:", icon=":material/warning:")
        st.code(str(root), language=None, wrap_lines=True)

unreadable.show_undone()
if not entries:
    empty.no_runs(catalog.data_folder())
    with st.container(horizontal=True, gap="small"):
        starting.buttons(None)
    jobs.panel()
else:
    try:
        here = state.current()
        elsewhere.show(here.label)
        link = links.follow(here)
        with st.sidebar:
            links.copier(here, link)
            jobs.glance()
            images.show_switch(here)
        opening.wait_for(here)
        links.show_news(link)
        above = st.container()
        page.run()
        with above:
            images.show_search()
    except (ClipselError, OSError) as error:
        empty.show_error(unreadable.in_words(error), "This run cannot be shown as it is")
