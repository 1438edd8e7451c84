"""How are many pairs looked at and decided on? As a gallery, page by page; all are kept or dropped at once.

Every gallery that has pages is drawn here, so that the pager, the keyboard and an opened pair go through all alike. Of
the part of a chart that is marked a few pairs are shown, drawn at random, and a link to all.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from clipsel_core import uids
from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.metadata import Categories
from clipsel_core.curation.index.ordering import Listing, ListOrder
from clipsel_core.curation.recipes.recipe import AnyStep, Drop, Keep, Subtract, Union
from clipsel_core.curation.selecting.selection import Selection
from clipsel_core.errors import ClipselError, RunError
from clipsel_core.runs.columns import CLIP_SCORE, usual
from clipsel_core.runs.store import Run
from clipsel_core.tasks import Report, Task
from pages.parts import charts, messages, progress_bars, recipes, registry, sessions, state, words
from pages.parts.catalog import Entry
from pages.parts.charts import Chart
from pages.parts.gallery import cards, contents, pager
from pages.parts.jobs import dialogs, forms
from pages.parts.pair import pair
from pages.parts.sessions import PairList

# So many uids are written into the recipe itself; more go into a list beside it.
_MOST_INLINE = 100
_FAILED = "step not written"
# What was done at the last press. Said when the buttons are drawn: in a callback of a fragment nothing can be.
_DONE = "pairs taken into the recipe"
_PARTS = ("only this one", "both", "only the other")
_ORDERS: dict[str, ListOrder] = {"highest": "descending", "lowest": "ascending", "random": "random"}
# A page has one sorted gallery at a time, so that the link can hold how it is sorted and where it is opened.
_METRIC, _ORDER, _PAGE, _CARDS = "sort", "end", "at", 48
_MARKED_CARDS = 12


def draw_gallery(
    entry: Entry,
    listed: PairList,
    metric: str,
    *,
    key: str,
    title: str,
    page: int = 1,
    pager_key: str = "",
    keeps: state.Keeps | None = None,
    more: Sequence[str] = (),
    also: cards.Bars = (),
    small: bool = False,
) -> None:
    """Draws a page, from 1, of a list of pairs as cards with a metric, and opens the one that is clicked.

    title: what is listed, for who cannot see it. pager_key: of the pager that the caller drew; none where there is one
    page. keeps: tells which pairs are kept, for the badge. more: further metrics on the cards. also: bars behind these,
    a tuple a card. small: whether more cards stand in a row.
    """
    rows, pages, first = listed.rows(page), pager.count_pages(listed), (page - 1) * listed.size
    bars = cards.score_bars(entry, rows, [metric, *more])
    if also:
        bars = [(*scores, *last) for scores, last in zip(bars, also, strict=True)]
    drawn = cards.make_cards(entry, rows, bars, keeps)
    view, gallery = sessions.get(sessions.Pairs), (entry.key, key)
    at = view.last[1] - first if view.last is not None and view.last[0] == gallery else -1
    turned = partial(pager.turn, pager_key, pages) if pager_key else None

    def ask_to_open(uid: str) -> None:
        view.to_open[key] = uid

    cards.draw_cards(
        drawn,
        key=key,
        label=f"{title}, page {page} of {pages}" if pager_key else title,
        pressed=partial(cards.handle_presses, entry, key, ask_to_open, turned),
        turns=turned is not None,
        small=small,
        at=at if 0 <= at < len(rows) else None,
    )
    names, asked = [card.uid for card in drawn], view.to_open.pop(key, None)
    if asked in names:
        view.opened = sessions.OpenPair(gallery, listed, first + names.index(asked))
        if pager_key:
            view.opened.look_back = partial(pager.turn_to, pager_key, listed.size)
    pair.draw_opened(entry, gallery=key)
    if page < pages:
        contents.prefetch(entry, key, partial(listed.rows, page + 1), contents.text_columns(entry))


def draw_sorted(
    entry: Entry,
    pairs: int,
    bits: Callable[[], np.ndarray],
    *,
    name: Hashable,
    title: str,
    first: str | None = None,
) -> None:
    """Draws so many pairs, those of a bitmap, by a metric from either end; the bitmap is asked for when it is new.

    name: tells the pairs from others. first: what they are sorted by at first; None for the usual one.
    """
    if not pairs:
        messages.show_empty("Nothing to show", "No pair lies in this part. Choose another one.")
        return
    names = registry.offered(entry, keys=(_METRIC,))
    shared: dict[str, Any] = {"bind": "query-params", "on_change": rewind_sorted}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        # That one first: what a page begins with is not in its link.
        first = first or usual(names)
        names.sort(key=lambda name: name != first)
        metric = st.selectbox("By", names, format_func=registry.titles(entry), key=_METRIC, width=220, **shared)
        order = st.segmented_control("First", list(_ORDERS), default="highest", required=True, key=_ORDER, **shared)
    name = (entry, metric, name, state.scores_stamp(entry))
    listed = pager.sort_pairs(name, lambda: Listing.of(state.ranking(entry, metric), bits()), _ORDERS[order], _CARDS)
    messages.show_title(title, words.pairs(pairs))
    if not len(listed):
        messages.show_note(f"None of them has a {registry.title(entry, metric)}.")
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        page = pager.choose_page(_PAGE, listed)
    draw_gallery(entry, listed, metric, key="part cards", title=title, page=page, pager_key=_PAGE)


def ask_for_part(counts: Sequence[int], *, key: str) -> int:
    """Asks which of three parts to see: only this one's pairs, both's, only the other's. counts: pairs of each."""
    part = st.segmented_control(
        "Pairs", _PARTS, default=_PARTS[0], required=True, key=key, bind="query-params", on_change=rewind_sorted
    )
    said = " · ".join(f"{name} {words.number(count)}" for name, count in zip(_PARTS, counts, strict=True))
    messages.show_note(said)
    return _PARTS.index(part)


