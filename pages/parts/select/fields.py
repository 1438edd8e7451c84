"""What else than a thumb does a step's card hold? Values to tick, words, ends of an interval, weights, samples, a seed.

A field says its whole content when it is changed; the step is then made anew, unless it cannot have that. Each filter
of an any_of, one of which a pair has to pass, has its column, its rule and fields of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import streamlit as st
from pydantic import ValidationError

from clipsel_core.curation.recipes.recipe import (
    AnyOf,
    AnyStep,
    AtLeast,
    AtMost,
    Between,
    Contains,
    In,
    Judge,
    Known,
    Random,
    Sample,
    ScoreStep,
)
from clipsel_core.errors import ClipselError, RecipeError
from clipsel_core.runs.store import Run
from pages.parts import charts, messages, recipes, registry, sessions, words
from pages.parts.catalog import Entry
from pages.parts.charts import Chart
from pages.parts.pair import galleries

_BINS = 128
_EXPECTED = {
    "in": "a value to keep",
    "contains": "a word",
    "between": "two numbers, the lower first",
    "random": "a share, 0 to 100 %, and a seed",
    "sample": "a number of samples, and at least one column, with another weight than 0",
    **dict.fromkeys(
        ("keep_top", "keep_bottom", "at_least", "at_most"), "at least one column, with another weight than 0"
    ),
}
_STANDARDISED = {"zscore": "z-scores", "rank": "ranks", "none": "values as they are"}
_OF = {"survivors": "of the survivors", "pool": "of the pool"}
_METHODS = {"soft_cap": "soft cap", "hard_cap": "hard cap", "proportional": "in proportion"}
# What a sample is drawn with where it says nothing, and the first limit of a hard cap.
_PENALTY, _ROUND, _LIMIT = 0.15, 100_000, 10
_MOST_SAMPLES = (1 << 32) - 1
_LEAST_REACH = 2
_RULES = {
    "at_least": "at least",
    "at_most": "at most",
    "between": "between",
    "in": "is one of",
    "contains": "has words",
    "known": "is known",
    "unknown": "is not known",
}
_OF_KINDS = {
    "number": ["at_least", "at_most", "between", "known", "unknown"],
    "flag": ["in", "known", "unknown"],
    "category": ["in", "known", "unknown"],
    "text": ["in", "contains", "known", "unknown"],
}
_FIRST_WORD = "photo"


@dataclass(frozen=True)
class Slot:
    """Where a step is edited: in the draft, by its number; or, by its place, as one of the filters of an any_of there.

    turn: how often filters came and went, so that what is left has new widgets.
    """

    entry: Entry
    run: Run
    number: int
    place: int | None = None
    turn: int = 0

    def key(self, name: str) -> str:
        """What a widget of it is called. name: tells it from the others."""
        return f"{name}-{self.number}" if self.place is None else f"{name}-{self.number}-{self.turn}-{self.place}"

    def read(self) -> AnyStep | None:
        """The step as the draft has it; None where it is not there any more."""
        step = recipes.draft(self.entry, self.run).get(self.number)
        if self.place is None or not isinstance(step, AnyOf):
            return step
        return step.any_of[self.place] if self.place < len(step.any_of) else None

    def put(self, made: AnyStep) -> None:
        """Puts another step in its place."""
        step = recipes.draft(self.entry, self.run).get(self.number)
        if self.place is not None and isinstance(step, AnyOf):
            judges = (*step.any_of[: self.place], made, *step.any_of[self.place + 1 :])
            made = step.model_copy(update={"any_of": judges})
        recipes.change_step(self.entry, self.run, self.number, made)

    def heard_by(self, told: Callable[[AnyStep], dict[str, Any]]) -> dict[str, Any]:
        """What makes the step anew when a field is changed. told: reads the fields, as keys of the step."""
        return {"on_change": _change, "args": (self, told)}


def draw_fields(slot: Slot, step: AnyStep) -> None:
    """Draws what a step is set with beside its thumb; nothing where it has only that, or nothing to be set."""
    match step:
        case In():
            _draw_values(slot, step)
        case Contains():
            _draw_words(slot, step)
        case Between():
            _draw_interval(slot, step)
        case Known():
            _draw_known(slot, step)
        case Random():
            _draw_random(slot, step)
        case Sample():
            _draw_sample(slot, step)
        case ScoreStep(mix=tuple(mix)):
            _draw_weights(slot, "mix", dict(mix), step.standardise or "zscore")


@sessions.callback
def _change(slot: Slot, told: Callable[[AnyStep], dict[str, Any]]) -> None:
    """Makes a step anew with what its fields say. told: reads them, as keys of the step."""
    step = slot.read()
    if step is None:
        return
    # A mix's dump is none that makes it again.
    said = {**step.model_dump(by_alias=True, exclude_none=True, exclude={"defined"}), "defined": step.defined}
    try:
        made = type(step).model_validate({**said, **told(step)})
    except (ValidationError, ValueError, ArithmeticError) as error:
        raise RecipeError(step.where, expected=_EXPECTED[step.kind], found="something else") from error
    slot.put(made)


def _draw_values(slot: Slot, step: In) -> None:
    try:
        found = registry.find_categories(slot.entry, step.column)
    except ClipselError:  # Numbers, or a pool that is not at hand.
        found = None
    counts = dict(zip(found.labels, found.counts.tolist(), strict=True)) if found else {}
    if not counts and registry.column_of(slot.entry, step.column).kind == "text":
        messages.show_note("It has many values, which cannot be listed: type those to keep, as they are written.")

    def label(value: str) -> str:
        return f"{registry.value_text(value)} · {words.number(counts[value])}" if value in counts else value

    key = slot.key("values")
    st.multiselect(
        "Values to keep",
        list(dict.fromkeys([*counts, *step.in_])),
        list(step.in_),
        format_func=label,
        key=key,
        placeholder="type to find a value" if counts else "type a value",
        accept_new_options=not counts,
        label_visibility="collapsed",
        **slot.heard_by(lambda _: {"in": list(st.session_state[key])}),
    )


def _draw_words(slot: Slot, step: Contains) -> None:
    key = slot.key("words")
    st.multiselect(
        "Words, any of which must be there",
        list(step.contains),
        list(step.contains),
        key=key,
        placeholder="type a word",
        accept_new_options=True,
        **slot.heard_by(lambda _: {"contains": list(st.session_state[key])}),
        help="Whole words, upper and lower case alike; of several words the text must have them one after another.",
    )


def _draw_interval(slot: Slot, step: Between) -> None:
    entry, low, high = slot.entry, slot.key("low"), slot.key("high")
    with st.container(horizontal=True, gap="small"):
        ends = slot.heard_by(lambda _: {"between": [st.session_state[low], st.session_state[high]]})
        wide: dict[str, Any] = {"format": "%.10g", "width": 170, **ends}
        st.number_input("From", value=step.between[0], key=low, **wide)
        st.number_input("To", value=step.between[1], key=high, **wide)
    spread = registry.marginal(entry, step.metric)
    edges, whole = spread.coarse(_BINS)
    passing = np.where((step.between[0] <= edges[1:]) & (edges[:-1] <= step.between[1]), whole, 0)
    lines = [charts.Mark(end, "") for end in step.between if edges[0] <= end <= edges[-1]]
    layers = [charts.Layer("pool", "pool", whole), charts.Layer("kept", "in the interval", passing)]
    column = registry.column_of(entry, step.metric)
    note, unit = column.help, registry.unit_of(column)
    shown = registry.title(entry, step.column)
    chart = Chart(entry.key, slot.key("between"), step.metric)
    charts.draw_histogram(shown, note, edges, layers, lines, chart=chart, height=110, unit=unit)
    galleries.draw_marked_interval(entry, chart, _BINS)


def _draw_known(slot: Slot, step: Known) -> None:
    column, known = slot.key("column"), slot.key("known")
    names = list(dict.fromkeys([*registry.offered(slot.entry, "number", "flag", "category", "text"), step.column]))
    again: dict[str, Any] = {
        "label_visibility": "collapsed",
        **slot.heard_by(lambda _: {"column": st.session_state[column], "known": st.session_state[known] == "is known"}),
    }
    with st.container(horizontal=True, gap="small"):
        titles = registry.titles(slot.entry)
        st.selectbox("Column", names, names.index(step.column), titles, key=column, width=260, **again)
        st.selectbox("Is it known?", ["is known", "is not known"], int(not step.known), key=known, width=170, **again)


def _draw_random(slot: Slot, step: Random) -> None:
    share, seed, of = slot.key("random"), slot.key("seed"), slot.key("of")

    def told(old: AnyStep) -> dict[str, Any]:
        typed = st.session_state[share]
        same = isinstance(old, Random) and float(old.random * 100) == typed
        part = old.value if same else Decimal(f"{typed:.10g}") / 100
        return {"random": part, "seed": int(st.session_state[seed]), "of": st.session_state[of]}

    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        again, percent = slot.heard_by(told), float(step.random * 100)
        st.number_input("Percent", 0.0, 100.0, percent, 1.0, format="%.10g", key=share, width=130, **again)
        st.selectbox("Of", list(_OF), list(_OF).index(step.of), _OF.__getitem__, key=of, width=170, **again)
        st.number_input("Seed", 0, value=step.seed, key=seed, width=110, **again)


def _draw_sample(slot: Slot, step: Sample) -> None:
    """How many samples are drawn, how, and by what."""
    many, how, seed = slot.key("samples"), slot.key("method"), slot.key("seed")
    penalty, a_round, limit = slot.key("penalty"), slot.key("round"), slot.key("limit")

    def told(old: AnyStep) -> dict[str, Any]:
        assert isinstance(old, Sample)
        said = st.session_state
        # What is as usual and was not written stays unwritten.
        penalised = said.get(penalty, old.penalty)
        rounds = said.get(a_round, old.round_)
        capped = {
            "soft_cap": {
                "penalty": None if penalised == _PENALTY and old.penalty is None else penalised,
                "round": None if rounds == _ROUND and old.round_ is None else rounds,
            },
            "hard_cap": {"limit": said.get(limit, old.limit) or _LIMIT},
        }.get(said[how], {})
        none = dict.fromkeys(("penalty", "round", "limit"))
        return {"sample": said[many], "method": said[how], "seed": int(said[seed]), **none, **capped}

    again, methods = slot.heard_by(told), list(_METHODS)
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        st.number_input("Samples", 1, _MOST_SAMPLES, step.sample, key=many, width=170, **again)
        st.selectbox(
            "Method",
            methods,
            methods.index(step.method),
            _METHODS.__getitem__,
            key=how,
            width=150,
            help="Soft cap: in rounds, and what was drawn is less likely later. Hard cap: no pair more often than the "
            "limit. In proportion: by the value itself.",
            **again,
        )
        if step.method == "soft_cap":
            lowered = _PENALTY if step.penalty is None else float(step.penalty)
            each: dict[str, Any] = {
                "help": "By how much a pair's value is lowered each time that it is drawn.",
                **again,
            }
            st.number_input("Penalty", 0.0, None, lowered, 0.05, format="%.10g", key=penalty, width=125, **each)
            each = {"help": "So many different pairs are drawn in a round.", **again}
            st.number_input("A round", 1, _MOST_SAMPLES, step.round_ or _ROUND, key=a_round, width=140, **each)
        elif step.method == "hard_cap":
            each = {"help": "How often a pair is drawn at most.", **again}
            st.number_input("Limit", 1, _MOST_SAMPLES, step.limit or _LIMIT, key=limit, width=125, **each)
        st.number_input("Seed", 0, value=step.seed, key=seed, width=110, **again)
    _draw_weights(slot, "by", dict(step.by), step.standardise or "none")


def _draw_weights(slot: Slot, said: str, weights: dict[str, Decimal], standardise: str) -> None:
    """The columns that are weighed, what is done to each before, and its weight. said: the key of the step for them."""
    entry, chosen, how = slot.entry, slot.key("mixed"), slot.key("standardise")

    def told(old: AnyStep) -> dict[str, Any]:
        kept, before = {}, dict(getattr(old, said))
        for name in st.session_state[chosen]:
            typed, weight = st.session_state.get(slot.key(f"weight-{name}")), before.get(name, Decimal(1))
            # As it was written, unless another was typed.
            kept[name] = weight if typed is None or float(weight) == typed else Decimal(f"{typed:.10g}")
        return {said: kept, "standardise": st.session_state[how]}

    again, titles = slot.heard_by(told), registry.titles(entry)
    left, right = st.columns([5, 2])
    names = list(dict.fromkeys([*registry.offered(entry), *weights]))
    left.multiselect("Columns", names, list(weights), format_func=titles, key=chosen, **again)
    ways = list(_STANDARDISED)
    right.selectbox(
        "What is weighed",
        ways,
        ways.index(standardise),
        _STANDARDISED.__getitem__,
        key=how,
        help="Of each column its z-scores, its ranks from 0 to 1, or its values.",
        **again,
    )
    for name, weight in weights.items():
        _draw_weight(slot, name, float(weight), told)


def slider_class(slot: Slot, name: str) -> str:
    """What Streamlit calls the slider of a column's weight in the page."""
    return f"st-key-{re.sub('[^a-zA-Z0-9_-]', '-', slot.key(f'slide-{name}'))}"


