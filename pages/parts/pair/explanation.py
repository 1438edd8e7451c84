"""Why has one pair its scores, and why is it kept or dropped? Ranks on histograms, the normalizer's part, each step."""

from __future__ import annotations

import html
import math

import numpy as np
import streamlit as st

from clipsel_core.curation.index import ranking
from clipsel_core.curation.recipes.recipe import (
    AnyOf,
    AtMost,
    Drop,
    FilterStep,
    Intersect,
    Keep,
    KeepBottom,
    Random,
    Sample,
    Union,
)
from clipsel_core.curation.selecting.selection import Judged, judge_pair
from clipsel_core.errors import ClipselError
from clipsel_core.runs.columns import CLIP_SCORE, R_IMAGE, R_TEXT, S_CLIPLOSS
from pages.parts import messages, recipes, registry, state, words
from pages.parts.catalog import Entry
from pages.parts.component import component

_BINS = 64
_scores = component(
    "scores",
    '<div class="scores"></div>',
    css=("histogram.css", "pair/scores.css"),
    js=("make.js", "plot.js", "pair/scores.js"),
)
_PARTS = (CLIP_SCORE.name, R_IMAGE.name, R_TEXT.name, S_CLIPLOSS.name)


def draw_scores(entry: Entry, row: int) -> None:
    """Draws a pair's score and rank by every metric of the run, and what the normalizer took."""
    table = state.open_table(entry)
    found = {name: float(table.take(name, np.array([row]))[0]) for name in registry.own_numbers(entry)}
    parts = [found.get(name, np.nan) for name in _PARTS]
    waterfall = _waterfall(entry, *parts) if np.isfinite(parts).all() else None
    scores = []
    for name, value in found.items():
        metric, spread = registry.column_of(entry, name), registry.marginal(entry, name)
        edges, counts = spread.coarse(_BINS)
        known = {
            "title": registry.title(entry, name),
            "help": metric.help,
            "value": words.decimal(value),
            "counts": counts.tolist(),
        }
        if not np.isfinite(value):
            scores.append({**known, "rank": "not scored", "percentile": "", "at": None})
            continue
        rank = ranking.standing(state.ranking(entry, name), value)
        known["rank"] = f"{words.number(rank.rank)} of {words.number(rank.scored)}"
        known["percentile"] = "all alike" if spread.alike else words.percentile(rank.percentile)
        scores.append({**known, "at": min(max((value - edges[0]) / (edges[-1] - edges[0]), 0), 1)})
    _scores(data={"scores": scores, "fall": waterfall}, key="pair scores")


def _waterfall(entry: Entry, clip_score: float, r_image: float, r_text: float, s_cliploss: float) -> dict[str, object]:
    """The waterfall from the cosine down to what is left of it, and what it means in words."""
    steps = [
        (CLIP_SCORE.title, clip_score, 0.0, clip_score, "start"),
        (f"− {R_IMAGE.title}", r_image, clip_score, clip_score - r_image, "taken"),
        (f"− {R_TEXT.title}", r_text, clip_score - r_image, clip_score - r_image - r_text, "taken"),
        (f"= {S_CLIPLOSS.title}", s_cliploss, 0.0, s_cliploss, "end"),
    ]
    low = min(0.0, *(min(start, stop) for _, _, start, stop, _ in steps))
    span = max(0.0, *(max(start, stop) for _, _, start, stop, _ in steps)) - low or 1.0
    drawn = [
        {
            "title": title,
            "value": words.decimal(value),
            "from": (min(start, stop) - low) / span,
            "to": (max(start, stop) - low) / span,
            "kind": kind,
        }
        for title, value, start, stop, kind in steps
    ]
    image, text = (registry.marginal(entry, name) for name in (R_IMAGE.name, R_TEXT.name))
    usual, taken = image.quantile(50) + text.quantile(50), r_image + r_text
    compared = "about as much as" if abs(taken - usual) < 0.005 else "more than" if taken > usual else "less than"
    said = (
        f"The normalizer took {words.decimal(taken)}, {compared} the {words.decimal(usual)} that is usual in this run. "
        f"{words.decimal(r_image)} because the image also fits other captions, "
        f"{_rank_in_words(image, r_image, 'images')}; "
        f"{words.decimal(r_text)} because the caption also fits other images, "
        f"{_rank_in_words(text, r_text, 'captions')}."
    )
    title = f"From {CLIP_SCORE.title} to {S_CLIPLOSS.title}"
    return {"title": title, "zero": -low / span, "steps": drawn, "text": said}


def _rank_in_words(spread: registry.Marginal, value: float, others: str) -> str:
    """How many of the others have less."""
    percent = spread.percentile(value)
    if not percent:
        return f"no more so than any of the {others} do"
    return f"more so than {words.percentage(percent / 100)} of the {others} do"


def show_steps(entry: Entry, row: int) -> None:
    """Draws what the recipe on the Select page does with the pair in a row, a line a step."""
    recipe = recipes.draft_yaml(entry, state.open_run(entry))
    if not recipe:
        messages.show_note("The recipe has no step: every pair is kept.")
        return
    try:
        picked = state.picked(entry, recipe)
        found = judge_pair(picked.picker, picked.recipe, row)
    except ClipselError:
        messages.show_note("A step of the recipe does not fit this run; Select says which.")
        return
    kind = "kept" if found.kept else "dropped"
    if found.set_aside:
        headline = "Set aside when it was scored: no recipe can keep it"
    elif found.decided is None:
        headline = "Kept by the recipe"
    else:
        by_hand = "hand, in " if isinstance(found.decided.step, Keep | Drop) else ""
        headline = f"{kind.capitalize()} by {by_hand}step {found.decided.number} of the recipe"
    lines = ""
    for judged in found.steps:
        sign, how = ("✓", "passes") if judged.after else ("✕", "fails")
        if not judged.before and not judged.after:
            sign, how = "–", "out"
        said, why = html.escape(recipes.step_in_words(entry, judged.step)), html.escape(_reason(judged))
        lines += f'<li class="{how}" value="{judged.number}"><span>{sign}</span><span>{said}</span><i>{why}</i></li>'
    st.html(f'<div class="verdict {kind}"><b>{html.escape(headline)}</b><ol>{lines}</ol></div>')


def _reason(judged: Judged) -> str:
    """What the pair has and what the step asks for."""
    if judged.score is None:
        if isinstance(judged.step, FilterStep | AnyOf | Random | Sample):
            return "" if judged.before else "out before"
        if isinstance(judged.step, Union | Keep):
            return "brought back" if judged.after and not judged.before else "changes nothing"
        if not judged.before:
            return "out before"
        listed = judged.after if isinstance(judged.step, Intersect) else not judged.after
        return "on the list" if listed else "not on the list"
    if math.isnan(judged.score):
        return "not scored"
    if not judged.before:
        return f"{words.decimal(judged.score)}, out before"
    if judged.threshold is None:
        return f"{words.decimal(judged.score)}, keeps none"
    score, threshold = words.decimal(judged.score), words.decimal(judged.threshold)
    if judged.score == judged.threshold and not judged.after:
        return f"{score}, a tie that went to smaller uids"
    if score == threshold:  # The digits that are usually shown do not tell them apart.
        score, threshold = f"{judged.score:.7g}", f"{judged.threshold:.7g}"
    passes, fails = ("≤", ">") if isinstance(judged.step, AtMost | KeepBottom) else ("≥", "<")
    return f"{score} {passes if judged.after else fails} {threshold}"
