"""How is a page of pairs shown, and what is pressed on it? Cards in a listbox: image, caption, scores, percentiles."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import streamlit as st

from clipsel_core import uids
from pages.parts import recipes, registry, sessions, state, words
from pages.parts.catalog import Entry
from pages.parts.component import component
from pages.parts.gallery import contents

_cards = component(
    "cards",
    '<div class="grid" role="listbox"></div>',
    css=("gallery/cards.css",),
    js=("make.js", "gallery/presses.js", "gallery/image.js", "gallery/cards.js"),
)
_picture = component(
    "picture",
    '<div class="frame"></div>',
    css=("gallery/cards.css",),
    js=("gallery/presses.js", "gallery/image.js", "gallery/picture.js"),
)
_UID = re.compile(r"[0-9a-f]{32}")
# The queue of presses of whichever pair lies open, as presses.js names it.
OPENED = "opened pair"


@dataclass(frozen=True)
class Bar:
    """One score on a card: its metric's title, the score, and its percentile as a number and in words."""

    title: str
    value: str
    rank: str
    percentile: float | None


Bars = Sequence[tuple[Bar, ...]]


@dataclass(frozen=True)
class Card:
    """One pair as the gallery shows it. Everything is plain text; src is a path on this server, or empty.

    bars: one or more scores; a single one is drawn without its title. lack: what stands where there is no image.
    """

    uid: str
    src: str
    caption: str
    bars: tuple[Bar, ...]
    badge: str = ""
    lack: str = "no image"


def score_bars(entry: Entry, rows: np.ndarray, names: Sequence[str]) -> Bars:
    """Some metrics' scores of these rows, with the percentile in the run: a tuple a row."""
    columns = []
    for name in names:
        spread, column = registry.marginal(entry, name), []
        for value in map(float, state.open_table(entry).take(name, rows)):
            percentile = spread.percentile(value) if np.isfinite(value) else None
            rank = "not scored" if percentile is None else "all alike" if spread.alike else words.percentile(percentile)
            column.append(Bar(registry.title(entry, name), words.decimal(value), rank, percentile))
        columns.append(column)
    return list(zip(*columns, strict=True))


def cosine_bars(similarity: np.ndarray) -> Bars:
    """How alike each of these is to what was asked for. similarity: (M,) cosines."""
    return [(Bar("cosine", words.decimal(value), "cosine", 100 * abs(float(value))),) for value in similarity]


def make_cards(entry: Entry, rows: np.ndarray, bars: Bars, keeps: state.Keeps | None = None) -> list[Card]:
    """The cards of these rows, in their order. bars: a tuple a card. keeps: tells which are kept, for the badge."""
    names = uids.to_hex(state.open_table(entry).uids_at(rows)).to_pylist()
    known = contents.read_texts(entry, rows, contents.text_columns(entry))
    by_hand, lack = recipes.by_hand(entry, state.open_run(entry)), contents.placeholder(entry)
    kept = [""] * len(rows) if keeps is None else ["kept" if mark else "dropped" for mark in keeps(rows)]
    hand = {"keep": "kept by hand", "drop": "dropped by hand"}
    return [
        Card(name, src, caption[: contents.LONGEST_TEXT], shown, hand.get(by_hand.get(name, ""), badge), lack)
        for name, src, caption, shown, badge in zip(
            names, contents.addresses(entry, names, known.get("url")), known["caption"], bars, kept, strict=True
        )
    ]


def draw_cards(
    cards: list[Card],
    *,
    key: str,
    label: str,
    pressed: Callable[[], None],
    turns: bool = False,
    small: bool = False,
    at: int | None = None,
) -> None:
    """Draws the cards.

    pressed: called before the page runs again when cards were opened by click, Enter or Space, kept or dropped with the
    keys K and D, or Page Up or Page Down asked for another page; it calls handle_presses.
    turns: whether there are other pages; else these two keys are left to the browser. small: whether more of them stand
    in a row. at: the card that was looked at
    last, from 0: it is marked, and has the keyboard where nothing else has it.
    """
    data = {"label": label, "turns": turns, "small": small, "cards": [asdict(card) for card in cards], "at": at}
    _cards(data={**data, **_heard_by(key)}, key=key, on_pressed_change=pressed)


