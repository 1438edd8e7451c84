"""How is a page of pairs shown? As cards in a listbox: image, two-line caption, some scores with their percentiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import streamlit as st

from pages.parts.component import component

_cards = component(
    "cards",
    '<div class="grid" role="listbox"></div>',
    css=("gallery/cards.css",),
    js=("make.js", "gallery/cards.js"),
)

_picture = component("picture", '<div class="frame"></div>', css=("gallery/cards.css",), js=("picture.js",))


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


def show_cards(
    cards: list[Card],
    *,
    key: str,
    label: str,
    judged: Callable[[], None],
    opened: Callable[[], None] = lambda: None,
    turned: Callable[[], None] | None = None,
    at: int | None = None,
) -> str | None:
    """Draws the cards and returns the uid that was just opened by click, Enter or Space, if any.

    opened: called before the page runs again; reported() then says which. judged: called when a card was kept or
    dropped with the keys K and D; judgement() then says which. turned: called when Page Up or Page Down asked for
    another page; turn() then says which way. None leaves these keys to the browser. at: the card that was looked at
    last, from 0: it is marked, and has the keyboard where nothing else has it.
    """
    data: dict[str, Any] = {"label": label, "turns": turned is not None, "cards": [asdict(card) for card in cards]}
    data["at"] = at
    turns = turned or (lambda: None)
    return _cards(data=data, key=key, on_opened_change=opened, on_judged_change=judged, on_turned_change=turns).opened


def reported(key: str) -> str | None:
    """The uid of the card that was just opened."""
    said = st.session_state[key].get("opened")
    return said if isinstance(said, str) else None


def judgement(key: str) -> tuple[str, str] | None:
    """The uid of the card that was just judged, and keep or drop."""
    said = st.session_state[key].get("judged")
    if not isinstance(said, dict) or said.get("kind") not in ("keep", "drop") or not isinstance(said.get("uid"), str):
        return None
    return said["uid"], said["kind"]


def turn(key: str) -> int:
    """How many pages on the keyboard asked to go: 1, -1, or 0 where it did not."""
    said = st.session_state[key].get("turned")
    return said if isinstance(said, int) and abs(said) == 1 else 0


def show_picture(src: str, *, key: str, alt: str = "", lack: str = "no image") -> None:
    """One pair's image, whole. alt: what it shows, for those who cannot see it. lack: what stands where none is."""
    _picture(data={"src": src, "alt": alt, "lack": lack}, key=key)
