"""How far does another run of the pool agree with this one? Rank by rank, at equal size, and pair by pair."""

from __future__ import annotations

import html
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from clipsel_core.counts import counted
from clipsel_core.curation.exploring import agreement
from clipsel_core.curation.exploring.agreement import Agreement, Alignment
from clipsel_core.curation.index import bitmaps
from clipsel_core.errors import ClipselError
from clipsel_core.runs.store import Run
from pages.parts import catalog, charts, commands, empty, facts, metrics, opening, state, unreadable, watching, words
from pages.parts.catalog import Entry
from pages.parts.compare.ranking import Ranking
from pages.parts.pair import galleries

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

_SIZES = (10, 30, 50)
_COLUMNS = ("pairs", "Spearman", *(f"top {size} %" for size in _SIZES))
_USUAL = 30
_SETTINGS = {
    "arch": "Teacher",
    "temperature": "Temperature",
    "batch_size": "Batch size B",
    "divisions": "Divisions K",
    "seed": "Seed",
    "precision": "Precision",
    "device": "Device",
    "pairs": "Pairs",
}


def show(entry: Entry) -> None:
    """The page's part about another run."""
    others = _others(entry)
    if not others:
        _nobody(entry)
        return
    other = _choose(others)
    _settings(state.open_run(entry), state.open_run(other))
    names = [name for name in state.open_run(entry).metrics if name in state.open_run(other).metrics]
    if not opening.is_open(other, "the other run", stopped="Stopped: the runs cannot be compared without."):
        return
    try:
        work = _ranking(entry, other, state.scores_stamp(entry), state.scores_stamp(other))
    except ClipselError as error:
        empty.show_error(error, "The other run cannot be compared")
        return
    work.work.begin()
    if isinstance(work.work.error, ClipselError):
        empty.show_error(work.work.error, "The other run cannot be compared")
        return
    if work.work.error:
        raise work.work.error
    if not names or (work.alignment and not work.alignment.shared):
        why = "Runs are compared where both scored the same pairs: these have no uid in common. Choose another run."
        empty.show_empty("No pair in common", why)
        return
    if work.alignment:
        _note(work.alignment)
    unreadable.fragment(_table, run_every=watching.SECONDS if work.work.active else None)(work, names, work.known)
    if work.alignment:
        _tops(entry, other, work, work.alignment, names)


def _choose(others: list[Entry]) -> Entry:
    labels = [other.label for other in others]
    if st.session_state.get("rival", labels[0]) not in labels:
        del st.session_state["rival"]
    shared: dict[str, Any] = {"bind": "query-params", "on_change": galleries.rewind}
    chosen = st.selectbox("Against the run", labels, key="rival", width=360, **shared)
    return others[labels.index(chosen)]


def _others(entry: Entry) -> list[Entry]:
    """Runs with a finished shard, those of the same pool first."""
    mine, found = state.open_run(entry).pool_root, []
    for other in catalog.entries():
        try:
            if other.key != entry.key and state.open_run(other).score_files:
                found.append((state.open_run(other).pool_root != mine, other))
        except ClipselError:
            # A run that cannot be read is told about where it is opened.
            continue
    return [other for _, other in sorted(found, key=lambda item: item[0])]


def _nobody(entry: Entry) -> None:
    run = state.open_run(entry)
    again = commands.command("score", run.pool_root, f"{run.root}-seed1", "--arch", run.config.arch, "--seed", 1)
    why = "Score the pool again with another seed, teacher, temperature, batch size or number of divisions."
    empty.show_empty("No other run to compare with", why, again)


def _settings(mine: Run, theirs: Run) -> None:
    """What the two runs were scored with, as far as they differ."""
    pairs = {title: (getattr(mine.config, name), getattr(theirs.config, name)) for name, title in _SETTINGS.items()}
    said = {
        title: f"{_said(first)} here, {_said(second)} there"
        for title, (first, second) in pairs.items()
        if first != second
    }
    facts.show_facts(said or {"Settings": "the same in both runs"})


def _said(setting: object) -> str:
    return words.count(setting) if isinstance(setting, int) else str(setting)


def _note(alignment: Alignment) -> None:
    if alignment.rows is None:
        facts.show_note(f"The same {words.pairs(alignment.shared)}, in the same order.")
    else:
        here, there = (words.count(len(table) - alignment.shared) for table in (alignment.first, alignment.second))
        shared = words.pairs(alignment.shared)
        facts.show_note(f"{shared} in both, matched by uid; {here} only here, {there} only there.")


def _table(work: Ranking, names: list[str], known: tuple) -> None:
    """A row a metric: rank correlation, and what the tops of both share. known: what was, when the page was drawn."""
    if work.known != known:
        st.rerun()
    facts.show_title("Agreement by metric", "rank correlation (Spearman), and the share of the top that is the same")
    head = "".join(f"<th>{title}</th>" for title in _COLUMNS)
    body = "".join(_row(name, work.found.get(name)) for name in names)
    st.html(f'<div class="matrix"><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>')
    ranked = sum(name in work.found for name in names)
    stopped = f"Stopped: {words.count(ranked)} of {counted(len(names), 'metrics')} are ranked."
    watching.bar(work.work, key="rank", stopped=stopped)