def draw_picture(src: str, *, key: str, lack: str = "no image") -> None:
    """One pair's image, whole. lack: what stands where none is."""
    _picture(data={"src": src, "alt": "", "lack": lack}, key=key, on_pressed_change=lambda: None)


def draw_opened(
    src: str, *, alt: str, lack: str, uid: str, pair: sessions.OpenPair, pressed: Callable[[], None]
) -> None:
    """The image of an opened pair, that hears the keyboard. alt: what it shows, for those who cannot see it.

    pressed: called as draw_cards does for K, D and the arrows to the side, that ask for another pair.
    """
    data = {"src": src, "alt": alt, "lack": lack, "uid": uid, "pair": pair.number}
    _picture(data={**data, **_heard_by(OPENED)}, key=OPENED, on_pressed_change=pressed)


def _heard_by(key: str) -> dict[str, Any]:
    """What a drawing tells the browser of the presses that were heard."""
    heard = sessions.get(sessions.Pairs).heard
    return {"gallery": key, "heard": {name: heard.get(name, 0) for name in (key, OPENED)}}


@sessions.callback
def handle_presses(
    entry: Entry,
    key: str,
    opened: Callable[[str], None] | None = None,
    turned: Callable[[int], None] | None = None,
) -> None:
    """Does in order what was pressed on a gallery since this was called last: K and D go into the recipe.

    opened: told the uid of a pair to open. turned: told by how many pages to turn.

    The browser says a press again and again until a drawing says that it was heard, so that none is lost that was made
    while the page was busy. Whoever does it changes the session once, at the end: Streamlit ends a run wherever that is
    touched, when a later message is there, and what was not done then is done at the next. What was pressed in a pair
    that lay open over the gallery may come with the gallery's own, when that is closed.
    """
    view, presses = sessions.get(sessions.Pairs), st.session_state[key].get("pressed")
    for press in presses if isinstance(presses, list) else []:
        match press:
            case {"press": int(number), "pair": int(pair)} if number > view.heard.get(OPENED, 0):
                queue = OPENED
                _press_in_pair(entry, view, view.numbered(pair), press)
            case {"press": int(number), "kind": _} if "pair" not in press and number > view.heard.get(key, 0):
                queue = key
                _press_on_cards(entry, press, opened, turned)
            case _:
                continue
        # In its place, so that the run cannot end between what was done and this.
        view.heard[queue] = number


def _press_on_cards(
    entry: Entry,
    press: dict[str, Any],
    opened: Callable[[str], None] | None,
    turned: Callable[[int], None] | None,
) -> None:
    match press:
        case {"kind": "turn", "by": 1 | -1 as by} if turned is not None:
            turned(by)
        case {"kind": "open", "uid": str(uid)} if opened is not None and _is_of(entry, uid):
            opened(uid)
        case {"kind": "keep" | "drop" as kind, "uid": str(uid)} if _is_of(entry, uid):
            recipes.keep_or_drop(entry, state.open_run(entry), uid, kind)


def _press_in_pair(entry: Entry, view: sessions.Pairs, pair: sessions.OpenPair | None, press: dict[str, Any]) -> None:
    """pair: None where it was closed before another one was, or in another run. No uid: of the pair on show by now."""
    if pair is None or pair.gallery[0] != entry.key:
        return
    match press:
        case {"kind": "turn", "by": 1 | -1 as by}:
            view.turn(pair, by)
        case {"kind": "keep" | "drop" as kind, "uid": str(uid)}:
            uid = uid or uid_of(entry, pair)
            if _is_of(entry, uid):
                recipes.keep_or_drop(entry, state.open_run(entry), uid, kind)


def uid_of(entry: Entry, pair: sessions.OpenPair) -> str:
    """The uid of the pair on show, in hexadecimal."""
    return uids.to_hex(state.open_table(entry).uids_at(np.array([pair.row])))[0].as_py()


def _is_of(entry: Entry, uid: str) -> bool:
    """Whether a pair of the run has this uid."""
    return bool(_UID.fullmatch(uid)) and state.open_table(entry).rows_of(uids.from_hex([uid]))[0] >= 0
