"""How far does another run of the pool agree with this one? Rank by rank, at equal size, and pair by pair."""

from __future__ import annotations

import html
from fractions import Fraction

import numpy as np
import streamlit as st

from clipsel_core.curation import agreement
from clipsel_core.curation.agreement import Agreement, Alignment
from clipsel_core.errors import ClipselError
from clipsel_core.runs.store import Run
from pages.parts import catalog, charts, commands, empty, facts, metrics, part_gallery, state, words
from pages.parts.catalog import Entry

_SIZES = (10, 30, 50)
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
    labels = [other.label for other in others]
    if st.session_state.get("rival") not in labels:
        st.session_state["rival"] = labels[0]
    chosen = st.selectbox("Against the run", labels, key="rival", persist_state="session", width=360)
    other = others[labels.index(chosen)]
    try:
        alignment = _alignment(entry, other, state.scores_stamp(entry), state.scores_stamp(other))
    except ClipselError as error:
        empty.show_error(error, "The other run cannot be compared")
        return
    _settings(state.open_run(entry), state.open_run(other))
    shared = [name for name in alignment.first.metrics if name in alignment.second.metrics]
    if not alignment.shared or not shared:
        why = "Runs can be compared where they scored the same pairs: the uids of these two have nothing in common."
        empty.show_empty("No pair in common", why)
        return
    _note(alignment)
    _table(entry, other, shared)
    _tops(entry, other, alignment, shared)


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
    said = {title: f"{first} here, {second} there" for title, (first, second) in pairs.items() if first != second}
    facts.show_facts(said or {"Settings": "the same in both runs"})


def _note(alignment: Alignment) -> None:
    if alignment.rows is None:
        facts.show_note(f"The same {words.pairs(alignment.shared)}, in the same order.")
    else:
        here, there = (words.count(len(table) - alignment.shared) for table in (alignment.first, alignment.second))
        shared = words.pairs(alignment.shared)
        facts.show_note(f"{shared} in both, matched by uid; {here} only here, {there} only there.")


def _table(entry: Entry, other: Entry, names: list[str]) -> None:
    """A row a metric: rank correlation, and what the tops of both share."""
    stamps = state.scores_stamp(entry), state.scores_stamp(other)
    key, rows = f"ranked {hash((entry, other, stamps))}", []
    bar = st.empty()
    for place, name in enumerate(names):
        if key not in st.session_state:
            bar.progress(place / len(names), f"Ranking both runs by {metrics.title(name)} …")
        rows.append(_row(name, _agreement(entry, other, *stamps, name)))
    bar.empty()
    st.session_state[key] = True
    facts.show_title("Agreement by metric", "rank correlation (Spearman), and the share of the top that is the same")
    head = "".join(f"<th>{title}</th>" for title in ("pairs", "Spearman", *(f"top {size} %" for size in _SIZES)))
    body = "".join(rows)
    st.html(f'<div class="matrix"><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>')


def _row(name: str, found: Agreement) -> str:
    shares = [float(found.overlap[size - 1]) for size in _SIZES]
    cells = [_cell(found.spearman, f"{found.spearman:.4f}"), *(_cell(part, f"{100 * part:.1f} %") for part in shares)]
    return f"<tr><th>{html.escape(metrics.title(name))}</th><td>{words.count(found.pairs)}</td>{''.join(cells)}</tr>"


def _cell(share: float, text: str) -> str:
    if np.isnan(share):
        return "<td>–</td>"  # noqa: RUF001
    return f'<td style="--part:{100 * max(share, 0):.0f}%">{text}</td>'


def _tops(entry: Entry, other: Entry, alignment: Alignment, names: list[str]) -> None:
    """One metric closely: the overlap at every size, and the pairs that the two tops do not share."""
    left, right = st.columns([1, 2], gap="large")
    with left:
        usual = names.index("s_cliploss") if "s_cliploss" in names else 0
        chosen = {"key": "rival metric", "persist_state": "session"}
        name = st.selectbox("Metric", names, usual, metrics.title, **chosen)
        percent = st.slider("Top share", 1, 99, _USUAL, format="%d %%", key="rival share", persist_state="session")
    stamps = state.scores_stamp(entry), state.scores_stamp(other)
    found = _agreement(entry, other, *stamps, name)
    if not found.pairs:
        with right:
            empty.show_empty("No pair scored by both", f"No pair has a {metrics.title(name)} in both runs.")
        return
    with left:
        share = found.overlap[percent - 1]
        said = "none" if np.isnan(share) else f"{100 * share:.1f} %"
        facts.show_facts({f"Same in both top {percent} %": said, "Rank correlation": f"{found.spearman:.4f}"})
    with right:
        facts.show_title(f"What the tops by {metrics.title(name)} share", "at every size; the line is the top share")
        charts.overlap_curve(np.array(agreement.PERCENTS), 100 * found.overlap, percent)
    mine, theirs = _masks(entry, other, *stamps, name, percent)
    masks = (mine & ~theirs, mine & theirs, theirs & ~mine)
    part = part_gallery.choose_part([int(np.count_nonzero(mask)) for mask in masks], key="rival part")
    title = (
        f"In this run's top {percent} % by {metrics.title(name)}, and not in the other's",
        f"In both runs' top {percent} % by {metrics.title(name)}",
        f"In the other run's top {percent} % by {metrics.title(name)}, and not in this one's",
    )[part]
    part_gallery.show(entry, masks[part], key=f"rival {part}", title=title, usual=name)


@st.cache_resource(max_entries=4, show_spinner="Matching the pairs of both runs …")
def _alignment(entry: Entry, other: Entry, stamp: state.Stamp, other_stamp: state.Stamp) -> Alignment:
    return agreement.align(state.open_table(entry), state.open_table(other))


@st.cache_resource(max_entries=64, show_spinner=False)
def _agreement(entry: Entry, other: Entry, stamp: state.Stamp, other_stamp: state.Stamp, metric: str) -> Agreement:
    return agreement.agreement(_alignment(entry, other, stamp, other_stamp), metric)


@st.cache_resource(max_entries=4, show_spinner=False)
def _masks(
    entry: Entry, other: Entry, stamp: state.Stamp, other_stamp: state.Stamp, metric: str, percent: int
) -> tuple[np.ndarray, np.ndarray]:
    return agreement.tops(_alignment(entry, other, stamp, other_stamp), metric, Fraction(percent, 100))
