"""How is one step of a recipe edited? A card: what it does, how much it keeps, and what that does to its metric."""

from __future__ import annotations

from decimal import Decimal
from functools import partial

import numpy as np
import streamlit as st

from clipsel_core.curation.recipe import AnyStep, AtLeast, AtMost, KeepTop
from clipsel_core.curation.selection import Selection, StepReport
from clipsel_core.runs.store import Run
from pages.parts import marginals, metrics, recipes, state, words
from pages.parts.catalog import Entry
from pages.parts.histogram import Layer, Mark, show_histogram

_BINS = 128
_RULES = {
    "pool": "keep top, share of the pool",
    "survivors": "keep top, share of the survivors",
    "at_least": "keep scores of at least",
    "at_most": "keep scores of at most",
}
_FIRST_PERCENTILE = {"at_least": 70, "at_most": 30}


def cards(entry: Entry, run: Run, picked: Selection | None) -> None:
    """A card for each step of the draft. picked: what the whole draft keeps, None where it does not fit the run."""
    draft = recipes.draft(entry, run)
    reports = iter(picked.report if picked else ())
    for place, (number, step) in enumerate(draft.items()):
        report = next(reports, None) if step.enabled else None
        with st.container(border=True):
            _head(entry, run, number, place, step)
            if isinstance(step, KeepTop | AtLeast | AtMost) and step.metric in run.metrics:
                _amount(entry, run, number, step)
                if picked is not None:
                    _effect(entry, run, number, step, report)


def adder(entry: Entry, run: Run) -> None:
    """A button that adds a step: the first metric that no step uses yet, keeping its top half."""
    used = {getattr(step, "metric", None) for step in recipes.draft(entry, run).values()}
    choices = [name for name in run.metrics if metrics.describe(name).selects]
    name = next((name for name in choices if name not in used), run.metrics[0])
    step = KeepTop(metric=name, keep_top=Decimal("0.5"))
    st.button("Add a step", icon=":material/add:", key="add", on_click=recipes.add_step, args=(entry, run, step))


def _head(entry: Entry, run: Run, number: int, place: int, step: AnyStep) -> None:
    change = partial(recipes.change_step, entry, run, number)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{place + 1}**")
        if isinstance(step, KeepTop | AtLeast | AtMost):
            _choices(entry, run, number, step)
        else:
            st.text(step.text)
        st.space("stretch")
        st.toggle(
            "on",
            step.enabled,
            key=f"on-{number}",
            help="A step that is off stays in the recipe and is not applied.",
            on_change=lambda: change(step.model_copy(update={"enabled": st.session_state[f"on-{number}"]})),
        )
        st.button(
            "", icon=":material/close:", key=f"remove-{number}", help="Take this step out", type="tertiary",
            on_click=change, args=(None,),
        )


def _choices(entry: Entry, run: Run, number: int, step: KeepTop | AtLeast | AtMost) -> None:
    names = list(dict.fromkeys([*run.metrics, step.metric]))
    rules = list(_RULES)
    again = partial(_rebuild, entry, run, number)
    st.selectbox(
        "Metric", names, names.index(step.metric), metrics.title, key=f"metric-{number}", on_change=again,
        label_visibility="collapsed", width=190,
    )
    st.selectbox(
        "Rule", rules, rules.index(_rule(step)), _RULES.get, key=f"rule-{number}", on_change=again,
        label_visibility="collapsed", width=250,
    )


def _rule(step: KeepTop | AtLeast | AtMost) -> str:
    return step.of if isinstance(step, KeepTop) else step.kind


def _rebuild(entry: Entry, run: Run, number: int) -> None:
    """The step anew after its metric or its rule changed; a fraction stays, a threshold starts at a round percentile."""
    old = recipes.draft(entry, run)[number]
    metric, rule = st.session_state[f"metric-{number}"], st.session_state[f"rule-{number}"]
    if rule in ("pool", "survivors"):
        part = old.keep_top if isinstance(old, KeepTop) else Decimal("0.5")
        step: AnyStep = KeepTop(metric=metric, keep_top=part, of=rule, enabled=old.enabled)
    else:
        value = _rounded(entry, metric, marginals.marginal(entry, metric).quantile(_FIRST_PERCENTILE[rule]))
        kind = AtLeast if rule == "at_least" else AtMost
        step = kind(metric=metric, enabled=old.enabled, **{rule: value})
    recipes.change_step(entry, run, number, step)


def _amount(entry: Entry, run: Run, number: int, step: KeepTop | AtLeast | AtMost) -> None:
    if isinstance(step, KeepTop):
        key = f"share-{number}"
        st.slider(
            "Keep", 0.0, 100.0, float(step.keep_top * 100), 0.1, format="%.1f %%", key=key, label_visibility="collapsed",
            on_change=lambda: recipes.change_step(
                entry, run, number, step.model_copy(update={"keep_top": Decimal(str(round(st.session_state[key], 1))) / 100})
            ),
        )
        return
    low, high, pace = _scale(entry, step.metric)
    key = f"{step.kind}-{number}-{step.metric}"
    value = min(max(getattr(step, step.kind), low), high)
    st.slider(
        "Score", low, high, value, pace, format=f"%.{_digits(pace)}f", key=key, label_visibility="collapsed",
        on_change=lambda: recipes.change_step(
            entry, run, number, step.model_copy(update={step.kind: round(st.session_state[key], _digits(pace))})
        ),
    )


def _scale(entry: Entry, metric: str) -> tuple[float, float, float]:
    """The range of a metric and a decimal step of a 500th of it or less, so that thresholds are short numbers."""
    low, high = state.open_table(entry).extent(metric)
    pace = 10.0 ** np.floor(np.log10((high - low) / 500))
    digits = _digits(pace)
    return round(np.floor(low / pace) * pace, digits), round(np.ceil(high / pace) * pace, digits), round(pace, digits)


def _digits(pace: float) -> int:
    return max(0, round(-np.log10(pace)))


def _rounded(entry: Entry, metric: str, value: float) -> float:
    return round(value, _digits(_scale(entry, metric)[2]))


def _effect(
    entry: Entry, run: Run, number: int, step: KeepTop | AtLeast | AtMost, report: StepReport | None
) -> None:
    """The metric's histogram in three layers: the pool, what the other steps let through, what is kept in the end."""
    whole = marginals.marginal(entry, step.metric)
    others = marginals.marginal(entry, step.metric, recipes.draft_yaml(entry, run, without=number))
    kept = marginals.marginal(entry, step.metric, recipes.draft_yaml(entry, run))
    edges, pool = whole.coarse(_BINS)
    title = metrics.title(step.metric)
    threshold = report.threshold if report else None
    marks = []
    if report is None:
        heading = f"{title}: this step is off"
    elif threshold is None:
        heading = f"{title}: this step keeps none"
    else:
        sign = "≤" if isinstance(step, AtMost) else "≥"
        place = f"P{whole.percentile(threshold):.1f}"
        heading = f"{title} {sign} {words.score(threshold)} keeps {words.count(report.kept_after)} of {words.count(report.kept_before)}"
        marks = [Mark(threshold, f"{words.score(threshold)} · {place}", "line")]
    layers = [
        Layer("pool", "pool", pool),
        Layer("pass", "passes the other steps", others.coarse(_BINS)[1]),
        Layer("kept", "kept", kept.coarse(_BINS)[1]),
    ]
    show_histogram(heading, metrics.describe(step.metric).help, edges, layers, marks, key=f"effect-{number}", height=110)
