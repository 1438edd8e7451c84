"""What is there to know about one pair? A dialog that walks on through the gallery it was opened from.

Beside the pair: why it has its scores, its neighbours, those with its caption, and the target's nearest images.

The dialog is a fragment: while it is open only it runs again. Where the page is drawn anew meanwhile, as when a job
ends, the gallery draws it again.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import streamlit as st

from clipsel_core import uids
from clipsel_core.curation.exploring.captions import CaptionScan
from clipsel_core.curation.exploring.searches import NearestTargets, nearest_targets
from clipsel_core.curation.exploring.vectors import Side, vector_of
from clipsel_core.curation.index import bitmaps
from clipsel_core.errors import ClipselError, counted
from clipsel_core.runs.columns import NEAREST, usual
from clipsel_core.runs.store import TargetInfo
from pages.parts import messages, progress_bars, recipes, registry, search_links, sessions, state, words
from pages.parts.catalog import Entry
from pages.parts.gallery import cards, contents, pager
from pages.parts.pair import explanation
from pages.parts.search import queries, results
from pages.parts.sessions import OpenPair

_PICTURE = "opened picture"
_CARDS, _STAND_INS = 12, 4
_TWINS = "same caption page"
_SIDES: dict[str, Side] = {"by image": "image", "by caption": "text"}


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
        caption = known["caption"][: contents.LONGEST_TEXT] or "no caption"
        src, lack = contents.addresses(entry, [uid], [known["url"]])[0], contents.placeholder(entry)
        pressed = partial(_handle_presses, entry)
        cards.draw_picture(src, key=_PICTURE, alt=caption, lack=lack, uid=uid, pressed=pressed)
        st.text(caption)
        explanation.show_steps(entry, row)
        _buttons(entry, uid)
        url = known["url"][: contents.LONGEST_TEXT] or "none"
        messages.show_facts({"uid": uid, "url": url, "row": words.number(row)})
    with right:
        tabs = {
            "Scores": partial(explanation.draw_scores, entry, row),
            "Look-alikes": partial(draw_neighbours, entry, row),
            "Same caption": partial(draw_same_caption, entry, row, known["caption"]),
        }
        if state.open_run(entry).targets:
            tabs["Target images"] = partial(draw_target_images, entry, row)
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


def draw_neighbours(entry: Entry, row: int) -> None:
    """The pairs whose images or captions have the most similar embeddings, of those that are searched at once.

    Of all pairs where they were searched before; else that is offered.
    """
    side = st.segmented_control("Alike", list(_SIDES), default="by image", required=True, key="alike side")
    table, run = state.open_table(entry), state.open_run(entry)
    uid = uids.to_hex(table.uids_at(np.array([row])))[0].as_py()
    asked = queries.pair_query(uid, row)
    try:
        found, among = results.read_full_search(entry, run, asked, _SIDES[side]), f"all {words.pairs(len(table))}"
        if found is None:
            vector, among = vector_of(table, row, _SIDES[side]), results.describe_sample(entry)
            found = results.find_nearest(entry, vector, _SIDES[side], but=row)
    except ClipselError as error:
        messages.show_error(error, "Look-alikes cannot be found")
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        search_links.draw_link("More of them", ":material/search:", key="more alike", like=uid)
        results.offer_full_search(entry, run, asked, _SIDES[side], watch=True)
    messages.show_title(f"Most alike {side}", f"of {among}, by cosine")
    shown = found.first(_CARDS)
    _draw_related(entry, shown.rows, cards.cosine_bars(shown.similarity), "look-alikes")


def draw_same_caption(entry: Entry, row: int, caption: str) -> None:
    """What else exactly this caption was used for. A large pool is read only when that is asked for."""
    table = state.open_table(entry)
    if len(table) > results.AT_ONCE and st.session_state.get("caption asked") != row:
        st.text(f"Looks through the captions of all {words.pairs(len(table))}; takes some seconds.")
        st.button("Find this caption", icon=":material/search:", on_click=_look_through, args=("caption asked", row))
        return
    try:
        asked = (entry.root, state.scores_stamp(entry), caption)
        make = partial(CaptionScan.for_caption, table, caption)
        scan, so_far = progress_bars.search_captions("same caption", asked, make)
    except ClipselError as error:
        messages.show_error(error, "Captions cannot be searched")
        return
    rows = bitmaps.rows(scan.bits)
    others = pager.RowList(rows[rows != row], _CARDS)
    if not len(others):
        messages.show_title("No other pair has this caption", so_far)
        return
    messages.show_title(f"{words.pairs(len(others))} more with exactly this caption", so_far)
    name = usual(table.metrics)
    pager.rewind_on_change(_TWINS, (entry.key, row))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        page = pager.choose_page(_TWINS, others, linked=False)
    shown = others.rows(page)
    _draw_related(entry, shown, cards.score_bars(entry, shown, [name]), "same caption cards", others)


def draw_target_images(entry: Entry, row: int) -> None:
    """Why a pair is near a target or not: the images of each that this pair's image resembles most."""
    for info in state.open_run(entry).targets:
        if info.kind == "moment":
            messages.show_note(f"{info.name} is a second moment: it has no images to show.")
            continue
        asked = f"target asked {info.name}"
        if info.rows > results.AT_ONCE and st.session_state.get(asked) != row:
            look = f"Look through {counted(info.rows, 'images')} of {info.name}"
            st.button(
                look, icon=":material/search:", key=f"look {info.name}", on_click=_look_through, args=(asked, row)
            )
            continue
        try:
            with st.spinner("Comparing …"):
                table = state.open_table(entry)
                found = nearest_targets(table, info.name, vector_of(table, row), limit=_CARDS)
        except ClipselError as error:
            messages.show_error(error, f"The target {info.name} cannot be compared with")
            continue
        if len(found):
            _draw_target(entry, row, info, found)