def _draw_weight(slot: Slot, name: str, weight: float, told: Callable[[AnyStep], dict[str, Any]]) -> None:
    """A slider and a number beside it, which say the same."""
    typed, slid = slot.key(f"weight-{name}"), slot.key(f"slide-{name}")
    reach = max(_LEAST_REACH, math.ceil(abs(weight)))
    st.session_state.setdefault(typed, weight)
    st.session_state.setdefault(slid, weight)

    def follow(one: str, other: str) -> None:
        value = st.session_state[one]
        if one == slid or abs(value) <= reach:
            st.session_state[other] = value
        else:  # Beyond the slider, which is drawn anew then.
            del st.session_state[other]
        _change(slot, told)

    label, help_text = (
        words.as_markdown(said)
        for said in (registry.title(slot.entry, name), registry.column_of(slot.entry, name).help)
    )
    left, right = st.columns([5, 2], vertical_alignment="bottom")
    both: dict[str, Any] = {"step": 0.05, "on_change": follow}
    left.slider(
        label, -float(reach), float(reach), format="%.10g", key=slid, help=help_text, args=(slid, typed), **both
    )
    shown: dict[str, Any] = {"format": "%.10g", "label_visibility": "collapsed", **both}
    right.number_input(f"Weight of {label}", key=typed, args=(typed, slid), **shown)


