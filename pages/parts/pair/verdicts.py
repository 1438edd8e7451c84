"""Why is this pair kept or dropped? What each step of the recipe said of it, on one line each."""

from __future__ import annotations

import html
import math

import streamlit as st

from clipsel_core.curation.recipes.recipe_steps import AtMost, Drop, Intersect, Keep, Union
from clipsel_core.curation.selecting.verdict import Judged, Verdict, judge
from clipsel_core.errors import ClipselError
from pages.parts import facts, recipes, state, words
from pages.parts.catalog import Entry


def show(entry: Entry, row: int) -> None:
    """Draws what the recipe on the Select page does with the pair in a row, step by step."""
    recipe = recipes.draft_yaml(entry, state.open_run(entry))
    if not recipe:
        facts.show_note("The recipe has no step: every pair is kept.")
        return
    try:
        picked = state.picked(entry, recipe)
        found = judge(picked.picker, picked.recipe, row)
    except ClipselError:
        facts.show_note("A step of the recipe does not fit this run; Select says which.")
        return
    lines = "".join(_line(judged) for judged in found.steps)
    kind = "kept" if found.kept else "dropped"
    st.html(f'<div class="verdict {kind}"><b>{html.escape(_headline(found))}</b><ol>{lines}</ol></div>')


def _headline(found: Verdict) -> str:
    if found.set_aside:
        return "Set aside when it was scored: no recipe can keep it"
    if found.decided is None:
        return "Kept by the recipe"
    by_hand = "hand, in " if isinstance(found.decided.step, Keep | Drop) else ""
    return f"{'Kept' if found.kept else 'Dropped'} by {by_hand}step {found.decided.number} of the recipe"


def _line(judged: Judged) -> str:
    sign, kind = ("✓", "passes") if judged.after else ("✕", "fails")
    if not judged.before and not judged.after:
        sign, kind = "–", "out"
    says = _says(judged)
    return (
        f'<li class="{kind}" value="{judged.number}"><span>{sign}</span>'
        f"<span>{html.escape(recipes.step_in_words(judged.step))}</span><i>{html.escape(says)}</i></li>"
    )


def _says(judged: Judged) -> str:
    """What the pair has and what the step asks for."""
    if judged.score is None:
        return _on_the_list(judged)
    if math.isnan(judged.score):
        return "not scored"
    if not judged.before:
        return f"{words.score(judged.score)}, out before"
    if judged.threshold is None:
        return f"{words.score(judged.score)}, keeps none"
    score, threshold = words.score(judged.score), words.score(judged.threshold)
    if judged.score == judged.threshold and not judged.after:
        return f"{score}, a tie that went to smaller uids"
    if score == threshold:  # The digits that are usually shown do not tell them apart.
        score, threshold = f"{judged.score:.7g}", f"{judged.threshold:.7g}"
    at_most = isinstance(judged.step, AtMost)
    passes, fails = ("≤", ">") if at_most else ("≥", "<")
    return f"{score} {passes if judged.after else fails} {threshold}"


def _on_the_list(judged: Judged) -> str:
    if isinstance(judged.step, Union | Keep):
        return "brought back" if judged.after and not judged.before else "changes nothing"
    if not judged.before:
        return "out before"
    listed = judged.after if isinstance(judged.step, Intersect) else not judged.after
    return "on the list" if listed else "not on the list"
