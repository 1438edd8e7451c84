"""How far does another run of the pool agree with this one? Rank by rank, at equal size, and pair by pair.

Worked out in the background, metric by metric, and kept beside the run.
"""

from __future__ import annotations

import html
import math
from fractions import Fraction
from typing import Any

import numpy as np
import streamlit as st

from clipsel_core.curation.exploring.agreement import (
    PERCENTS,
    Agreement,
    Alignment,
    agreement_file,
    align,
    measure_agreement,
    read_agreements,
    tops,
    write_agreements,
)
from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import ClipselError, counted
from clipsel_core.runs.columns import usual
from clipsel_core.runs.store import Run
from clipsel_core.tasks import Report, Task, part_of
from pages.parts import catalog, charts, messages, progress_bars, registry, sessions, state, words
from pages.parts.catalog import Entry
from pages.parts.pair import galleries

_MATCHING = 0.2  # the share of the work that matching the pairs takes
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


def compare_runs(entry: Entry) -> None:
    """Draws how far another run agrees with this one, and the pairs that only one of them ranks high."""
    run, others = state.open_run(entry), _others(entry)
    if not others:
        again = messages.command("score", run.pool_address, f"{run.root}-seed1", "--arch", run.config.arch, "--seed", 1)
        why = "Score the pool again with another seed, teacher, temperature, batch size or number of divisions."
        messages.show_empty("No other run to compare with", why, again)
        return
    labels = [other.label for other in others]
    if st.session_state.get("rival", labels[0]) not in labels:
        del st.session_state["rival"]
    linked: dict[str, Any] = {"bind": "query-params", "on_change": galleries.rewind_sorted}
    other = others[labels.index(st.selectbox("Against the run", labels, key="rival", width=360, **linked))]
    _show_settings(run, state.open_run(other))
    if not progress_bars.is_open(other, "the other run", stopped="Stopped: the runs cannot be compared without."):
        return
    try:
        work = _agreements(entry, other)
        work.task.begin()
        if work.task.error:
            raise work.task.error
    except ClipselError as error:
        messages.show_error(error, "The other run cannot be compared")
        return
    # First: what comes in while the rest is drawn has the table draw the page anew.
    known = work.known
    alignment, names = work.alignment, work.names
    if not names or (alignment and not alignment.shared):
        why = "Runs are compared where both scored the same pairs: these have no uid in common. Choose another run."
        messages.show_empty("No pair in common", why)
        return
    if alignment:
        shared = words.pairs(alignment.shared)
        here, there = (words.number(len(table) - alignment.shared) for table in (alignment.first, alignment.second))
        by_uid = f"{shared} in both, matched by uid; {here} only here, {there} only there."
        messages.show_note(f"The same {shared}, in the same order." if alignment.rows is None else by_uid)
    sessions.fragment(_table, run_every=progress_bars.SECONDS if work.task.active else None)(entry, work, names, known)
    if alignment:
        _compare_tops(entry, other, work, names)


def _others(entry: Entry) -> list[Entry]:
    """Runs with a finished shard, those of the same pool first."""
    mine, found = state.open_run(entry).pool_address, []
    for other in catalog.entries():
        try:
            if other.key != entry.key and state.open_run(other).score_files:
                found.append((state.open_run(other).pool_address != mine, other))
        except ClipselError:
            # A run that cannot be read is told about where it is opened.
            continue
    return [other for _, other in sorted(found, key=lambda item: item[0])]


def _show_settings(mine: Run, theirs: Run) -> None:
    """What the two runs were scored with, as far as they differ."""
    said = {}
    for name, title in _SETTINGS.items():
        here, there = (
            words.number(value) if isinstance(value, int) else str(value)
            for value in (getattr(run.config, name) for run in (mine, theirs))
        )
        if here != there:
            said[title] = f"{here} here, {there} there"
    messages.show_facts(said or {"Settings": "the same in both runs"})


def _table(entry: Entry, work: Agreements, names: list[str], known: tuple) -> None:
    """A row a metric: rank correlation, and what the tops of both share. known: what was, when the page was drawn."""
    if work.known != known:
        st.rerun()
    messages.show_title("Agreement by metric", "rank correlation (Spearman), and the share of the top that is the same")
    head = "".join(f"<th>{title}</th>" for title in _COLUMNS)
    rows, titles = [], registry.titles(entry)
    for name in names:
        title, found = f"<th>{html.escape(titles(name))}</th>", work.found.get(name)
        if found is None:
            waiting = "".join(_cell(math.nan, "…", column) for column in _COLUMNS[1:])
            rows.append(f"<tr>{title}<td></td>{waiting}</tr>")
            continue
        shares = [float(found.overlap[size - 1]) for size in _SIZES]
        texts = [f"{found.spearman:.4f}", *map(words.percentage, shares)]
        cells = [
            _cell(part, "–" if math.isnan(part) else text, column)
            for part, text, column in zip([found.spearman, *shares], texts, _COLUMNS[1:], strict=True)
        ]
        rows.append(f'<tr>{title}<td data-of="{_COLUMNS[0]}">{words.number(found.pairs)}</td>{"".join(cells)}</tr>')
    body = "".join(rows)
    st.html(f'<div class="matrix"><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>')
    ranked = sum(name in work.found for name in names)
    stopped = f"Stopped: {words.number(ranked)} of {counted(len(names), 'metrics')} are ranked."
    progress_bars.draw_bar(work.task, key="rank", stopped=stopped)


