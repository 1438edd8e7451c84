"""How is a page of pairs shown? As cards in a listbox: image, two-line caption, one score with its percentile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import streamlit as st

_HERE = Path(__file__).parent
_cards = st.components.v2.component(
    "clipsel_cards",
    html='<div class="grid" role="listbox"></div>',
    css=(_HERE / "cards.css").read_text(encoding="utf-8"),
    js=(_HERE / "cards.js").read_text(encoding="utf-8"),
)

_picture = st.components.v2.component(
    "clipsel_picture",
    html='<div class="frame"></div>',
    css=(_HERE / "cards.css").read_text(encoding="utf-8"),
    js=(_HERE / "picture.js").read_text(encoding="utf-8"),
)


@dataclass(frozen=True)
class Card:
    """One pair as the gallery shows it. Everything is plain text; src is a path on this server, or empty."""

    uid: str
    src: str
    caption: str
    value: str
    rank: str
    percentile: float | None
    badge: str = ""


def show_cards(cards: list[Card], *, key: str, label: str, judged: Callable[[], None]) -> str | None:
    """Draws the cards and returns the uid that was just opened by click, Enter or Space, if any.

    judged: called when a card was kept or dropped with the keys K and D; judgement() then says which.
    """
    data: dict[str, Any] = {"label": label, "cards": [asdict(card) for card in cards]}
    return _cards(data=data, key=key, on_opened_change=lambda: None, on_judged_change=judged).opened


def judgement(key: str) -> tuple[str, str] | None:
    """The uid of the card that was just judged, and keep or drop."""
    said = st.session_state[key].get("judged")
    if not isinstance(said, dict) or said.get("kind") not in ("keep", "drop") or not isinstance(said.get("uid"), str):
        return None
    return said["uid"], said["kind"]


def show_picture(src: str, *, key: str) -> None:
    """One pair's image, whole."""
    _picture(data={"src": src}, key=key)
