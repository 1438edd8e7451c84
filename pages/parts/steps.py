"""How is one step of a recipe edited? A card: what it does, how much it keeps, and what that does to its metric."""

from __future__ import annotations

from decimal import Decimal

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
    "pool": "top share of pool",
    "survivors": "top share of survivors",
    "at_least": "at least",
    "at_most": "at most",
}
_FIRST_PERCENTILE = {"at_least": 70, "at_most": 30}
_BARE = {"label_visibility": "collapsed"}

ScoreStep = KeepTop | AtLeast | AtMost


def cards(entry: Entry, run: Run, picked: Selection | None) -> None:
    """A card for each step of the draft. picked: what the whole draft keeps, None where it does not fit the run."""
    reports = iter(picked.report if picked is not None else ())
    for place, (number, step) in enumerate(recipes.draft(entry, run).items()):
        report = next(reports, None) if step.enabled else None
        with st.container(border=True):
            _head(entry, run, number, place, step)
            if isinstance(step, ScoreStep) and step.metric in run.metrics:
                _amount(entry, run, number, step)
                if picked is not None:
                    others = recipes.others_yaml(entry, run, picked, number)
                    _effect(entry, number, step, report, others, recipes.draft_yaml(entry, run))


def adder(entry: Entry, run: Run) -> None:
    """A button that adds a step: the first metric that no step uses yet, keeping its top half."""
    used = {step.metric for step in recipes.draft(entry, run).values() if isinstance(step, ScoreStep)}
    choices = [name for name in run.metrics if metrics.describe(name).selects and name not in used]
    step = KeepTop(metric=(choices or run.metrics)[0], keep_top=Decimal("0.5"))
    st.button("Add a step", icon=":material/add:", key="add", on_click=recipes.add_step, args=(entry, run, step))


def _head(entry: Entry, run: Run, number: int, place: int, step: AnyStep) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{place + 1}**")
        if isinstance(step, ScoreStep):
            _choices(entry, run, number, step)
        else:
            st.text(step.text)
        st.space("stretch")
        st.toggle("on", step.enabled, key=f"on-{number}", on_change=_switch, args=(entry, run, number), **_BARE)
        remove = (entry, run, number, None)
        help_text = "Take this step out"
        st.button(
            "✕", key=f"remove-{number}", help=help_text, type="tertiary", on_click=recipes.change_step, args=remove
        )


def _choices(entry: Entry, run: Run, number: int, step: ScoreStep) -> None:
    names, rules = list(dict.fromkeys([*run.metrics, step.metric])), list(_RULES)
    rule = step.of if isinstance(step, KeepTop) else step.kind
    again = {"on_change": _rebuild, "args": (entry, run, number), **_BARE}
    st.selectbox("Metric", names, names.index(step.metric), metrics.title, key=f"metric-{number}", width=175, **again)
    st.selectbox("Rule", rules, rules.index(rule), _RULES.__getitem__, key=f"rule-{number}", width=205, **again)


def _switch(entry: Entry, run: Run, number: int) -> None:
    """Turns a step on or off; one that is off stays in the recipe and is not applied."""
    step = recipes.draft(entry, run)[number]
    recipes.change_step(entry, run, number, step.model_copy(update={"enabled": st.session_state[f"on-{number}"]}))


def _rebuild(entry: Entry, run: Run, number: int) -> None:
    """The step anew after its metric or rule changed; a fraction stays, a threshold starts at a round percentile."""
    old = recipes.draft(entry, run)[number]
    metric, rule = st.session_state[f"metric-{number}"], st.session_state[f"rule-{number}"]
    if rule in ("pool", "survivors"):
        part = old.keep_top if isinstance(old, KeepTop) else Decimal("0.5")
        step: AnyStep = KeepTop(metric=metric, keep_top=part, of=rule, enabled=old.enabled)
    else:
        start = marginals.marginal(entry, metric).quantile(_FIRST_PERCENTILE[rule])
        kind = AtLeast if rule == "at_least" else AtMost
        step = kind(metric=metric, enabled=old.enabled, **{rule: round(start, _digits(_scale(entry, metric)[2]))})
    recipes.change_step(entry, run, number, step)


def _amount(entry: Entry, run: Run, number: int, step: ScoreStep) -> None:
    """The slider: percent for a fraction, the metric's own range for a threshold."""
    if isinstance(step, KeepTop):
        key, low, high, pace, pattern = f"share-{number}", 0.0, 100.0, 0.1, "%.1f %%"
        value = float(step.keep_top * 100)
    else:
        low, high, pace = _scale(entry, step.metric)
        key, pattern = f"{step.kind}-{number}-{step.metric}", f"%.{_digits(pace)}f"
        value = min(max(getattr(step, step.kind), low), high)
    st.slider(
        f"Step {number}: {step.metric}",
        low,
        high,
        value,
        pace,
        format=pattern,
        key=key,
        on_change=_move,
        args=(entry, run, number, key, _digits(pace)),
        **_BARE,
    )


def _move(entry: Entry, run: Run, number: int, key: str, digits: int) -> None:
    """Takes the slider's value into the step, as the short decimal that the slider shows."""
    step = recipes.draft(entry, run)[number]
    value = round(st.session_state[key], digits)
    update = {"keep_top": Decimal(str(value)) / 100} if isinstance(step, KeepTop) else {step.kind: value}
    recipes.change_step(entry, run, number, step.model_copy(update=update))


def _scale(entry: Entry, metric: str) -> tuple[float, float, float]:
    """The range of a metric and a decimal step of a 500th of it or less, so that thresholds are short numbers."""
    low, high = state.open_table(entry).extent(metric)
    pace = 10.0 ** np.floor(np.log10((high - low) / 500))
    digits = _digits(pace)
    return round(float(np.floor(low / pace) * pace), digits), round(float(np.ceil(high / pace) * pace), digits), pace


def _digits(pace: float) -> int:
    return max(0, round(-np.log10(pace)))


def _effect(entry: Entry, number: int, step: ScoreStep, report: StepReport | None, others: str, recipe: str) -> None:
    """The metric's histogram in three layers: the pool, what the other steps let through, what is kept in the end."""
    whole = marginals.marginal(entry, step.metric)
    edges, pool = whole.coarse(_BINS)
    layers = [
        Layer("pool", "pool", pool),
        Layer("pass", "passes the other steps", marginals.marginal(entry, step.metric, others).coarse(_BINS)[1]),
        Layer("kept", "kept", marginals.marginal(entry, step.metric, recipe).coarse(_BINS)[1]),
    ]
    heading, note = _heading(step, report), metrics.describe(step.metric).help
    marks = _threshold_mark(whole, report)
    show_histogram(heading, note, edges, layers, marks, key=f"effect-{number}", height=110)


def _heading(step: ScoreStep, report: StepReport | None) -> str:
    title = metrics.title(step.metric)
    if report is None:
        return f"{title}: this step is off"
    if report.threshold is None:
        return f"{title}: this step keeps none"
    sign = "≤" if isinstance(step, AtMost) else "≥"
    before, after = words.count(report.kept_before), words.count(report.kept_after)
    return f"{title} {sign} {words.score(report.threshold)} keeps {after} of {before}"


def _threshold_mark(whole: marginals.Marginal, report: StepReport | None) -> list[Mark]:
    if report is None or report.threshold is None:
        return []
    text = f"{words.score(report.threshold)} · P{whole.percentile(report.threshold):.1f}"
    return [Mark(report.threshold, text, "line")]
