"""What is kept at these thresholds, how much does each step cost, and how do I take it with me?"""

from __future__ import annotations

import html
from dataclasses import dataclass

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from clipsel_core.curation.recipes.published import published_recipes
from clipsel_core.curation.recipes.recipe import ScoreStep, columns_of, load_recipe
from clipsel_core.errors import ClipselError, RunError, things_of
from clipsel_core.runs.store import Run
from pages.parts import links, messages, recipes, sessions, state, words
from pages.parts.catalog import Entry
from pages.parts.select import borderline, export, steps


@dataclass(frozen=True)
class _Places:
    """Where the answer to a moved thumb is written. steps: for each step of the draft, by its number.

    picked: whether the draft picks anything. saving: None where it does not, or has no name to be saved under.
    thresholds, seeds: None while these panels are shut.
    """

    picked: bool
    kept: DeltaGenerator
    steps: dict[int, DeltaGenerator]
    saving: export.Places | None
    thresholds: DeltaGenerator | None
    seeds: DeltaGenerator | None


def show(entry: Entry) -> None:
    left, right = st.columns([3, 2], gap="large")
    left.title("Select")
    with left:
        steps.draw_focus()
    run = state.open_run(entry)
    state.require_table(entry)
    messages.show_unfinished(run)
    kept = right.container()
    recipe = recipes.draft_yaml(entry, run)
    picked, error = _pick(entry, recipe)
    left, right = st.columns([3, 2], gap="large")
    with left:
        drafted = recipes.draft(entry, run).values()
        needed = {name for step in drafted for name in columns_of(step)}
        mixes = any(isinstance(step, ScoreStep) and step.mix for step in drafted)
        if isinstance(error, RunError) and needed <= set(run.metrics) and not mixes:
            raise error  # No step is to blame.
        if error is not None:
            messages.show_error(error, "A step of this recipe does not fit this run")
        elif picked is None:
            why = "A recipe keeps pairs step by step. Add the first, or load a recipe."
            messages.show_empty("No step yet", why)
        cards = steps.draw_steps(entry, run)
        steps.draw_adders(entry, run)
    with right:
        answered = st.container()
        st.subheader("Recipe")
        _draw_loader(entry, run)
        saving = None if picked is None else export.draw_controls(entry, run, recipe, picked.selection)
    at_threshold = other_seed = None
    if picked is not None:
        at_threshold, other_seed = borderline.draw_threshold_expander(entry, run), borderline.draw_seed_expander()
    with answered:
        places = _Places(picked is not None, kept, cards, saving, at_threshold, other_seed)
        _answer(entry, places, recipes.draft(entry, run))


@sessions.fragment
def _answer(entry: Entry, places: _Places, drawn: recipes.Draft) -> None:
    """All that the amounts in the draft decide. A moved thumb runs this and nothing else of the page.

    drawn: what the rest of the page shows; where that is not true any more, the page is drawn anew.
    """
    steps.hear_thumbs(entry)
    run = state.open_run(entry)
    recipe = recipes.draft_yaml(entry, run)
    picked, _ = _pick(entry, recipe)
    fits = places.picked == (picked is not None)
    if not links.is_shown(entry, run) or not fits or not recipes.same_steps(recipes.draft(entry, run), drawn):
        st.rerun()
    if picked is not None:
        # How many pairs are kept, exactly those that an export writes; and a bar for the pool and each step.
        kept, applied = picked.selection, [step for step in recipes.draft(entry, run).values() if step.enabled]
        things, share = things_of(len(kept), "pairs"), words.share(len(kept), kept.total)
        places.kept.html(
            f'<div class="headline" id="kept"><b>{words.number(len(kept))}</b>'
            f"<span>{things} kept · {share} of {words.number(kept.total)}</span></div>"
        )
        aside = f"{words.number(kept.set_aside)} set aside when they were scored: never kept" if kept.set_aside else ""
        rows = [_funnel_row("pool", kept.total, kept.total, aside)]
        for report, step in zip(kept.report, applied, strict=True):
            added = f", adds {words.number(report.added)}" if report.added else ""
            note = (
                f"drops {words.number(report.dropped)}{added}; alone it would drop {words.number(report.alone_drops)}"
            )
            rows.append(_funnel_row(recipes.step_in_words(entry, step), report.kept_after, kept.total, note))
        st.html(f'<div class="funnel" data-recipe="{recipes.mark(picked.recipe)}">{"".join(rows)}</div>')
    steps.draw_effects(entry, run, picked, places.steps)
    if places.saving is not None:
        export.draw_state(entry, recipe, places.saving)
    if places.thresholds is not None:
        with places.thresholds:
            borderline.draw_threshold(entry, run, recipe)
    if places.seeds is not None:
        with places.seeds:
            borderline.draw_seed(entry, recipe)


def _pick(entry: Entry, recipe: str) -> tuple[state.Picked | None, ClipselError | None]:
    """What the draft keeps; nothing where it has no step, or where one of them does not fit the run."""
    try:
        return (state.picked(entry, recipe) if recipe else None), None
    except ClipselError as error:
        return None, error


def _funnel_row(label: str, kept: int, total: int, note: str) -> str:
    width = 100 * kept / total if total else 0
    return (
        f'<div class="row"><div class="label"><span>{html.escape(label)}</span>'
        f"<b>{words.number(kept)}</b><i>{words.share(kept, total)}</i></div>"
        f'<div class="track"><div class="fill" style="width:{width:.2f}%"></div></div>'
        f'<div class="note">{html.escape(note)}</div></div>'
    )


def _draw_loader(entry: Entry, run: Run) -> None:
    known, editor = recipes.saved(run), sessions.get(steps.Editor)
    published = {f"published: {one.recipe.name}": one for one in published_recipes().values()}

    def load() -> None:
        """Takes a recipe's steps as the draft; the picker goes back to asking."""
        name = st.session_state.get("load") or ""
        st.session_state["load"] = None
        path, other = recipes.saved(run).get(name), published.get(name)
        try:
            columns = state.open_table(entry).columns
            if path is not None:
                loaded = list(load_recipe(path, columns).steps)
                recipes.replace_draft(entry, loaded)
                st.session_state[export.name_key(entry)] = path.stem
                export.remember_file(entry, path.name, recipes.as_yaml(loaded))
            elif other:
                other.check_needs([*columns, *recipes.list_files(run)])
                recipes.replace_draft(entry, list(other.recipe.steps))
                st.session_state[export.name_key(entry)] = other.name
        except ClipselError as error:
            editor.load_failed = error

    st.selectbox(
        "Load a recipe",
        [*known, *published],
        index=None,
        key="load",
        placeholder="load a saved or a published recipe",
        label_visibility="collapsed",
        on_change=load,
    )
    if editor.load_failed:
        messages.show_error(editor.load_failed, "This recipe cannot be loaded")
        editor.load_failed = None


show(state.current())
