"""How is a page of pairs shown? As cards in a listbox: image, two-line caption, some scores with their percentiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import streamlit as st

from pages.parts.component import component

_cards = component(
    "cards",
    '<div class="grid" role="listbox"></div>',
    css=("gallery/cards.css",),
    js=("make.js", "gallery/presses.js", "gallery/cards.js"),
)

_picture = component(
    "picture", '<div class="frame"></div>', css=("gallery/cards.css",), js=("gallery/presses.js", "picture.js")
)


@dataclass(frozen=True)
class Bar:
    """One score on a card: its metric's title, the score, and its percentile as a number and in words."""

    title: str
    value: str
    rank: str
    percentile: float | None


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


@dataclass(frozen=True)
class Press:
    """What somebody did to a gallery. kind: open, keep or drop the pair of a uid, or turn by so many pages."""

    kind: str
    uid: str = ""
    by: int = 0


def show_cards(
    cards: list[Card],
    *,
    key: str,
    label: str,
    pressed: Callable[[], None],
    turns: bool = False,
    at: int | None = None,
) -> None:
    """Draws the cards.

    pressed: called before the page runs again when cards were opened by click, Enter or Space, kept or dropped with the
    keys K and D, or Page Up or Page Down asked for another page; presses() then says in which order.
    turns: whether there are other pages; else these two keys are left to the browser. at: the card that was looked at
    last, from 0: it is marked, and has the keyboard where nothing else has it.
    """
    data = {"label": label, "turns": turns, "cards": [asdict(card) for card in cards], "at": at}
    _cards(data={**data, **_answer(key)}, key=key, on_pressed_change=pressed)


def presses(key: str) -> Iterator[Press]:
    """What was done to a gallery since this was asked last, in order; the next drawing says what of it was heard.

    The browser says a press again and again until then, so that none is lost that was made while the page was busy. One
    counts as heard when the next is asked for. Whoever does it changes the session once, at the end: Streamlit ends a
    run wherever that is touched, when a later message is there, and what was not done then is done at the next.
    """
    said, heard = st.session_state[key].get("pressed"), st.session_state.setdefault(_heard(key), [0])
    for one in said if isinstance(said, list) else []:
        match one:
            case {"press": int(number), "kind": "open" | "keep" | "drop" as kind, "uid": str(uid)} if number > heard[0]:
                yield Press(kind, uid)
            case {"press": int(number), "kind": "turn", "by": 1 | -1 as by} if number > heard[0]:
                yield Press("turn", by=by)
            case _:
                continue
        # In its place, so that the run cannot end between what was done and this.
        heard[0] = number


def _answer(key: str) -> dict[str, Any]:
    """What a drawing tells the browser of the presses that were heard."""
    return {"gallery": key, "heard": st.session_state.get(_heard(key), [0])[0]}


def _heard(key: str) -> str:
    return f"heard {key}"


def show_picture(
    src: str,
    *,
    key: str,
    alt: str = "",
    lack: str = "no image",
    uid: str = "",
    pressed: Callable[[], None] = lambda: None,
) -> None:
    """One pair's image, whole. alt: what it shows, for those who cannot see it. lack: what stands where none is.

    uid: of a pair that hears the keyboard. pressed: called as show_cards does for K, D and the arrows to the side, that
    ask for another pair.
    """
    said = {"src": src, "alt": alt, "lack": lack, "uid": uid}
    _picture(data={**said, **_answer(key)}, key=key, on_pressed_change=pressed)