@dataclass
class _Filters:
    """How often filters of an any_of came and went in a session."""

    turn: int = 0


def next_filter(entry: Entry, judges: tuple[Judge, ...] = ()) -> Judge:
    """What one more filter of an any_of begins with: the upper end of the first column that the others do not use."""
    names, used = registry.own_numbers(entry), {judge.column for judge in judges}
    return _made(entry, next((name for name in names if name not in used), names[0]), "at_least", None)


def draw_filters(entry: Entry, run: Run, number: int, step: AnyOf) -> None:
    """Draws a row for each filter, and what adds one. number: of the step in the draft."""
    filters = sessions.get(_Filters, f"{entry.key} {number}")

    def replace(judges: tuple[Judge, ...]) -> None:
        recipes.change_step(entry, run, number, step.model_copy(update={"any_of": judges}))
        filters.turn += 1

    for place, judge in enumerate(step.any_of):
        slot = Slot(entry, run, number, place, filters.turn)
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.text("or" if place else "either", width=48)
            _draw_subject(slot, judge)
            st.space("stretch")
            left = step.any_of[:place] + step.any_of[place + 1 :]
            out = f"Take filter {place + 1} out"
            key = slot.key("remove-filter")
            icon = ":material/close:"
            st.button(
                out, icon=icon, key=key, help=out, type="tertiary", disabled=not left, on_click=replace, args=(left,)
            )
        if not isinstance(judge, Known):
            draw_fields(slot, judge)
    more = (*step.any_of, next_filter(entry, step.any_of))
    st.button("Add a filter", icon=":material/add:", key=f"add-filter-{number}", on_click=replace, args=(more,))


