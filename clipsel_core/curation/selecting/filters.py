"""Which pairs pass a step that judges each pair by itself, whatever the other steps do?"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsel_core.curation.index.ranking import float32_up
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import (
    AnyOf,
    AtLeast,
    AtMost,
    Between,
    Contains,
    FilterStep,
    In,
    Known,
    ScoreStep,
)
from clipsel_core.errors import RecipeError, RunError, quoted
from clipsel_core.pool.conventions import WHITE_SPACE
from clipsel_core.runs.columns import parse_derived

_FLAGS = {"true": 1.0, "false": 0.0}
_LARGEST = float(np.finfo(np.float32).max)
# Not a letter, mark, digit or underscore of any script; RE2's \W knows those of English alone.
_NO_WORD = r"[^\pL\pM\pN_]"


def passing(table: ScoreTable, step: ScoreStep | FilterStep | AnyOf) -> np.ndarray:
    """Which pairs pass a step, those that were set aside among them: (N,) bool. No step with a share.

    Raises: RecipeError where the column's kind does not fit the step.
    """
    try:
        match step:
            case AnyOf():
                return np.logical_or.reduce([passing(table, judge) for judge in step.any_of])
            case AtLeast():
                return table.column(step.metric) >= limit(step)
            case AtMost():
                return table.column(step.metric) <= limit(step)
            case Between():
                low, high = step.between
                values = table.column(step.metric)
                return (values >= limit(AtLeast(column=step.column, at_least=low))) & (
                    values <= limit(AtMost(column=step.column, at_most=high))
                )
            case Known():
                return _has_value(table, step.metric) == step.known
            case In():
                return _is_one_of(table, step)
            case Contains():
                return _has_word(table, step)
    except RunError as error:
        raise RecipeError(
            f"{step.where}: {error.where}", expected=error.expected, found=error.found, remedy=error.remedy
        ) from error
    raise TypeError(f"a step that judges each pair is expected, found {step.kind}")


def limit(step: AtLeast | AtMost) -> np.float32:
    """The float32 that a value is compared with: as if with the threshold as it is written."""
    if isinstance(step, AtLeast):
        return np.float32(float32_up(np.array([step.at_least], np.float64))[0])
    return np.float32(-float32_up(np.array([-step.at_most], np.float64))[0])


def _kind(table: ScoreTable, column: str) -> str:
    return "number" if parse_derived(column) else table.columns[column].kind


def _has_value(table: ScoreTable, column: str) -> np.ndarray:
    if _kind(table, column) != "text":
        return ~np.isnan(table.column(column))
    return _of_texts(table, column, lambda texts: pc.not_equal(texts, ""))


def _is_one_of(table: ScoreTable, step: In) -> np.ndarray:
    kind = _kind(table, step.metric)
    if kind == "text":
        wanted = pa.array(step.in_, pa.string())
        return _of_texts(table, step.column, lambda texts: pc.is_in(texts, wanted))
    values = table.column(step.metric)
    if kind == "category":
        codes = [code for code, value in enumerate(table.columns[step.column].values) if value in step.in_]
        return np.isin(values, np.array(codes, np.float32))
    expected = "true or false" if kind == "flag" else "numbers"
    wanted = {text: _FLAGS.get(text.lower()) if kind == "flag" else _number(text) for text in step.in_}
    if wrong := next((text for text, number in wanted.items() if number is None), None):
        found = f"{quoted(wrong)}, and {step.column} holds {'truth values' if kind == 'flag' else 'numbers'}"
        raise RecipeError(step.where, expected=expected, found=found)
    return np.isin(values, np.array(list(wanted.values()), np.float32))


def _number(text: str) -> float | None:
    """The number that a text says; one that float32 does not hold is equal to none."""
    try:
        exact = Decimal(text)
        number = float(exact)
    except (InvalidOperation, ValueError):  # the latter of a signalling NaN
        return None
    return number if exact.is_infinite() or abs(number) <= _LARGEST else np.nan


def _has_word(table: ScoreTable, step: Contains) -> np.ndarray:
    kind = _kind(table, step.metric)
    if kind != "text":
        remedy = "use in, or a column of texts such as the captions"
        raise RecipeError(step.where, expected="a column of texts", found=f"{step.column}: {kind}", remedy=remedy)
    words = "|".join(f"[{WHITE_SPACE}]+".join(map(re.escape, word.split())) for word in step.contains)
    pattern = f"(^|{_NO_WORD})({words})($|{_NO_WORD})"
    return _of_texts(table, step.column, lambda texts: pc.match_substring_regex(texts, pattern, ignore_case=True))


def _of_texts(table: ScoreTable, column: str, judge) -> np.ndarray:
    out, start = np.zeros(len(table), bool), 0
    for texts in table.metadata.texts(column):
        out[start : start + len(texts)] = judge(texts).to_numpy(zero_copy_only=False)
        start += len(texts)
    return out
