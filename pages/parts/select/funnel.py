"""Where do the pairs go? From the pool through each step to what is kept, with what each step alone would drop."""

from __future__ import annotations

import html

import streamlit as st

from clipsel_core.counts import things_of
from clipsel_core.curation.recipes.recipe import AnyStep
from clipsel_core.curation.selecting.selection import Selection
from pages.parts import recipes, words


def show_kept(picked: Selection) -> None:
    """Says how many pairs are kept: exactly those that an export writes."""
    things, share = things_of(len(picked), "pairs"), words.share(len(picked), picked.total)
    st.html(
        f'<div class="headline" id="kept"><b>{words.count(len(picked))}</b>'
        f"<span>{things} kept · {share} of {words.count(picked.total)}</span></div>"
    )


def show_funnel(picked: Selection, steps: list[AnyStep]) -> None:
    """Draws a bar for the pool and one for each step, with counts and percent of the pool."""
    aside = f"{words.count(picked.set_aside)} set aside when they were scored: never kept" if picked.set_aside else ""
    rows = [_row("pool", picked.total, picked.total, aside)]
    applied = [step for step in steps if step.enabled]
    for report, step in zip(picked.report, applied, strict=True):
        added = f", adds {words.count(report.added)}" if report.added else ""
        note = f"drops {words.count(report.dropped)}{added}; alone it would drop {words.count(report.alone_drops)}"
        rows.append(_row(recipes.step_in_words(step), report.kept_after, picked.total, note))
    st.html(f'<div class="funnel">{"".join(rows)}</div>')


def _row(label: str, kept: int, total: int, note: str) -> str:
    width = 100 * kept / total if total else 0
    return (
        f'<div class="row"><div class="label"><span>{html.escape(label)}</span>'
        f"<b>{words.count(kept)}</b><i>{words.share(kept, total)}</i></div>"
        f'<div class="track"><div class="fill" style="width:{width:.2f}%"></div></div>'
        f'<div class="note">{html.escape(note)}</div></div>'
    )