def _draw_subject(slot: Slot, judge: Judge) -> None:
    """Which column a filter looks at, and by which rule; of a number its limit."""
    entry, column, rule = slot.entry, slot.key("column"), slot.key("rule")

    @sessions.callback
    def rebuild() -> None:
        old = slot.read()
        if isinstance(old, Judge):
            slot.put(_made(entry, st.session_state[column], st.session_state[rule], old))

    again: dict[str, Any] = {"label_visibility": "collapsed", "on_change": rebuild}
    if judge.column is None:
        st.text(recipes.step_in_words(entry, judge))
    else:
        names = registry.offered(entry, "number", "flag", "category", "text")
        names, titles = list(dict.fromkeys([*names, judge.column])), registry.titles(entry)
        st.selectbox("Column", names, names.index(judge.column), titles, key=column, width=150, **again)
        rules = list(dict.fromkeys([*_OF_KINDS[registry.column_of(entry, judge.column).kind], _rule_of(judge)]))
        st.selectbox("Rule", rules, rules.index(_rule_of(judge)), _RULES.__getitem__, key=rule, width=140, **again)
    if isinstance(judge, AtLeast | AtMost):
        limit = slot.key("limit")
        shown: dict[str, Any] = {"format": "%.10g", "label_visibility": "collapsed", "width": 115}
        heard = slot.heard_by(lambda old: {old.kind: st.session_state[limit]})
        st.number_input("Limit", value=judge.value, key=limit, **shown, **heard)


