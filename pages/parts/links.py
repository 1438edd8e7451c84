"""How does the draft get into the page's address and out of it again? With every change, so that a link is the draft.

The address has no recipe while the draft is the suggestion that every session begins with. A draft that is too large
for it is kept on the server, and the address has its name. Each change of the draft is an entry of the browser's
history: Back undoes it, Forward does it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from clipsel_core.counts import counted
from clipsel_core.curation.recipes import recipe_link
from clipsel_core.curation.recipes.recipe import AnyStep, Intersect, Subtract, Union
from clipsel_core.curation.recipes.recipe_files import parse_recipe
from clipsel_core.curation.recipes.recipe_link import RecipeLink
from clipsel_core.errors import RecipeError
from clipsel_core.runs.store import Run
from pages.parts import drafts, empty, lists, recipes, state, words
from pages.parts.catalog import Entry
from pages.parts.component import component

_PARAMETER = "recipe"
_MOST_REMEMBERED = 100
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


def follow(entry: Entry) -> Shown:
    """Takes the address's recipe as the draft where the session begins or Back was pressed; writes it otherwise."""
    run = state.open_run(entry)
    told = st.query_params.get(_PARAMETER, "")
    begins = "followed" not in st.session_state
    st.session_state["followed"] = True
    if (begins and told) or (_went_back() and told != _link(entry, run).text):
        _take(entry, run, told, quiet=not begins)
    return write(entry, run)


def write(entry: Entry, run: Run) -> Shown:
    """Puts the draft into the page's address, and returns what there is to say of it."""
    link, told = _link(entry, run), st.query_params.get(_PARAMETER, "")
    _remember(entry, link, list(recipes.draft(entry, run).values()))
    if link.text and link.text != told:
        st.query_params[_PARAMETER] = link.text
    elif not link.text and told:
        del st.query_params[_PARAMETER]
    text, news = st.session_state.get(f"link news {entry.key}", (None, None))
    return Shown(_missing(link), news if text == link.text else None)


def copier(entry: Entry, link: Shown) -> None:
    """A button that copies the address with the draft in it, and what is missing from it, if anything."""
    _button(data={"run": entry.label}, key="copy link")
    if link.missing:
        st.caption(f"{link.missing} Save the recipe to share all of it.")


def show_news(link: Shown) -> None:
    """What became of the recipe that the address held, until the draft is changed."""
    if isinstance(link.news, RecipeError):
        empty.show_error(link.news, "The recipe in this link cannot be used; the usual steps are shown instead")
    elif link.news is not None:
        st.info(link.news, icon=":material/link:")


def _take(entry: Entry, run: Run, told: str, *, quiet: bool) -> None:
    """Puts the address's recipe in the draft's place. quiet: what cannot be used changes nothing and is not told."""
    news: RecipeError | str | None = None
    remembered = st.session_state.get(f"links {entry.key}", {}).get(told)
    try:
        if remembered is not None or not told:
            recipes.replace_draft(entry, recipes.suggestion(run) if remembered is None else remembered)
        elif drafts.is_name(told):
            kept = drafts.read(told, entry.label)
            recipes.replace_draft(entry, list(parse_recipe(kept, "link", run.metrics, folder=run.recipes_dir).steps))
        else:
            offered: dict[str, Any] = {"run": entry.label, "metrics": run.metrics, "lists": lists.known(run)}
            arrived = recipe_link.decode_link(told, folder=run.recipes_dir, **offered)
            recipes.replace_draft(entry, list(arrived.steps))
            news = _missing(RecipeLink(told, arrived.hand, arrived.lists)) or None
    except RecipeError as error:
        news = None if quiet else error
    st.session_state[f"link news {entry.key}"] = _link(entry, run).text, news


def _link(entry: Entry, run: Run) -> RecipeLink:
    """The draft as the address holds it; "" for the suggestion."""
    steps = list(recipes.draft(entry, run).values())
    if steps == recipes.suggestion(run):
        return RecipeLink("")
    named = any(isinstance(step, Intersect | Union | Subtract) for step in steps)
    link = recipe_link.encode_link(steps, run=entry.label, lists=lists.known(run) if named else ())
    whole = link.text is not None and not link.hand and not link.lists
    kept = None if whole else drafts.keep(entry.label, recipes.as_yaml(steps))
    return RecipeLink(kept) if kept else link


def _remember(entry: Entry, link: RecipeLink, steps: list[AnyStep]) -> None:
    """Keeps what a link stood for in this session, also what it had to leave out."""
    if link.text is not None:
        known = {**st.session_state.get(f"links {entry.key}", {}), link.text: steps}
        st.session_state[f"links {entry.key}"] = dict(list(known.items())[-_MOST_REMEMBERED:])


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


def _went_back() -> bool:
    """Whether the browser's Back or Forward led here."""
    context = get_script_run_ctx()
    return bool(context and context.is_history_navigation)
