"""How are overlaps and changes laid out? As quiet tables; the shade of a cell says what its number says."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import streamlit as st

from clipsel_core.curation.recipes.recipe import Change
from clipsel_core.curation.selecting.overlap import Overlap
from pages.parts import facts, recipes, words

_MEASURES = {
    "pairs": "Pairs in both of two selections",
    "share of the row": "Of each selection's pairs, the share that another has, too",
    "Jaccard": "Pairs in both, as a share of the pairs in either (Jaccard)",
}


def show(labels: Sequence[str], found: Overlap) -> None:
    """The matrix of what each two share, as a count or as a share."""
    measure = st.segmented_control(
        "Measure",
        list(_MEASURES),
        default="pairs",
        required=True,
        key="measure",
        label_visibility="collapsed",
        bind="query-params",
    )
    facts.show_title(_MEASURES[measure], "stronger colour is more in common")
    shares = found.jaccard if measure == "Jaccard" else found.of_row
    head = "".join(f"<th>{html.escape(label)}</th>" for label in labels)
    rows = [
        f'<tr><th>{html.escape(label)}</th><td data-of="pairs">{words.count(found.sizes[i])}</td>'
        + "".join(_cell(found, shares, measure, i, j, other) for j, other in enumerate(labels))
        + "</tr>"
        for i, label in enumerate(labels)
    ]
    st.html(
        f'<div class="matrix"><table><thead><tr><th></th><th>pairs</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def show_changes(first: str, second: str, changes: Sequence[Change]) -> None:
    """Two recipes side by side, a row for each of their steps."""
    differing = sum(change.kind != "same" for change in changes)
    said = "the same steps" if not differing else f"{differing} of {len(changes)} steps differ"
    facts.show_title("Step by step", said)
    rows = "".join(_row(change) for change in changes)
    st.html(
        f'<div class="matrix changes"><table><thead><tr><th></th><th>{html.escape(first)}</th>'
        f"<th>{html.escape(second)}</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(found: Overlap, shares: np.ndarray, measure: str, i: int, j: int, other: str) -> str:
    """What two selections share. data-of: the column's name, for screens that have no room for columns."""
    share = float(shares[i, j])
    text = words.count(found.both[i, j]) if measure == "pairs" else _percent(share)
    if i == j:
        return f'<td class="self">{text}</td>'
    part = 0 if np.isnan(share) else 100 * share
    return f'<td data-of="with {html.escape(other)}" style="--part:{part:.0f}%">{text}</td>'


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else words.percentage(share)


def _row(change: Change) -> str:
    sign = "" if change.kind == "same" else change.kind
    return (
        f'<tr class="{change.kind}"><td>{sign}</td><td>{_step(change.before)}</td><td>{_step(change.after)}</td></tr>'
    )


def _step(step) -> str:
    return html.escape(recipes.step_in_words(step)) if step is not None else ""
