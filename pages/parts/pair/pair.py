"""What is there to know about one pair? A dialog that walks on through the gallery it was opened from.

The dialog is a fragment: while it is open only it runs again. Where the page is drawn anew meanwhile, as when a job
ends, the gallery draws it again.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import streamlit as st

from clipsel_core import uids
from pages.parts import messages, recipes, sessions, state, words
from pages.parts.catalog import Entry
from pages.parts.gallery import cards, images, texts
from pages.parts.pair import explanation, related
from pages.parts.sessions import OpenPair

_PICTURE = "opened picture"


def draw_opened(entry: Entry, *, gallery: str) -> None:
    """Draws the dialog where a pair of this gallery is open. gallery: tells the page's galleries apart."""

    def close() -> None:
        view = sessions.get(sessions.Pairs)
        opened, view.opened = view.opened, None
        if opened is not None:
            view.last = opened.gallery, opened.place
            if opened.closed is not None:
                opened.closed(opened.place)

    opened = sessions.get(sessions.Pairs).opened
    if opened is not None and opened.gallery == (entry.key, gallery):
        sessions.dialog("Pair", width="large", on_dismiss=close)(_draw)(entry)


def _draw(entry: Entry) -> None:
    view = sessions.get(sessions.Pairs)
    if view.opened is None:
        return
    if view.news:
        st.toast(view.news, icon=":material/check:")
        view.news = ""
    row, uid = _shown_pair(entry, view.opened)
    metadata = state.open_table(entry).metadata.of(np.array([row]), ("caption", "url"))
    known = {name: str(values[0]) for name, values in metadata.items()}
    _header(view.opened)
    left, right = st.columns([2, 3], gap="medium")
    with left:
        caption = known["caption"][: texts.LONGEST_TEXT] or "no caption"
        src, lack = images.addresses(entry, [uid], [known["url"]])[0], images.placeholder(entry)
        pressed = partial(_handle_presses, entry)
        cards.draw_picture(src, key=_PICTURE, alt=caption, lack=lack, uid=uid, pressed=pressed)
        st.text(caption)
        explanation.show_steps(entry, row)
        _buttons(entry, uid)
        url = known["url"][: texts.LONGEST_TEXT] or "none"
        messages.show_facts({"uid": uid, "url": url, "row": words.number(row)})
    with right:
        tabs = {
            "Scores": partial(explanation.draw_scores, entry, row),
            "Look-alikes": partial(related.draw_neighbours, entry, row),
            "Same caption": partial(related.draw_same_caption, entry, row, known["caption"]),
        }
        if state.open_run(entry).targets:
            tabs["Target images"] = partial(related.draw_target_images, entry, row)
        # Only the open tab is worked out, and it stays open from pair to pair.
        for tab, draw in zip(st.tabs(list(tabs), key="pair tab", on_change="rerun"), tabs.values(), strict=True):
            if tab.open:
                with tab:
                    draw()


def _shown_pair(entry: Entry, opened: OpenPair) -> tuple[int, str]:
    """Row and uid of the pair on show."""
    row = opened.trail[-1] if opened.trail else opened.listed.row_at(opened.place)
    return row, uids.to_hex(state.open_table(entry).uids_at(np.array([row])))[0].as_py()


def _header(opened: OpenPair) -> None:
    place, pairs = opened.place, len(opened.listed)

    def go_back() -> None:
        if opened.trail:
            opened.trail.pop()

    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        for word, icon, step in (("Previous", "left", -1), ("Next", "right", 1)):
            st.button(
                word,
                icon=f":material/chevron_{icon}:",
                help=f"The {icon} arrow",
                key=f"{word} pair",
                on_click=_turn,
                args=(step,),
                disabled=not 0 <= place + step < pairs,
            )
        if opened.trail:
            st.button("Back", icon=":material/undo:", key="pair back", on_click=go_back)
            st.text("opened from the pair before")
        else:
            st.text(f"{words.number(place + 1)} of {words.number(pairs)} in this gallery")


def _turn(by: int) -> None:
    opened = sessions.get(sessions.Pairs).opened
    if opened is not None:
        opened.place = min(max(opened.place + by, 0), len(opened.listed) - 1)
        opened.trail.clear()


@sessions.callback
def _handle_presses(entry: Entry) -> None:
    """Does what the keyboard asked for, and says of what is no longer on show by then that it was judged."""
    run, view = state.open_run(entry), sessions.get(sessions.Pairs)
    before = recipes.by_hand(entry, run)
    cards.handle_presses(entry, _PICTURE, lambda uid: None, _turn)
    after = recipes.by_hand(entry, run)
    on_show = _shown_pair(entry, view.opened)[1] if view.opened is not None else ""
    for uid in {uid for uid, _ in before.items() ^ after.items()} - {on_show}:
        done = {"keep": "Kept by hand", "drop": "Dropped by hand", "": "Taken back"}[after.get(uid, "")]
        view.news = f"{done}: pair {uid[:8]}…, which was on show when the key was pressed"


def _buttons(entry: Entry, uid: str) -> None:
    """Buttons that keep or drop the opened pair by hand."""
    run = state.open_run(entry)
    said = recipes.by_hand(entry, run).get(uid)
    with st.container(horizontal=True, gap="small"):
        for kind, word, key, icon in (("keep", "Keep", "K", "check"), ("drop", "Drop", "D", "block")):
            st.button(
                f"Take back: {kind} by hand" if said == kind else f"{word} by hand",
                icon=f":material/{icon}:",
                help=f"The key {key}",
                # A click on the button of a pair that the server has left already is not one on the next pair's.
                key=f"{kind} opened {uid}",
                on_click=recipes.keep_or_drop,
                args=(entry, run, uid, kind),
            )