def _row(name: str, found: Agreement | None) -> str:
    title = f"<th>{html.escape(metrics.title(name))}</th>"
    if found is None:
        waiting = "".join(_cell(math.nan, "…", column) for column in _COLUMNS[1:])
        return f"<tr>{title}<td></td>{waiting}</tr>"
    shares = [float(found.overlap[size - 1]) for size in _SIZES]
    parts = [found.spearman, *shares]
    texts = [f"{found.spearman:.4f}", *map(words.percentage, shares)]
    cells = [
        _cell(part, "–" if math.isnan(part) else text, column)
        for part, text, column in zip(parts, texts, _COLUMNS[1:], strict=True)
    ]
    return f'<tr>{title}<td data-of="{_COLUMNS[0]}">{words.count(found.pairs)}</td>{"".join(cells)}</tr>'


def _cell(share: float, text: str, column: str) -> str:
    """A share with its shade, none where it is NaN. column: its name, for screens that have no room for columns."""
    part = 0 if math.isnan(share) else 100 * max(share, 0)
    return f'<td data-of="{column}" style="--part:{part:.0f}%">{text}</td>'


def _tops(entry: Entry, other: Entry, work: Ranking, alignment: Alignment, names: list[str]) -> None:
    """One metric closely: the overlap at every size, and the pairs that the two tops do not share."""
    left, right = st.columns([1, 2], gap="large")
    with left:
        # The usual one first: what a page begins with is not in its link.
        first = sorted(names, key=lambda name: name != "s_cliploss")
        name = st.selectbox(
            "Metric", first, format_func=metrics.title, key="ranked", bind="query-params", on_change=_resort
        )
        shared: dict[str, Any] = {"bind": "query-params", "on_change": galleries.rewind}
        percent = st.slider("Top share", 1, 99, _USUAL, format="%d %%", key="top", **shared)
    found = work.found.get(name)
    if found is not None and not found.pairs:
        with right:
            empty.show_empty(
                "No pair scored by both", f"No pair has a {metrics.title(name)} in both. Choose another metric."
            )
        return
    if found is not None:
        _closely(left, right, found, name, percent)
    stamps = state.scores_stamp(entry), state.scores_stamp(other)
    mine, theirs = _top_bits(entry, other, *stamps, name, percent, alignment)
    _parts(entry, (entry, other, stamps, name, percent), (mine, theirs), name, percent)


def _closely(left: DeltaGenerator, right: DeltaGenerator, found: Agreement, name: str, percent: int) -> None:
    with left:
        share = found.overlap[percent - 1]
        said = "none" if np.isnan(share) else words.percentage(share)
        facts.show_facts({f"Same in both top {percent} %": said, "Rank correlation": f"{found.spearman:.4f}"})
    with right:
        facts.show_title(f"What the tops by {metrics.title(name)} share", "at every size; the line is the top share")
        charts.overlap_curve(np.array(agreement.PERCENTS), 100 * found.overlap, percent)


def _parts(entry: Entry, about: tuple, tops: tuple[np.ndarray, np.ndarray], name: str, percent: int) -> None:
    """The pairs of one top and not the other, and of both."""
    mine, theirs = tops
    bits = (mine & ~theirs, mine & theirs, theirs & ~mine)
    counts = [bitmaps.count(part) for part in bits]
    part = galleries.choose_part(counts, key="part")
    title = (
        f"In this run's top {percent} % by {metrics.title(name)}, and not in the other's",
        f"In both runs' top {percent} % by {metrics.title(name)}",
        f"In the other run's top {percent} % by {metrics.title(name)}, and not in this one's",
    )[part]
    galleries.draw_sorted(entry, counts[part], lambda: bits[part], name=(part, *about), title=title, usual=name)


def _resort() -> None:
    galleries.sort_by(st.session_state["ranked"])


@st.cache_resource(max_entries=2, show_spinner=False)
def _ranking(entry: Entry, other: Entry, stamp: state.Stamp, other_stamp: state.Stamp) -> Ranking:
    """The work that all sessions watch which compare these two."""
    return Ranking(state.open_table(entry), state.open_table(other))


@st.cache_resource(max_entries=2, show_spinner=False)
def _top_bits(
    entry: Entry,
    other: Entry,
    stamp: state.Stamp,
    other_stamp: state.Stamp,
    metric: str,
    percent: int,
    _alignment: Alignment,
) -> tuple[np.ndarray, np.ndarray]:
    mine, theirs = agreement.tops(_alignment, metric, Fraction(percent, 100))
    return bitmaps.pack(mine), bitmaps.pack(theirs)
