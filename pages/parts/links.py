"""How does the draft get into the page's address and out of it again? With every change, so that a link is the draft.

The address has no recipe while the draft is the suggestion that every session begins with. Each change of the draft is
an entry of the browser's history: Back undoes it, Forward does it again.

A draft that is too large for an address is stored beside the data, under a name made of what it says: a link to it
opens what it opened then, and two tabs cannot write into one. Those that nobody has opened for the longest time are
removed where there are too many.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from clipsel_core.curation.recipes import recipe_link
from clipsel_core.curation.recipes.recipe import AnyStep, Intersect, Subtract, Union, parse_recipe
from clipsel_core.curation.recipes.recipe_link import RecipeLink
from clipsel_core.errors import RecipeError, counted, reason_of
from clipsel_core.files import write_atomically
from clipsel_core.runs.store import Run
from pages.parts import catalog, messages, recipes, sessions, state, words
from pages.parts.catalog import Entry
from pages.parts.component import component

_PARAMETER = "recipe"
_MOST_REMEMBERED = 100
_NAME = re.compile(r"k[0-9a-f]{32}")
_MOST_BYTES = 64_000_000
_MOST_KEPT_BYTES, _MOST_KEPT = 1_000_000_000, 20_000
# To look at all that is kept takes longer than to keep one more.
_STORED_UNCOUNTED = 50
_REMEDY = "ask for the link again, or load a saved recipe"
_uncounted = 0
_button = component(
    "link",
    '<div class="link"><button type="button"></button><input readonly hidden aria-label="Link"></div>',
    css=("links.css",),
    js=("links.js",),
)


@dataclass(frozen=True)
class Shown:
    """What the page says of the link. missing: what it leaves out. news: what became of the one that led here."""

    missing: str
    news: RecipeError | str | None


@dataclass
class _Links:
    """What a session knows of links, of each run and over all. followed: whether the first one was.

    shown: what the page says of the link. known: the steps that a link stood for. news: a link, and what there is to
    say of how it was taken.
    """

    followed: bool = False
    shown: Shown | None = None
    known: dict[str, list[AnyStep]] = field(default_factory=dict)
    news: tuple[str | None, RecipeError | str | None] = (None, None)


def follow(entry: Entry) -> Shown:
    """Takes the address's recipe as the draft where the session begins or Back was pressed; writes it otherwise."""
    run = state.open_run(entry)
    told = st.query_params.get(_PARAMETER, "")
    session, context = sessions.get(_Links), get_script_run_ctx()
    back = bool(context and context.is_history_navigation)  # or Forward
    begins, session.followed = not session.followed, True
    if (begins and told) or (back and told != _link(entry, run).text):
        _take(entry, run, told, begins=begins)
    shown = session.shown = _write(entry, run)
    return shown


def is_shown(entry: Entry, run: Run) -> bool:
    """Puts the draft into the page's address, and returns whether the page says of it what there is to say."""
    return _write(entry, run) == sessions.get(_Links).shown


def _take(entry: Entry, run: Run, told: str, *, begins: bool) -> None:
    """Takes the recipe that the address holds as the draft. begins: whether the session does so with it."""
    links = sessions.get(_Links, entry.key)
    news: RecipeError | str | None = None
    remembered = links.known.get(told)
    try:
        if remembered is not None or not told:
            recipes.replace_draft(entry, recipes.suggestion(run) if remembered is None else remembered)
        elif is_stored(told):
            kept = read_stored(told, entry.label)
            columns = state.open_table(entry).columns
            recipes.replace_draft(entry, list(parse_recipe(kept, "link", columns, folder=run.recipes_dir).steps))
        else:
            columns, lists = state.open_table(entry).columns, recipes.list_files(run)
            offered: dict[str, Any] = {"run": entry.label, "columns": columns, "lists": lists}
            arrived = recipe_link.decode_link(told, folder=run.recipes_dir, **offered)
            recipes.replace_draft(entry, list(arrived.steps))
            news = _missing(RecipeLink(told, arrived.hand, arrived.lists)) or None
    except RecipeError as error:
        # On the way back what cannot be used changes nothing and is not told.
        news = error if begins else None
    links.news = _link(entry, run).text, news


def _write(entry: Entry, run: Run) -> Shown:
    """Puts the draft into the page's address, and returns what there is to say of it."""
    link, told = _link(entry, run), st.query_params.get(_PARAMETER, "")
    if link.text is not None:
        # Also what the link had to leave out.
        links, steps = sessions.get(_Links, entry.key), list(recipes.draft(entry, run).values())
        links.known = dict(list({**links.known, link.text: steps}.items())[-_MOST_REMEMBERED:])
    if link.text and link.text != told:
        st.query_params[_PARAMETER] = link.text
    elif not link.text and told:
        del st.query_params[_PARAMETER]
    text, news = sessions.get(_Links, entry.key).news
    return Shown(_missing(link), news if text == link.text else None)


