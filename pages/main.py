"""The frame of every page: which pages there are, and which run they show."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from clipsel_core.errors import ClipselError
from pages.parts import catalog, empty, images, jobs, links, starting, state

st.set_page_config(page_title="clipsel", page_icon="🧲", layout="wide")
st.html(Path(__file__).parent / "parts" / "style.css")
st.logo(Path(__file__).parent / "parts" / "logo.svg", size="large")

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

entries = catalog.entries()
with st.sidebar:
    if entries:
        st.selectbox("Run", [entry.label for entry in entries], key="run", bind="query-params")
    for root in catalog.missing():
        st.warning("Named when the server started, but it holds no run:", icon=":material/warning:")
        st.code(str(root), language=None, wrap_lines=True)

if not entries:
    empty.no_runs(catalog.data_folder())
    with st.container(horizontal=True, gap="small"):
        starting.buttons(None)
    jobs.panel()
else:
    try:
        here = state.current()
        link = links.follow(here)
        with st.sidebar:
            links.copier(here, link)
            jobs.glance()
            images.switch(here)
        links.show_news(link)
        page.run()
    except ClipselError as error:
        empty.show_error(error, "This run cannot be shown as it is")
