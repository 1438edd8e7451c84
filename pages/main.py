"""The frame of every page: which pages there are, and which run they show.

Where the page or the run that an address names is not there, this is said before all else: without a word another run
would be shown in its place, and exported from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from clipsel_core.errors import ClipselError
from pages.parts import catalog, links, messages, progress_bars, routes, sessions, state, warming
from pages.parts.gallery import contents
from pages.parts.jobs import dialogs, forms, jobs
from pages.parts.select import steps

_LONGEST = 200
PARTS = Path(__file__).parent / "parts"


@dataclass
class Frame:
    """Which page and run a session looks at, by path and label. gone: the label of a run that is not there."""

    page: str | None = None
    run: str = ""
    gone: str = ""


def look_for_run(labels: list[str]) -> None:
    """Remembers which run was asked for in vain. Called before the picker draws. labels: of the runs there are."""
    frame = sessions.get(Frame)
    asked = frame.run or st.query_params.get("run", "")
    if asked and asked not in labels:
        frame.gone = asked
    if frame.gone in labels:
        forget_gone()


def forget_gone() -> None:
    """Somebody has chosen a run: there is nothing more to say."""
    sessions.get(Frame).gone = ""


def show_missing_page() -> None:
    """Says that the address named no page, where it did."""
    asked = st.query_params.get(routes.NO_PAGE)
    if asked is None:
        return
    with st.container(border=True, key="no-page", gap="small"):
        messages.show_title("There is no such page", "this is Overview; the list at the side has all pages")
        messages.show_facts({"Asked for": f"/{asked[:_LONGEST]}"})
        st.button("Go on", key="go on from no page", on_click=forget_missing_page)


def forget_missing_page() -> None:
    """The address asks for no page in vain any more."""
    st.query_params.pop(routes.NO_PAGE, None)


def show_missing_run(label: str) -> None:
    """Says that a run is not there, and which one is shown instead. label: of the run on show."""
    frame = sessions.get(Frame)
    frame.run = label
    if not frame.gone:
        return
    with st.container(border=True, key="elsewhere", gap="small"):
        messages.show_title("This run is not here", "deleted, renamed, or on another server")
        messages.show_facts({"Asked for": frame.gone, "Shown instead, on every page": label})
        st.button("Go on with this one", key="go on with this", on_click=forget_gone)


def show_no_runs() -> None:
    """Says how to make a run, and starts what makes one."""
    st.title("Nothing scored yet")
    st.write("A run is one scoring of one pool. Make the demo's, or score a pool of your own, then reload this page.")
    demo, own = st.columns(2, gap="medium")
    with demo:
        why = "A small world of images and captions with its scores and its map."
        messages.show_empty("Try the demo", why, "clipsel demo data/demo")
    with own:
        commands = "clipsel inspect POOL\nclipsel score POOL data/myrun --target NAME=TARGET.npy"
        messages.show_empty("Score your pool", "A folder with metadata/*.parquet and a .npz beside each.", commands)
    st.caption("Runs are looked for under this folder, and where the server is told when it starts:")
    st.code(f"{catalog.data_folder()}\nclipsel app RUN ...", language=None)
    with st.container(horizontal=True, gap="small"):
        forms.draw_buttons(None)
    jobs.draw_panel()


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
if sessions.get(Frame).page != page.url_path:
    dialogs.close()
    sessions.close_pair()
sessions.get(Frame).page = page.url_path

entries = catalog.entries()
labels = [entry.label for entry in entries]
look_for_run(labels)
show_missing_page()
with st.sidebar:
    if entries:
        st.selectbox("Run", labels, key="run", bind="query-params", on_change=forget_gone)
    for root, why in catalog.missing_runs().items():
        st.warning("Named when the server started, but it holds no run:", icon=":material/warning:")
        st.code(why or root, language=None, wrap_lines=True)

sessions.show_failed_callback()
if not entries:
    show_no_runs()
else:
    try:
        here = state.current()
        show_missing_run(here.label)
        steps.hear_thumbs(here)
        link = links.follow(here)
        with st.sidebar:
            links.draw_copy_button(here, link)
            jobs.draw_glance()
            contents.show_switch(here)
        if not progress_bars.is_open(here, "the run", stopped="Stopped: the run cannot be shown without."):
            st.stop()
        links.show_news(link)
        above = st.container()
        page.run()
        with above:
            contents.show_search()
        warming.page_drawn()
    except (ClipselError, OSError) as error:
        messages.show_error(messages.error_text(error), "This run cannot be shown as it is")