def draw_copy_button(entry: Entry, link: Shown) -> None:
    """A button that copies the address with the draft in it, and what is missing from it, if anything."""
    _button(data={"run": entry.label}, key="copy link")
    if link.missing:
        st.caption(f"{link.missing} Save the recipe to share all of it.")


def show_news(link: Shown) -> None:
    """What became of the recipe that the address held, until the draft is changed."""
    if isinstance(link.news, RecipeError):
        messages.show_error(link.news, "The recipe in this link cannot be used; the usual steps are shown instead")
    elif link.news is not None:
        st.info(link.news, icon=":material/link:")


def _link(entry: Entry, run: Run) -> RecipeLink:
    """The draft as the address holds it; "" for the suggestion."""
    steps = list(recipes.draft(entry, run).values())
    if steps == recipes.suggestion(run):
        return RecipeLink("")
    named = any(isinstance(step, Intersect | Union | Subtract) for step in steps)
    link = recipe_link.encode_link(steps, run=entry.label, lists=recipes.list_files(run) if named else ())
    whole = link.text is not None and not link.hand and not link.lists
    kept = None if whole else store_draft(entry.label, recipes.as_yaml(steps))
    return RecipeLink(kept) if kept else link


def _missing(link: RecipeLink) -> str:
    """What a link does not hold, in a sentence or two."""
    if link.text is None:
        return f"The recipe is too long for a link, which holds at most {recipe_link.MOST_STEPS} steps."
    said = []
    if link.hand:
        said.append(f"The link leaves out {words.pairs(link.hand)} kept or dropped by hand: too many for an address.")
    if link.lists:
        steps = f"{counted(link.lists, 'steps')}"
        said.append(f"The link leaves out {steps} with a uid list from outside the run's folders.")
    return " ".join(said)


def is_stored(told: str) -> bool:
    """Whether an address holds the name of a draft, and not the draft itself."""
    return bool(_NAME.fullmatch(told))


def store_draft(run: str, recipe: str) -> str | None:
    """Keeps a recipe (YAML) of a run, by its label, and returns its name.

    None where it is too large, or cannot be written.
    """
    data = f"{run}\n{recipe}".encode()
    name = f"k{hashlib.sha256(data).hexdigest()[:32]}"
    if len(data) > _MOST_BYTES:
        return None
    try:
        if not _draft_file(name).exists():
            write_atomically(_draft_file(name), lambda aside: aside.write_bytes(data))
            _remove_oldest()
    except OSError:
        return None
    return name


def read_stored(name: str, run: str) -> str:
    """The recipe (YAML) that was kept for a run. Raises RecipeError where it is gone, damaged, or for another run."""
    try:
        data = _draft_file(name).read_bytes()
    except OSError as error:
        expected = "a recipe that this server keeps"
        raise RecipeError("link", expected=expected, found=reason_of(error), remedy=_REMEDY) from error
    if hashlib.sha256(data).hexdigest()[:32] != name[1:]:
        raise RecipeError("link", expected="a recipe as it was kept", found="a damaged one", remedy=_REMEDY)
    label, _, recipe = data.decode().partition("\n")
    if label != run:
        remedy = "open it with the run it was made for, or save the recipe there and copy its file"
        raise RecipeError("link", expected=f"a recipe for {run}", found="one for another run", remedy=remedy)
    with suppress(OSError):
        os.utime(_draft_file(name))
    return recipe


def _draft_file(name: str) -> Path:
    return catalog.data_folder() / ".drafts" / name


def _remove_oldest() -> None:
    """Removes the drafts that were opened or kept longest ago, where there are too many or too large ones."""
    global _uncounted
    _uncounted -= 1
    if _uncounted > 0:
        return
    _uncounted = _STORED_UNCOUNTED
    with os.scandir(_draft_file("any").parent) as found:
        files = [
            (entry.stat().st_mtime_ns, entry.stat().st_size, entry.path) for entry in found if is_stored(entry.name)
        ]
    files.sort(reverse=True)
    sizes = accumulate(size for _, size, _ in files)
    for place, (size, (_, _, path)) in enumerate(zip(sizes, files, strict=True)):
        if place >= _MOST_KEPT or size > _MOST_KEPT_BYTES:
            Path(path).unlink(missing_ok=True)