def rewind_sorted() -> None:
    """Goes back to the first page of the sorted gallery: for whatever changes what is shown."""
    pager.rewind(_PAGE)


def sort_by(metric: str) -> None:
    """Sorts the sorted gallery by a metric from now on, from its first page."""
    st.session_state[_METRIC] = metric
    rewind_sorted()


def draw_marked_interval(
    entry: Entry,
    chart: Chart,
    bins: int,
    *,
    bits: np.ndarray | None = None,
    among: Mapping[str, str] | None = None,
    keeps: state.Keeps | None = None,
) -> None:
    """Draws pairs whose value lies in the bins that are marked; nothing where none is.

    bits: the bitmap of those that the chart shows, None for all. among: how the Gallery is asked for them. keeps: tells
    which are kept, for the badge.
    """
    part = charts.marked(chart, bins)
    if part is None:
        return
    ranking, column = state.ranking(entry, chart.column), registry.column_of(entry, chart.column)
    low, high, digits = charts.marked_interval(ranking.low, ranking.high, bins, *part)
    every = bitmaps.first(len(ranking.codes)) if bits is None else bits
    title = registry.title(entry, chart.column)
    # What is made of others when it is asked for cannot be asked for there.
    own = {"metric": title, "from": f"{low:.{digits}f}", "to": f"{high:.{digits}f}"}
    asked = {**own, **(among or {})} if column.origin != "mix" else None
    said = f"{title} from {low:,.{digits}f} to {high:,.{digits}f} {column.unit}".strip()
    _draw_marked(entry, chart, said, ranking.between(every, low, high), chart.column, asked, keeps)


def draw_marked_values(entry: Entry, chart: Chart, found: Categories, bars: int) -> None:
    """Draws pairs with one of the values whose bars, the first so many, are marked; nothing where none is."""
    part = charts.marked(chart, bars)
    if part is None:
        return
    labels = found.labels[part[0] : part[1] + 1]
    bits, named = bitmaps.pack((found.codes >= part[0]) & (found.codes <= part[1])), labels[:3]
    title, more = registry.title(entry, chart.column), len(labels) - len(named)
    said = f"{title}: {', '.join(label or '(none)' for label in named)}{f' and {more} more' if more else ''}"
    _draw_marked(
        entry,
        chart,
        said,
        bits,
        CLIP_SCORE.name,
        {"kind": title, "value": [label or "(none)" for label in labels]},
        None,
    )


def _draw_marked(
    entry: Entry,
    chart: Chart,
    title: str,
    bits: np.ndarray,
    metric: str,
    asked: dict[str, Any] | None,
    keeps: state.Keeps | None,
) -> None:
    """The cards below their title. asked: how the Gallery is asked for all of them, None where it cannot be."""
    pairs = bitmaps.pairs_in(bits)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        messages.show_title(title, words.pairs(pairs))
        if asked is not None and pairs:
            st.page_link("gallery.py", label="Open in Gallery", icon=":material/grid_view:", query_params=asked)
        st.button("Close", icon=":material/close:", key=f"unmark {chart.key}", type="tertiary", on_click=charts.unmark)
    name = (entry, chart, title, state.scores_stamp(entry))
    listed = pager.sort_pairs(name, lambda: Listing.of(state.ranking(entry, metric), bits), "random", _MARKED_CARDS)
    if len(listed):
        draw_gallery(entry, listed, metric, key=f"in {chart.key}", title=title, keeps=keeps, small=True)


