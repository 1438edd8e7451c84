"""How are the filters of an any_of edited, one of which a pair has to pass? Each by its column, its rule and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from clipsel_core.curation.recipes.recipe import (
    AnyOf,
    AtLeast,
    AtMost,
    Between,
    Contains,
    In,
    Judge,
    Known,
)
from clipsel_core.runs.store import Run
from pages.parts import categories, marginals, recipes, registry, sessions
from pages.parts.catalog import Entry
from pages.parts.select import fields
from pages.parts.select.fields import Slot

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
            fields.draw_fields(slot, judge)
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
            (limit,) = marginals.short_quantiles(entry, meant, (70,) if rule == "at_least" else (30,))
            return kind.model_validate({**said, rule: limit})
        case "between":
            return Between.model_validate({**said, rule: marginals.short_quantiles(entry, meant, (5, 95))})
        case "in":
            found = categories.find_categories(entry, column)
            values = old.in_ if isinstance(old, In) and same else found.labels[:1] if found else ("",)
            return In.model_validate({**said, "in": values})
        case "contains":
            words = old.contains if isinstance(old, Contains) else (_FIRST_WORD,)
            return Contains.model_validate({**said, "contains": words})
    return Known.model_validate({**said, "known": rule == "known"})