def _rule_of(judge: Judge) -> str:
    return "unknown" if isinstance(judge, Known) and not judge.known else judge.kind


def _made(entry: Entry, column: str, rule: str, old: Judge | None) -> Judge:
    """A filter by a rule, by the first of its column's rules where it does not have this one. old: what it follows."""
    rules = _OF_KINDS[registry.column_of(entry, column).kind]
    if rule not in rules:
        rule = rules[0]
    same, meant = old is not None and old.column == column, old.meant_by(column) if old else column
    said: dict[str, Any] = {"column": column, "defined": old.defined if old is not None and same else ()}
    match rule:
        case "at_least" | "at_most":
            kind = AtLeast if rule == "at_least" else AtMost
            (limit,) = registry.short_quantiles(entry, meant, (70,) if rule == "at_least" else (30,))
            return kind.model_validate({**said, rule: limit})
        case "between":
            return Between.model_validate({**said, rule: registry.short_quantiles(entry, meant, (5, 95))})
        case "in":
            found = registry.find_categories(entry, column)
            values = old.in_ if isinstance(old, In) and same else found.labels[:1] if found else ("",)
            return In.model_validate({**said, "in": values})
        case "contains":
            asked = old.contains if isinstance(old, Contains) else (_FIRST_WORD,)
            return Contains.model_validate({**said, "contains": asked})
    return Known.model_validate({**said, "known": rule == "known"})
