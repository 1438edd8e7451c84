"""What is there to know about one pair? A dialog that walks on through the gallery it was opened from.

The dialog is a fragment: while it is open only it runs again. Which pair it shows is kept in the session: a place in
the gallery it was opened from, and on top of that the pairs opened one from another. Where the page is drawn anew
meanwhile, as when a job ends, the gallery draws it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import streamlit as st

from clipsel_core import uids
from pages.parts import facts, recipes, state, unreadable, words
from pages.parts.catalog import Entry
from pages.parts.gallery import cards, deck, images, records
from pages.parts.opened import LEFT, OPENED
from pages.parts.pair import related, standing, verdicts

_PICTURE, _JUDGED = "opened picture", "judged but not on show"


@dataclass(frozen=True)
class Walk:
    """The list of pairs that Previous and Next go through. row_at: from a place in it to the row number.

    first: the place of the first card on the page. left: told the last place when the dialog is closed.
    """

    length: int
    row_at: Callable[[int], int]
    first: int = 0
    left: Callable[[int], None] = lambda place: None

    @classmethod
    def of_rows(cls, rows: np.ndarray) -> Walk:
        """The list that is just these rows."""
        return cls(len(rows), lambda place: int(rows[place]))


def open_pair(entry: Entry, walk: Walk, place: int, *, gallery: str) -> None:
    """Opens the dialog on the pair at a place of the list. gallery: tells the page's galleries apart."""
    st.session_state[OPENED] = {"place": place, "trail": [], "walk": walk, "of": (entry.key, gallery)}
    _draw(entry)


def stay_open(entry: Entry, *, gallery: str) -> None:
    """Draws the dialog again where a pair of this gallery is open: the page is drawn anew for another reason."""
    if st.session_state.get(OPENED, {}).get("of") == (entry.key, gallery):
        _draw(entry)


def left_at(entry: Entry, *, gallery: str) -> int | None:
    """The place in this gallery's list that was looked at last; None where none was."""
    of, place = st.session_state.get(LEFT, (None, None))
    return place if of == (entry.key, gallery) else None


def leave_at(entry: Entry, place: int, *, gallery: str) -> None:
    """Has a place of this gallery's list marked as the one that was looked at last."""
    st.session_state[LEFT] = (entry.key, gallery), place


def _draw(entry: Entry) -> None:
    walk = st.session_state[OPENED]["walk"]
    unreadable.dialog("Pair", width="large", on_dismiss=_leave)(_show)(entry, walk)


def _leave() -> None:
    looking = st.session_state.pop(OPENED, None)
    if looking is not None:
        st.session_state[LEFT] = looking["of"], looking["place"]
        looking["walk"].left(looking["place"])


def _show(entry: Entry, walk: Walk) -> None:
    looking = st.session_state[OPENED]
    if _JUDGED in st.session_state:
        st.toast(st.session_state.pop(_JUDGED), icon=":material/check:")
    row = _row_of(looking)
    uid = _uid_of(entry, row)
    known = state.open_table(entry).metadata(np.array([row]), ("caption", "url")).iloc[0]
    _header(walk, looking)
    left, right = st.columns([2, 3], gap="medium")
    with left:
        caption = str(known["caption"])[: records.LONGEST_TEXT] or "no caption"
        src = images.sources(entry, [uid], [str(known["url"])])[0]
        pressed = partial(_heed, entry)
        cards.show_picture(src, key=_PICTURE, alt=caption, lack=images.lack(entry), uid=uid, pressed=pressed)
        st.text(caption)
        verdicts.show(entry, row)
        _judging(entry, uid)
        url = str(known["url"])[: records.LONGEST_TEXT] or "none"
        facts.show_facts({"uid": uid, "url": url, "row": words.count(row)})
    with right:
        _tabs(entry, row, str(known["caption"]))


def _header(walk: Walk, looking: dict) -> None:
    place, trail = looking["place"], looking["trail"]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        for word, icon, step in (("Previous", "left", -1), ("Next", "right", 1)):
            st.button(
                word,
                icon=f":material/chevron_{icon}:",
                help=f"The {icon} arrow",
                key=f"{word} pair",
                on_click=_go,
                args=(step,),
                disabled=not 0 <= place + step < walk.length,
            )
        if trail:
            st.button("Back", icon=":material/undo:", key="pair back", on_click=trail.pop)
            st.text("opened from the pair before")
        else:
            st.text(f"{words.count(place + 1)} of {words.count(walk.length)} in this gallery")


def _go(step: int) -> None:
    looking = st.session_state.get(OPENED)
    if looking is not None:
        place = min(max(looking["place"] + step, 0), looking["walk"].length - 1)
        st.session_state[OPENED] = {**looking, "place": place, "trail": []}


@unreadable.doing
def _heed(entry: Entry) -> None:
    """Does what the keyboard asked for, and says of what is no longer on show by then that it was judged."""
    run = state.open_run(entry)
    before = recipes.by_hand(entry, run)
    deck.heed(entry, _PICTURE, lambda uid: None, _go)
    after, looking = recipes.by_hand(entry, run), st.session_state.get(OPENED)
    on_show = _uid_of(entry, _row_of(looking)) if looking is not None else ""
    for uid in {uid for uid, _ in before.items() ^ after.items()} - {on_show}:
        done = {"keep": "Kept by hand", "drop": "Dropped by hand", "": "Taken back"}[after.get(uid, "")]
        st.session_state[_JUDGED] = f"{done}: pair {uid[:8]}…, which was on show when the key was pressed"


def _row_of(looking: dict) -> int:
    return looking["trail"][-1] if looking["trail"] else looking["walk"].row_at(looking["place"])


def _uid_of(entry: Entry, row: int) -> str:
    return uids.to_hex(state.open_table(entry).uids_at(np.array([row])))[0].as_py()


def _judging(entry: Entry, uid: str) -> None:
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
                on_click=recipes.judge,
                args=(entry, run, uid, kind),
            )


def _tabs(entry: Entry, row: int, caption: str) -> None:
    """Only the open tab is worked out, and it stays open from pair to pair."""
    others = {
        "Scores": partial(standing.show, entry, row),
        "Look-alikes": partial(related.look_alikes, entry, row, opened=_follow),
        "Same caption": partial(related.same_caption, entry, row, caption, opened=_follow),
    }
    if state.open_run(entry).targets:
        others["Target images"] = partial(related.target_images, entry, row, opened=_follow)
    for tab, draw in zip(st.tabs(list(others), key="pair tab", on_change="rerun"), others.values(), strict=True):
        if tab.open:
            with tab:
                draw()


def _follow(rows: dict[str, int], uid: str) -> None:
    """Goes to a pair that was opened from within. rows: of the cards there, by uid."""
    row = rows.get(uid)
    if row is not None:
        st.session_state[OPENED]["trail"].append(row)