def draw_actions(
    entry: Entry, run: Run, rows: np.ndarray, more: Callable[[], None] | None = None, *, called: str = "pairs"
) -> None:
    """Buttons that take many pairs into the recipe at once, or make a target of them. more: draws another one.

    called: what they are, in a few words; a list of them is named after it.
    """
    with st.container(horizontal=True, gap="small", key="actions"):
        for kind, icon in (("keep", ":material/check:"), ("drop", ":material/block:")):
            act = partial(_add_step, entry, run, rows, kind, called)
            st.button(f"{kind.capitalize()} these", icon=icon, key=f"{kind} these", on_click=act)
        if dialogs.button("Use as target", "picked", ":material/my_location:", why_not=forms.why_no_job(run)):
            forms.ask_for_pairs(run, state.open_table(entry).uids_at(rows), "picked")
        if more is not None:
            more()
    if _FAILED in st.session_state:
        messages.show_error(st.session_state.pop(_FAILED), "This could not be written")
    if _DONE in st.session_state:
        st.toast(st.session_state.pop(_DONE), icon=":material/check:")


@sessions.callback
def _add_step(entry: Entry, run: Run, rows: np.ndarray, kind: str, called: str) -> None:
    """Keeps or drops the pairs as the last step of the recipe, in place of what that one said of them."""
    names = uids.sort(state.open_table(entry).uids_at(rows))
    step: AnyStep
    try:
        if len(names) <= _MOST_INLINE:
            step = (Keep if kind == "keep" else Drop).model_validate({kind: uids.to_hex(names).to_pylist()})
        else:
            file, listed = io.BytesIO(), Union if kind == "keep" else Subtract
            np.save(file, names, allow_pickle=False)
            step = listed.model_validate({listed.kind: recipes.store_list(run, f"{called}.npy", file.getvalue())})
    except (ClipselError, OSError) as error:
        st.session_state[_FAILED] = messages.not_written(error, run.recipes_dir)
        return
    steps = recipes.draft(entry, run)
    last = next(reversed(steps), None)
    if last is not None:
        before, pairs_of = steps[last], (Keep | Drop, Union | Subtract)
        alike = any(isinstance(before, kinds) and isinstance(step, kinds) for kinds in pairs_of)
        if alike and getattr(before, before.kind) == getattr(step, step.kind):
            recipes.change_step(entry, run, last, None)
    recipes.add_step(entry, run, step)
    done = "kept by hand" if kind == "keep" else "dropped by hand"
    st.session_state[_DONE] = f"{words.pairs(len(rows))} {done}: the last step on the Select page"


def find_keeps(entry: Entry, recipe: str) -> state.Keeps | None:
    """What tells which pairs a recipe (YAML) keeps; None while that is worked out, which the page says meanwhile.

    The page draws itself anew after. None too where it does not fit the run: all else can still be looked at.
    """
    if not recipe:
        return state.keeps(entry, recipe)
    try:
        stopped = "Stopped: what the recipe keeps is not shown."
        selection = progress_bars.value_of(_selecting(entry, recipe), key="keeping", stopped=stopped)
    except ClipselError as error:
        misfit = "A step of the recipe on the Select page does not fit this run"
        messages.show_error(error, "What the recipe keeps cannot be read" if isinstance(error, RunError) else misfit)
        return None
    return None if selection is None else selection.holds


@state.per_run(8, stamp=state.recipe_stamp)
def _selecting(entry: Entry, recipe: str) -> Task[Selection]:
    """A recipe's selection being worked out, once for all sessions."""
    picker, parsed = state.open_picker(entry), state.parse(entry, recipe)

    def work(report: Report) -> Selection:
        # What is before a step is remembered, so that this takes no longer than all at once.
        for done in range(len(parsed.steps)):
            report(done, len(parsed.steps), "", "Working out what the recipe keeps …")
            selection = picker.select(parsed.model_copy(update={"steps": parsed.steps[: done + 1]}))
        selection.bits()
        return selection

    return Task(work)