def _draw_target(entry: Entry, row: int, info: TargetInfo, found: NearestTargets) -> None:
    nearest = registry.title(entry, NEAREST + info.name)
    messages.show_title(f"Nearest of {counted(info.rows, 'images')} of {info.name}", "by absolute cosine")
    text = (
        f"{nearest} is the first of these, {words.decimal(abs(float(found.similarity[0])))}; the rest do not enter it."
    )
    messages.show_note(text)
    if found.pairs:
        _draw_related(entry, found.rows, cards.cosine_bars(found.similarity), f"target {info.name}")
        return
    if found.closest is not None:
        # What a target's image that has no picture looks like.
        alike = results.find_nearest(entry, found.closest, "image", but=row).first(_STAND_INS)
        title = f"Most like the first, row {words.number(found.rows[0])}"
        messages.show_title(title, f"of {results.describe_sample(entry)}, to see what it may show")
        _draw_related(entry, alike.rows, cards.cosine_bars(alike.similarity), f"like target {info.name}")
    st.dataframe(
        {"row of the target": found.rows, "absolute cosine": np.abs(found.similarity.astype(float))},
        hide_index=True,
        column_config={"absolute cosine": st.column_config.ProgressColumn(format="%.4f", min_value=0, max_value=1)},
    )
    st.caption("The target is a file of embeddings without pictures, so its images are named by their row, from 0.")


def _draw_related(
    entry: Entry, rows: np.ndarray, bars: cards.Bars, key: str, twins: pager.RowList | None = None
) -> None:
    """Cards within an opened pair: the one that is opened takes its place. twins: the list that they are a page of."""
    drawn = cards.make_cards(entry, rows, bars)
    row_of = {card.uid: int(row) for card, row in zip(drawn, rows, strict=True)}

    def follow(uid: str) -> None:
        opened = sessions.get(sessions.Pairs).opened
        if opened is not None and uid in row_of:
            opened.trail.append(row_of[uid])

    turned = partial(pager.turn, _TWINS, pager.count_pages(twins)) if twins else None
    pressed = partial(cards.handle_presses, entry, key, follow, turned)
    cards.draw_cards(drawn, key=key, label=key.capitalize(), pressed=pressed, turns=turned is not None)


def _look_through(key: str, row: int) -> None:
    st.session_state[key] = row
