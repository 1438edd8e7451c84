"""How is one step of a recipe set by hand? With a thumb that redraws its histogram and all steps' counts as it moves.

Everything that the thumb can show is sent before it is touched, as raw bytes: a few numbers for each of its places.
While it moves the browser asks nobody; when it is let go Python is told its place, once.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import streamlit as st

from clipsel_core.curation.selecting.live import Settings
from pages.parts import views
from pages.parts.component import component

_control = component(
    "control",
    '<div class="control"><div class="thumb-box"></div><div class="histogram"></div></div>',
    css=("histogram.css", "select/control.css"),
    js=("make.js", "plot.js", "select/mirror.js", "select/control.js"),
)
_COUNTS = ("below", "left", "shown", "alone", "pool", "others", "fixed", "now")


@dataclass
class _Thumb:
    """The number of a thumb's last move that was heard."""

    heard: float = 0


def show_control(
    head: dict[str, Any], settings: Settings | None, *, key: str, moved: Callable[[int | str], object]
) -> None:
    """Draws the thumb and, where the step can be counted, its histogram.

    head: what is said as words and single numbers, as mirror.js reads it. settings: what each place of the thumb would
    do, None where the recipe does not fit the run. moved: called when the thumb was let go, with its place, or when an
    amount was typed, with that as text.
    """
    heard = views.get(_Thumb, key).heard
    _control(data=packed({**head, "heard": heard}, settings), key=key, on_moved_change=partial(_hear, key, moved))


def _hear(key: str, moved: Callable[[int | str], object]) -> None:
    """Passes on where the thumb was moved to; the next drawing says that this was heard.

    By the number of the last move heard the browser tells the answer to an older one, which it must not follow back. It
    says a move that was not heard again: Streamlit ends a run at any touch of the session, when a later message waits.
    """
    thumb = views.get(_Thumb, key)
    match st.session_state[key].get("moved"):
        case {"place": int(place), "move": int() | float() as move, **more} if move != thumb.heard:
            typed = more.get("typed")
            moved(typed if isinstance(typed, str) else place)
            # Once the step is changed, and in its place, so that the run cannot end between the two.
            thumb.heard = move


def packed(head: dict[str, Any], settings: Settings | None) -> bytes:
    """One message: the length of the words (4 bytes), the words as JSON, padding to 4, then numbers of 4 bytes each.

    head["arrays"] names them in order, each with its length: thresholds, float32 as scores are, and counts, uint32.
    """
    arrays = {}
    if settings is not None:
        arrays["thresholds"] = settings.thresholds.astype("<f4")
        arrays.update((name, getattr(settings, name).ravel().astype("<u4")) for name in _COUNTS)
    said = {**head, "arrays": [[name, len(values)] for name, values in arrays.items()]}
    words = json.dumps(said).encode()
    padding = b" " * (-len(words) % 4)
    start = struct.pack("<I", len(words) + len(padding))
    return b"".join((start, words, padding, *(values.data for values in arrays.values())))