def _cell(share: float, text: str, column: str) -> str:
    """A share with its shade, none where it is NaN. column: its name, for screens that have no room for columns."""
    part = 0 if math.isnan(share) else 100 * max(share, 0)
    return f'<td data-of="{column}" style="--part:{part:.0f}%">{text}</td>'


def _compare_tops(entry: Entry, other: Entry, work: Agreements, names: list[str]) -> None:
    """One metric closely: the overlap at every size, and the pairs that the two tops do not share."""
    left, right = st.columns([1, 2], gap="large")
    linked: dict[str, Any] = {"bind": "query-params"}

    def sort_parts() -> None:
        galleries.sort_by(st.session_state["ranked"])

    with left:
        # The usual one first: what a page begins with is not in its link.
        first = sorted(names, key=lambda name: name != usual(names))
        name = st.selectbox(
            "Metric", first, format_func=registry.titles(entry), key="ranked", on_change=sort_parts, **linked
        )
        size: dict[str, Any] = {"format": "%d %%", "key": "top", "on_change": galleries.rewind_sorted}
        percent = st.slider("Top share", 1, 99, _USUAL, **size, **linked)
    found, title = work.found.get(name), registry.title(entry, name)
    if found is not None and not found.pairs:
        with right:
            messages.show_empty("No pair scored by both", f"No pair has a {title} in both. Choose another metric.")
        return
    if found is not None:
        with left:
            share = found.overlap[percent - 1]
            same = "none" if np.isnan(share) else words.percentage(share)
            said = {f"Same in both top {percent} %": same, "Rank correlation": f"{found.spearman:.4f}"}
            messages.show_facts(said)
        with right:
            messages.show_title(f"What the tops by {title} share", "at every size; the line is the top share")
            charts.draw_overlap_curve(np.array(PERCENTS), 100 * found.overlap, percent)
    mine, theirs = _top_bits(entry, other, name, percent, work)
    bits = (mine & ~theirs, mine & theirs, theirs & ~mine)
    counts = [bitmaps.pairs_in(part) for part in bits]
    part = galleries.ask_for_part(counts, key="part")
    of_part = (
        f"In this run's top {percent} % by {title}, and not in the other's",
        f"In both runs' top {percent} % by {title}",
        f"In the other run's top {percent} % by {title}, and not in this one's",
    )[part]
    about = (part, entry, other, _stamps(entry, other), name, percent)
    galleries.draw_sorted(entry, counts[part], lambda: bits[part], name=about, title=of_part, first=name)


def _stamps(entry: Entry, other: Entry, *_: object) -> tuple[state.Stamp, state.Stamp]:
    return state.scores_stamp(entry), state.scores_stamp(other)


@state.per_run(2, stamp=_stamps)
def _agreements(entry: Entry, other: Entry) -> Agreements:
    """The work that all sessions watch which compare these two."""
    return Agreements(state.open_table(entry), state.open_table(other))


class Agreements:
    """Two runs being compared. names: the columns of numbers that both have. found: what is known of each, by name.

    alignment: their pairs matched, once that is done. task: what finds the rest.
    """

    def __init__(self, first: ScoreTable, second: ScoreTable) -> None:
        self.alignment: Alignment | None = None
        self._tables = first, second
        # What two runs of one pool have from its table is the same in both.
        is_one_pool = first.run.pool_root.absolute() == second.run.pool_root.absolute()
        known = [table.run.columns if is_one_pool else table.columns for table in self._tables]
        self.names = [name for name in known[0] if all(name in of and of[name].is_number for of in known)]
        self._kept = agreement_file(first.run, second.run)
        self.found: dict[str, Agreement] = read_agreements(self._kept)
        self.task = Task(self._do)

    @property
    def known(self) -> tuple:
        """Changes with whatever a page shows of it, but for the share that is done."""
        return self.alignment is not None, len(self.found), self.task.active, self.task.stopped

    def _do(self, report: Report) -> None:
        if self.alignment is None:
            told = part_of(report, 0, _MATCHING, "Matching the pairs of both runs …")
            self.alignment = align(*self._tables, told)
        # The one that is looked at first comes first.
        names = sorted(self.names, key=lambda name: name != usual(self.names))
        missing = [name for name in names if name not in self.found] if self.alignment.shared else []
        titles = self._tables[0].columns
        steps = np.linspace(_MATCHING, 1, len(missing) + 1)
        for name, first, last in zip(missing, steps, steps[1:], strict=False):
            told = part_of(report, first, last, f"Ranking both runs by {titles[name].shown} …")
            told(0, 1)
            self.found = {**self.found, name: measure_agreement(self.alignment, name, told)}
            write_agreements(self._kept, self.found)


@state.per_run(2, stamp=_stamps)
def _top_bits(entry: Entry, other: Entry, metric: str, percent: int, work: Agreements) -> tuple[np.ndarray, np.ndarray]:
    assert work.alignment is not None
    mine, theirs = tops(work.alignment, metric, Fraction(percent, 100))
    return bitmaps.pack(mine), bitmaps.pack(theirs)
