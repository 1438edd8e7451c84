"""Where does the browser get a pair's image? From our own route; from the web only where the curator asks for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import streamlit as st

from clipsel_core.places import Place
from clipsel_core.pool.layout import knows_images
from clipsel_core.tasks import Task
from pages.parts import messages, pictures, progress_bars, sessions, state
from pages.parts.catalog import Entry

_LONGEST_ADDRESS = 2_000
_MOST_NAMED = 3


@dataclass
class _Images:
    """Of the images that the page just drawn would have shown: what they wait for, and the tars that are damaged."""

    awaited: Task | None = None
    damaged: Sequence[tuple[str, str, int]] = field(default_factory=list)


def text_columns(entry: Entry) -> tuple[str, ...]:
    """The metadata that a card needs: its caption, and the url where images come from there."""
    return ("caption", "url") if st.session_state.get(_key(entry)) and not has_images(entry) else ("caption",)


def addresses(entry: Entry, names: Sequence[str], urls: Sequence[str] | None) -> list[str]:
    """The address of each pair's image, "" where there is none. names: uids in hex. urls: see text_columns."""
    if has_images(entry):
        finding, shown = pictures.find(entry), sessions.get(_Images)
        if finding.work.finished:
            shown.damaged = finding.index.damaged if finding.index else []
            shown.awaited = None if finding.is_known else finding.search
            return [f"/pairs/{entry.key}/{name}" for name in names]
        shown.awaited = finding.work
        return [""] * len(names)
    if urls is None or not st.session_state.get(_key(entry)):
        return [""] * len(names)
    return [web_address(url) for url in urls]


def placeholder(entry: Entry) -> str:
    """What stands in the place of an image without an address."""
    return "not found yet" if has_images(entry) and pictures.find(entry).work.active else "no image"


def show_search() -> None:
    """How far finding the images is that the page just drawn would have shown, with a way to stop it; or why not.

    Also which of the pool's tars are damaged.
    """
    shown = sessions.get(_Images)
    task, damaged, shown.awaited, shown.damaged = shown.awaited, shown.damaged, None, []
    if damaged:
        named = [f"{file}: {found:,} images are shown; {reason}" for file, reason, found in damaged[:_MOST_NAMED]]
        named += [f"and {len(damaged) - _MOST_NAMED:,} more"] * (len(damaged) > _MOST_NAMED)
        messages.show_error("\n".join(named), "Not all of the pool's images can be shown")
    if task is None:
        return
    if task.error:
        messages.show_error(task.error, "The pool's images cannot be shown")
    else:
        progress_bars.watch(task, key="finding images", stopped="Stopped: images are not shown.")


def has_images(entry: Entry) -> bool:
    """Whether the run's pool is at hand and knows where its images are.

    Raises: PoolFormatError where its store does not answer.
    """
    run = state.open_run(entry)
    return run.may_read_pool and _has_images(run.pool_root)


# Asked for each page of cards, where to open a large pool would take a second, and to list its tars some of it.
@state.per_run(32, stamp=lambda root: state.stamp_of(root, *state.POOL_PARTS))
def _has_images(root: Place) -> bool:
    return (root / "metadata").is_dir() and knows_images(root)


def show_switch(entry: Entry) -> None:
    """Lets the curator of a pool without images have them fetched from the web: off at first, and never by a link."""
    if has_images(entry):
        return
    pool = state.find_pool(entry)
    if pool and pool.url_column:
        help_text = (
            "This pool has no images. Switched on, your browser asks for each pair's image at the address in the url "
            "column: whoever runs those servers learns that you look. What they send may have changed since."
        )
        st.toggle("Images from the web", key=_key(entry), help=help_text)


def web_address(url: str) -> str:
    """The url where it is one of the web that a picture may be asked from, else "".

    >>> web_address("https://example.org/a.jpg"), web_address("javascript:alert(1)"), web_address("file:///etc/passwd")
    ('https://example.org/a.jpg', '', '')
    """
    if len(url) > _LONGEST_ADDRESS or not url.isprintable():
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc else ""


def _key(entry: Entry) -> str:
    return f"images from the web {entry.key}"
