"""What is a recipe? Steps that pick pairs, checked when they are made, read from YAML, written back and compared.

    steps:
      - {column: s_cliploss, keep_top: 0.30}              # a fraction of the pool, or "of: survivors"; or keep_bottom
      - {column: clip_score, at_least: 0.21}              # or at_most, or between: [0.21, 0.4]
      - {column: language, in: [en, fr]}                  # or known: true, or contains: [dog] in a text
      - {any_of: [{column: dfn, at_least: 0.3}, {column: language, in: [en]}]}
      - {mix: {s_cliploss: 1, dfn: 0.5}, standardise: zscore, keep_top: 0.2}
      - {random: 0.5, seed: 1}                            # so many of the survivors
      - {sample: 128000, by: s_cliploss, method: soft_cap}  # draws, the last step; a pair may come several times
      - {intersect: hype.npy}                             # or union, subtract: a list of uids beside the recipe
      - {union: drawn.npy, counts: true}                  # or intersect: pairs count as often as the list names them
      - {keep: [139e4a9b22a614771f06c700a8ebe150]}        # by hand; or drop

Before them, `columns: {good: {mix: {s_cliploss: 1, dfn: 0.5}}}` gives mixes names that steps take like a column's.

`metric` is another word for `column`. Steps run in order from the whole pool; `enabled: false` leaves one out. Only the
plain part of YAML is taken: no tags, no anchors, no aliases (a few lines of which can stand for gigabytes). Every
mistake is named with its line. Numbers are kept as they are written, so that 0.29 stays 29/100.
"""

from __future__ import annotations

import io
import math
import os
import re
from abc import abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

import yaml
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from clipsel_core import uids
from clipsel_core.curation.recipes.uidlists import LIST_ENDINGS
from clipsel_core.errors import RecipeError, UidError, quoted
from clipsel_core.places import Place, protocol_of
from clipsel_core.runs.columns import Mix, Negated, Noise, Standardise, words_of

MOST_SAMPLES = (1 << 32) - 1
"""How many samples a selection may be."""
_MOST_DECIMALS = 30
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,4})?")
_BREAKS = re.compile(r"[\n\r\x85\u2028\u2029]")
_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq")
}
_DEEPEST = 6
_MOST_MIXED, _LONGEST_NAME = 64, 200
_MOST_CHARACTERS = 1 << 22

_WORD = re.compile(r"\w")
_UID = re.compile(r"[0-9a-fA-F]{1,32}")
_LISTS, _HAND = ("intersect", "union", "subtract"), ("keep", "drop")


def _listed(texts: tuple[str, ...]) -> str:
    """At most five of them, quoted."""
    more = f" or {len(texts) - 5:,} more" if len(texts) > 5 else ""
    return " or ".join(map(quoted, texts[:5])) + more


def plain_decimal(number: Decimal) -> str:
    """The shortest way to write a decimal number without an exponent: 0.30 becomes 0.3."""
    text = format(number, "f") if number else "0"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _decimal(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("not a number")
    number = Decimal(repr(float(value))) if isinstance(value, float) else Decimal(value)
    if not number.is_finite():
        raise ValueError("not finite")
    return number


def _fraction(value: object) -> Decimal:
    number = _decimal(value)
    exponent = number.as_tuple().exponent
    if not 0 <= number <= 1 or not isinstance(exponent, int) or exponent < -_MOST_DECIMALS:
        raise ValueError("not a fraction of at most 30 decimals")
    return Decimal(plain_decimal(number))


def _threshold(value: object) -> float:
    number = float(_decimal(value))
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


def _uid_digits(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(item, str) for item in value):
        raise ValueError("not a list of uids")
    try:
        return tuple(uids.to_hex(uids.from_hex(list(value))).to_pylist())
    except UidError as error:
        raise ValueError(str(error)) from error


def _list_file(value: object) -> str:
    if not isinstance(value, str) or Path(value).suffix.lower() not in LIST_ENDINGS.split(", "):
        raise ValueError("not a list of uids")
    return value


def _whole(value: object) -> int:
    number = _decimal(value)
    if number != int(number):
        raise ValueError("not a whole number")
    return int(number)


def _interval(value: object) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("not two numbers")
    low, high = map(_threshold, value)
    if low > high:
        raise ValueError("the first is above the second")
    return low, high


def _words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(item, str) for item in value):
        raise ValueError("not a list of values")
    return tuple(dict.fromkeys(value))


def _contained(value: object) -> tuple[str, ...]:
    found = _words(value)
    if not all(map(_WORD.search, found)):
        raise ValueError("no word")
    return found


def _weights(value: object) -> tuple[tuple[str, Decimal], ...]:
    if not isinstance(value, dict | tuple):  # a tuple where a step is copied
        raise ValueError("not weights of columns")
    found = tuple((name, Decimal(plain_decimal(_decimal(weight)))) for name, weight in dict(value).items())
    if not 1 <= len(found) <= _MOST_MIXED or not all(isinstance(name, str) and name for name, _ in found):
        raise ValueError("not weights of columns")
    if not any(weight for _, weight in found):
        raise ValueError("no weight but 0")
    return found


ColumnName = Annotated[str, Field(min_length=1, max_length=_LONGEST_NAME)]
Part = Annotated[Decimal, BeforeValidator(_fraction)]
Threshold = Annotated[float, BeforeValidator(_threshold)]
Interval = Annotated[tuple[float, float], BeforeValidator(_interval)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_words)]
Words = Annotated[tuple[str, ...], BeforeValidator(_contained)]
Weights = Annotated[tuple[tuple[str, Decimal], ...], BeforeValidator(_weights)]
Seed = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
Samples = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MOST_SAMPLES)]
Uids = Annotated[tuple[str, ...], BeforeValidator(_uid_digits)]
ListFile = Annotated[str, BeforeValidator(_list_file)]


Model = TypeVar("Model", bound=BaseModel)


class Frozen(BaseModel):
    """Two are equal when they say the same, wherever they were read from."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and dict(self) == dict(other)


class Step(Frozen):
    """One step of a recipe. kind: the key that says what it does. enabled: whether it runs.

    defined: the columns that it names and the recipe defines, and what they are a mix of.
    """

    kind: ClassVar[str]
    enabled: bool = True
    defined: tuple[tuple[str, Mix], ...] = ()
    _where: str = PrivateAttr("")

    @property
    def where(self) -> str:
        """The file and line it was read from, else what it says: where an error about it points."""
        return self._where or f"step {self.text!r}"

    def read_at(self, where: str) -> Self:
        """The same step, as read from there: a file and a line."""
        read = self.model_copy()
        read._where = where
        return read

    def meant_by(self, column: str) -> str:
        """The name of what a column's name stands for: of one that the recipe defines that of its mix."""
        return next((mix.name for name, mix in self.defined if name == column), column)

    @property
    def value(self) -> Any:
        """What its kind is set to: a share, a threshold, the name of a list or uids."""
        return getattr(self, self.kind)

    @property
    @abstractmethod
    def text(self) -> str:
        """What the step does, in words."""


class ScoreStep(Step):
    """Compares or ranks pairs by their value of a column, or of a mix of columns: the one it has of the two.

    mix: columns and their weights. standardise: what is done to each of them before, zscore where nothing is said.
    missing: mean has a pair that lacks a column take its mean; else it has no mix.
    """

    column: ColumnName | None = Field(None, validation_alias=AliasChoices("column", "metric"))
    mix: Weights | None = None
    standardise: Standardise | None = None
    missing: Literal["mean"] | None = None

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if self.column is None and self.mix is None:
            raise PydanticCustomError("together", "a column or a mix", {"found": "none"})
        if self.column is not None and self.mix is not None:
            raise PydanticCustomError("together", "a column or a mix", {"found": "both"})
        if self.mix is None and (self.standardise or self.missing):
            raise PydanticCustomError("together", "a mix to standardise", {"found": "a column"})
        return self

    @property
    def metric(self) -> str:
        """The name of the column that it looks at; one that stands for the mix where it has one."""
        if self.mix is None:
            return self.meant_by(self.column or "")
        weights = tuple((self.meant_by(name), weight) for name, weight in self.mix)
        return Mix(weights, self.standardise or "zscore", self.missing).name

    @property
    def said(self) -> str:
        """The column, or the mix in words, as the recipe has it."""
        mix = Mix(self.mix, self.standardise or "zscore", self.missing) if self.mix else None
        return words_of(mix.name) if mix else self.column or ""

    @property
    def text(self) -> str:
        return f"{self.said} {self.kind.replace('_', ' ')} {self.value!r}"


class ShareStep(ScoreStep):
    """Keeps a share of the pairs: floor(part * N), N the pool's or the survivors' number."""

    of: Literal["pool", "survivors"] = "pool"

    @property
    def part(self) -> Decimal:
        """The share that it keeps, 0 to 1."""
        return self.value


class KeepTop(ShareStep):
    """Keeps the highest of a column; equal values go to the smaller uid."""

    kind = "keep_top"
    keep_top: Part

    @property
    def text(self) -> str:
        return f"top {plain_decimal(self.keep_top * 100)} % of the {self.of} by {self.said}"


class KeepBottom(ShareStep):
    """Keeps the lowest of a column; equal values go to the smaller uid."""

    kind = "keep_bottom"
    keep_bottom: Part

    @property
    def metric(self) -> str:
        """The column turned round, whose highest values are the lowest of the column."""
        return Negated(self.ranked).name

    @property
    def ranked(self) -> str:
        """The column, or mix, whose lowest values it keeps."""
        return super().metric

    @property
    def text(self) -> str:
        return f"bottom {plain_decimal(self.keep_bottom * 100)} % of the {self.of} by {self.said}"


class AtLeast(ScoreStep):
    """Keeps pairs whose value is this or more."""

    kind = "at_least"
    at_least: Threshold


class AtMost(ScoreStep):
    """Keeps pairs whose value is this or less."""

    kind = "at_most"
    at_most: Threshold


class Random(Step):
    """Keeps a share of the survivors, or of the pool's number, at random: which, is decided by seed and uid alone."""

    kind = "random"
    random: Part
    seed: Seed = 0
    of: Literal["pool", "survivors"] = "survivors"

    @property
    def metric(self) -> str:
        """The column of random numbers whose highest it keeps."""
        return Noise(self.seed).name

    @property
    def part(self) -> Decimal:
        """The share that it keeps, 0 to 1."""
        return self.random

    @property
    def text(self) -> str:
        return f"{plain_decimal(self.random * 100)} % of the {self.of} at random, seed {self.seed}"


class FilterStep(Step):
    """Judges each pair by itself, by what a column says of it."""

    column: ColumnName = Field(validation_alias=AliasChoices("column", "metric"))

    @property
    def metric(self) -> str:
        """The name of the column that it looks at, of one that the recipe defines that of its mix."""
        return self.meant_by(self.column)

    @property
    def text(self) -> str:
        return f"{self.column} {self.kind.replace('_', ' ')} {self.value!r}"


class Between(FilterStep):
    """Keeps pairs whose value lies in an interval, its ends included."""

    kind = "between"
    between: Interval

    @property
    def text(self) -> str:
        return f"{self.column} from {self.between[0]!r} to {self.between[1]!r}"


class In(FilterStep):
    """Keeps pairs whose value is one of these. in_: values as text; numbers are compared as numbers."""

    kind = "in"
    in_: Texts = Field(alias="in")

    @property
    def value(self) -> Any:
        return self.in_

    @property
    def text(self) -> str:
        return f"{self.column} is {_listed(self.in_)}"


class Contains(FilterStep):
    """Keeps pairs whose text has one of these, as whole words, upper and lower case alike."""

    kind = "contains"
    contains: Words

    @property
    def text(self) -> str:
        return f"{self.column} has {_listed(self.contains)}"


class Known(FilterStep):
    """Keeps pairs that have a value; with false, those that have none."""

    kind = "known"
    known: bool

    @property
    def text(self) -> str:
        return f"{self.column} is {'known' if self.known else 'not known'}"


Judge = AtLeast | AtMost | Between | In | Contains | Known


class AnyOf(Step):
    """Keeps pairs that pass one of several steps, each of which judges every pair by itself."""

    kind = "any_of"
    any_of: Annotated[tuple[Judge, ...], Field(min_length=1)]

    @property
    def text(self) -> str:
        return " or ".join(step.text for step in self.any_of)


class Sample(Step):
    """Draws so many samples of the survivors, the last of all steps; a pair may be drawn several times.

    by: columns and their weights; a single column's name stands for its own values. standardise: as in ScoreStep, but
    none where nothing is said, because the scale of what is drawn by matters.
    penalty, pairs_a_round: of soft_cap. limit: of hard_cap, which must have it. See curation.selecting.sampling.
    """

    kind = "sample"
    sample: Samples
    by: Weights
    standardise: Standardise | None = None
    missing: Literal["mean"] | None = None
    method: Literal["soft_cap", "hard_cap", "proportional"] = "soft_cap"
    penalty: Annotated[float, BeforeValidator(_threshold), Field(ge=0)] | None = None
    round_: Samples | None = Field(None, alias="round")
    limit: Samples | None = None
    seed: Seed = 0

    @model_validator(mode="after")
    def _fits_its_method(self) -> Self:
        if (self.limit is None) == (self.method == "hard_cap"):
            found = "none" if self.limit is None else f"one with {self.method}"
            raise PydanticCustomError("together", "a limit with hard_cap, and only with it,", {"found": found})
        if self.method != "soft_cap" and (self.penalty is not None or self.round_ is not None):
            raise PydanticCustomError("together", "penalty and round only with soft_cap", {"found": self.method})
        return self

    @property
    def metric(self) -> str:
        """The name of the mix that it draws by."""
        weights = tuple((self.meant_by(name), weight) for name, weight in self.by)
        return Mix(weights, self.standardise or "none", self.missing).name

    @property
    def text(self) -> str:
        how = {"soft_cap": "soft cap", "hard_cap": f"at most {self.limit} times each", "proportional": "in proportion"}
        by = words_of(Mix(self.by, self.standardise or "none", self.missing).name)
        return f"{self.sample:,} samples by {by}, {how[self.method]}, seed {self.seed}"


class ListStep(Step):
    """Looks whether a list of uids names a pair. words: what its text says before "those in" the list."""

    words: ClassVar[str]

    @property
    def text(self) -> str:
        return f"{self.words} those in {self.value}{', with their counts' if self.counted else ''}"

    @property
    def counted(self) -> bool:
        """Whether it matters how often the list names a pair."""
        return False


class CountedStep(ListStep):
    """A list that may name a pair several times. counts: whether that matters; else it is a set."""

    counts: bool = False

    @property
    def counted(self) -> bool:
        return self.counts


class Intersect(CountedStep):
    """Keeps pairs that a list names; with counts, each as often as it counts before or in the list, the smaller."""

    kind, words = "intersect", "only"
    intersect: ListFile


class Union(CountedStep):
    """Adds the pairs that a list names; with counts, those of the list are added. The run must have them all."""

    kind, words = "union", "and"
    union: ListFile


class Subtract(ListStep):
    """Drops pairs that a list names."""

    kind, words = "subtract", "without"
    subtract: ListFile


class HandStep(Step):
    """Looks whether a pair was picked by hand."""

    @property
    def text(self) -> str:
        return f"{self.kind} {len(self.value):,} by hand"


class Keep(HandStep):
    """Adds pairs by hand; the run must have them all. keep: uids as 32 hex digits."""

    kind = "keep"
    keep: Uids


class Drop(HandStep):
    """Drops pairs by hand; the run must have them all. drop: uids as 32 hex digits."""

    kind = "drop"
    drop: Uids


AnyStep = (
    KeepTop
    | KeepBottom
    | AtLeast
    | AtMost
    | Between
    | In
    | Contains
    | Known
    | AnyOf
    | Random
    | Sample
    | Intersect
    | Union
    | Subtract
    | Keep
    | Drop
)
KINDS: dict[str, type[AnyStep]] = {step.kind: step for step in get_args(AnyStep)}
_JUDGES = [step.kind for step in get_args(Judge)]


class Recipe(Frozen):
    """Steps in the order they run, from the whole pool; disabled ones are left out. `folder` holds its uid lists.

    columns: mixes by the names that steps call them by.
    """

    name: Annotated[str, Field(max_length=200)] | None = None
    columns: tuple[tuple[str, Mix], ...] = ()
    steps: Annotated[tuple[AnyStep, ...], Field(min_length=1)]
    _folder: Place = PrivateAttr(default_factory=lambda: Place.of_named("."))
    _lines: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _with_those_of_steps(cls, values: Any) -> Any:
        """Steps bring along what they name: whoever edits steps need not keep the columns."""
        steps = values.get("steps", ()) if isinstance(values, dict) else ()
        found = {name: mix for step in steps if isinstance(step, Step) for name, mix in defined_by(step)}
        return {**values, "columns": tuple({**found, **dict(values.get("columns", ()))}.items())} if found else values

    @property
    def folder(self) -> Place:
        """Where relative names of uid lists begin: the folder of the recipe's file."""
        return self._folder

    def in_folder(self, folder: str | os.PathLike[str]) -> Recipe:
        """The same recipe with its uid lists looked for in another folder."""
        moved = self.model_copy()
        moved._folder = Place.of_named(folder)
        return moved

    def list_files(self) -> list[Place]:
        """The uid lists that the enabled steps read."""
        return [self.folder.along(step.value) for step in self.steps if step.enabled and isinstance(step, ListStep)]


def defined_by(step: Step) -> tuple[tuple[str, Mix], ...]:
    """The columns that a step names and the recipe defines; of any_of those of all its filters."""
    within = [each for judge in step.any_of for each in judge.defined] if isinstance(step, AnyOf) else []
    return (*step.defined, *within)


def columns_of(step: AnyStep) -> list[str]:
    """The columns that a step needs, in place of one that the recipe defines those of its mix."""
    if isinstance(step, AnyOf):
        return [name for judge in step.any_of for name in columns_of(judge)]
    mixes = dict(step.defined)
    return [
        name
        for named in _named_by(step)
        for name in ([part for part, _ in mixes[named].weights] if named in mixes else [named])
    ]


def _named_by(step: AnyStep) -> list[str]:
    """The columns that a step names itself."""
    if isinstance(step, FilterStep):
        return [step.column]
    if isinstance(step, Sample):
        return [name for name, _ in step.by]
    if not isinstance(step, ScoreStep):
        return []
    return [name for name, _ in step.mix] if step.mix else [step.column or ""]


def check_columns(recipe: Recipe, columns: Collection[str]) -> None:
    """Raises RecipeError where a step asks for a column that the run lacks, or the recipe defines one that it has."""
    for name, mix in recipe.columns:
        where = recipe._lines.get(name, f"column {name}")
        if name in columns:
            found = f"{quoted(name)}, which the run has"
            raise RecipeError(where, expected="a new column's name", found=found, remedy="choose another")
        if lacking := next((part for part, _ in mix.weights if part not in columns), None):
            raise RecipeError(where, expected=f"some of the run's columns {', '.join(columns)}", found=quoted(lacking))
    for step in recipe.steps:
        for name in columns_of(step):
            if name not in columns:
                expected = f"one of the run's columns {', '.join(columns)}"
                raise RecipeError(step.where, expected=expected, found=quoted(name))


_STEP_KEYS = [
    *("column", "metric", "mix", *KINDS, "by", "counts", "standardise", "missing", "of"),
    *("method", "penalty", "round", "limit", "seed", "enabled"),
]
_EXPECTED = {
    **dict.fromkeys(("column", "metric"), "the name of a column"),
    "mix": "columns with their weights, such as {s_cliploss: 1.0, clip_score: 0.5}",
    "standardise": "zscore, rank or none",
    "missing": "mean",
    **dict.fromkeys(("sample", "round", "limit"), "a whole number from 1 to 4,294,967,295"),
    "by": "a column, or columns with their weights, such as {s_cliploss: 1.0, clip_score: 0.5}",
    "method": "soft_cap, hard_cap or proportional",
    "penalty": "a number, 0 or more",
    **dict.fromkeys(("keep_top", "keep_bottom", "random"), "a number from 0 to 1, with at most 30 decimals"),
    "of": "pool or survivors",
    "seed": "a whole number, 0 or more",
    **dict.fromkeys(("counts", "enabled"), "true or false"),
    **dict.fromkeys(("at_least", "at_most"), "a number"),
    "between": "two numbers, the lower first",
    "in": "a list of values",
    "contains": "a list of words",
    "known": "true or false",
    "any_of": "a list of steps that judge each pair: at_least, at_most, between, in, contains, known",
    **dict.fromkeys(_LISTS, f"the name of a list of uids, ending in {LIST_ENDINGS}"),
    **dict.fromkeys(_HAND, "a list of uids, each of 1 to 32 hex digits"),
}


def load_recipe(path: str | os.PathLike[str], columns: Collection[str] | None = None) -> Recipe:
    """The recipe in a YAML file, which may lie in a store. columns: those of the run, where they are to be checked.

    Raises: RecipeError naming file and line, what is allowed there and what was found.
    """
    path = Place.of_named(path)
    try:
        # As a text file is read, whichever way its lines end.
        text = io.TextIOWrapper(io.BytesIO(path.read()), encoding="utf-8").read()
    except UnicodeDecodeError as error:
        raise RecipeError(path, expected="text in UTF-8", found=f"byte {error.start} is none") from error
    except OSError as error:
        raise RecipeError(path, expected="a recipe", found=error.strerror or str(error)) from error
    return parse_recipe(text, str(path), columns, folder=path.parent)


def parse_recipe(
    text: str,
    where: str = "recipe",
    columns: Collection[str] | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
) -> Recipe:
    """The recipe that a YAML text says. where: what errors call it. folder: where its uid lists lie.

    Raises: RecipeError as load_recipe.

    >>> parse_recipe("steps: [{column: clip_score, keep_top: 0.29}]").steps[0].text
    'top 29 % of the pool by clip_score'
    """
    root = _parse_yaml(text, where)
    if not isinstance(root.value, dict) or "steps" not in root.value:
        found = f"only {', '.join(map(quoted, root.value))}" if isinstance(root.value, dict) else root.text or "nothing"
        remedy = "begin with steps: and a list of them"
        raise RecipeError(root.where, expected="steps", found=found, remedy=remedy)
    _check_keys(root, ["name", "columns", "steps"])
    name, steps = root.value.get("name"), root.value["steps"]
    defined = _defined(root.value["columns"]) if "columns" in root.value else {}
    if name and name.value is not None and (isinstance(name.value, list | dict) or len(name.text) > 200):
        raise RecipeError(name.where, expected="a name of at most 200 characters", found=name.shown)
    if not isinstance(steps.value, list) or not steps.value:
        raise RecipeError(steps.where, expected="a list of one or more steps", found=steps.shown)
    built = tuple(_step(step, defined) for step in steps.value)
    last = [step for step in built if step.enabled][-1:]
    for step in built:
        if isinstance(step, Sample) and step.enabled and last != [step]:
            found = f"{last[0].kind} behind it"
            raise RecipeError(step.where, expected="sample as the last step", found=found, remedy="move it to the end")
        if isinstance(step, ListStep) and step.enabled and step.counted and isinstance(last[0], Sample):
            found, remedy = "counts, and a sample behind it", "leave out counts: a sample is drawn from pairs"
            raise RecipeError(step.where, expected="a list without counts", found=found, remedy=remedy)
    said = name.text if name and name.value is not None else None
    recipe = Recipe(name=said, columns=tuple(defined.items()), steps=built)
    recipe._lines.update(root.value["columns"].keys if defined else {})
    if columns is not None:
        check_columns(recipe, columns)
    return recipe.in_folder(folder) if folder else recipe


@lru_cache(maxsize=16)  # A page asks for the same recipe's more than once, and it takes a millisecond.
def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, the same text for equal recipes; parse_recipe takes it back.

    Keys come in the order people write them; those that say the usual are left out.
    """
    content: dict[str, Any] = {} if recipe.name is None else {"name": recipe.name}
    if recipe.columns:
        content["columns"] = {
            name: {"mix": dict(mix.weights)}
            | ({"standardise": mix.standardise} if mix.standardise != "zscore" else {})
            | ({"missing": mix.missing} if mix.missing else {})
            for name, mix in recipe.columns
        }
    content["steps"] = []
    for step in recipe.steps:
        content["steps"].append(_plain_step(step))
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 30)


def _plain_step(step: AnyStep) -> dict[str, Any]:
    """A step as YAML has it. Keys in the order people write them: the column, the action, the rest."""
    values = {key.rstrip("_"): value for key, value in step if value is not None}
    for key, field in type(step).model_fields.items():
        if key in ("of", "seed", "method", "counts") and values.get(key) == field.default:
            del values[key]
    enabled = values.pop("enabled")
    if step.kind == "any_of":
        values["any_of"] = [_plain_step(judge) for judge in values["any_of"]]
    ordered = {key: values[key] for key in _STEP_KEYS if key in values}
    for key, value in ordered.items():
        if isinstance(value, tuple):
            ordered[key] = dict(value) if key in ("mix", "by") else list(value)
    return ordered if enabled else {**ordered, "enabled": False}


def save_recipe(recipe: Recipe, path: str | os.PathLike[str]) -> Recipe:
    """Writes a recipe to a file, whole or not at all, its uid lists named from there. Returns it as written."""
    path = Place.of_named(path)
    steps: list[AnyStep] = []
    for step in recipe.steps:
        if isinstance(step, ListStep) and not (os.path.isabs(step.value) or protocol_of(step.value)):
            moved = _named_from(path.parent, recipe.folder, step.value)
            step = step.model_copy(update={step.kind: moved})
        steps.append(step)
    written = Recipe(name=recipe.name, columns=recipe.columns, steps=tuple(steps))
    path.write_bytes(dump_recipe(written).encode())
    return written.in_folder(path.parent)


def _named_from(folder: Place, other: Place, name: str) -> str:
    """How a recipe in a folder names a list that one in another folder calls so."""
    if folder.remote or other.remote:
        return name if folder == other else str(other.along(name).absolute())
    return Path(os.path.relpath(other / name, folder)).as_posix()


@dataclass(frozen=True)
class Change:
    """A step of either recipe. before: as the first recipe has it, after: as the second; None where it lacks it.

    kind: same, changed (another value, or switched on or off), moved (the same or changed, but run at another point),
    added or removed.
    """

    kind: Literal["same", "changed", "moved", "added", "removed"]
    before: AnyStep | None
    after: AnyStep | None

    @property
    def text(self) -> str:
        """The change in words.

        >>> steps = (KeepTop(column="clip_score", keep_top=share) for share in (0.3, 0.2))
        >>> differences(*(Recipe(steps=(step,)) for step in steps))[0].text
        'changed: top 30 % of the pool by clip_score -> top 20 % of the pool by clip_score'
        """
        said = [f"{step.text}{'' if step.enabled else ' (off)'}" for step in (self.before, self.after) if step]
        if isinstance(self.before, HandStep) and self.after and self.before != self.after:
            old, new = set(self.before.value), set(self.after.value)
            said[1] += f" ({len(new - old):,} more, {len(old - new):,} fewer)"
        return f"{self.kind}: {' -> '.join(dict.fromkeys(said))}"


def differences(first: Recipe, second: Recipe) -> list[Change]:
    """The steps of both recipes in an order that both keep as far as they agree.

    Two steps are the same step where they use the same metric, list or kind of hand-made choice. Those in the longest
    stretches that both recipes run in one order are matched first; what is left is matched as moved.
    """
    before, after = first.steps, second.steps
    matcher = SequenceMatcher(None, [_subject(step) for step in before], [_subject(step) for step in after], False)
    rows: list[tuple[AnyStep | None, AnyStep | None]] = []
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            rows += zip(before[i:i_end], after[j:j_end], strict=True)
        else:
            rows += [(step, None) for step in before[i:i_end]] + [(None, step) for step in after[j:j_end]]
    # A step that is gone from one place and new at another has moved; it is told at its new place.
    gone = {place: old for place, (old, new) in enumerate(rows) if old and not new}
    changes: list[Change] = []
    for old, new in rows:
        if old and new:
            changes.append(Change("same" if old == new else "changed", old, new))
        elif new:
            place = next((place for place, step in gone.items() if _subject(step) == _subject(new)), None)
            changes.append(Change("added", None, new) if place is None else Change("moved", gone.pop(place), new))
        else:
            changes.append(Change("removed", old, None))
    return [change for place, change in enumerate(changes) if change.kind != "removed" or place in gone]


def _subject(step: AnyStep) -> tuple[str, str]:
    if isinstance(step, ScoreStep):
        return "column", step.metric
    if isinstance(step, FilterStep):
        return step.kind, step.column
    return ("by hand", step.kind) if isinstance(step, HandStep) else (step.kind, step.value)


@dataclass(frozen=True)
class _Located:
    """A YAML value and where it begins: file and line. value: None, bool, Decimal, str, a list or a dict of _Located.

    text: a scalar as it is written, without quotes; "a list" or "a mapping" otherwise.
    keys: of a dict, where each key stands.
    """

    value: Any
    where: str
    text: str
    keys: dict[str, str]

    @property
    def shown(self) -> str:
        """The value as an error quotes it: text in quotes, so that '0.3' is not taken for 0.3."""
        return quoted(self.text) if isinstance(self.value, str) else self.text or "nothing"

    @property
    def content(self) -> str:
        """The same; of a list or mapping what stands in it, where it is short."""
        if not isinstance(self.value, list | dict) or not 1 <= len(self.value) <= 4:
            return self.shown
        if isinstance(self.value, list):
            return f"[{', '.join(item.shown for item in self.value)}]"
        return "{" + ", ".join(f"{key}: {item.shown}" for key, item in self.value.items()) + "}"


class _Definition(Frozen):
    """What a recipe says of a column that it defines."""

    mix: Weights
    standardise: Standardise = "zscore"
    missing: Literal["mean"] | None = None


def _defined(columns: _Located) -> dict[str, Mix]:
    """The columns that a recipe defines."""
    if not isinstance(columns.value, dict) or not columns.value:
        expected = "columns that mixes get, such as {good: {mix: {s_cliploss: 1, clip_score: 0.5}}}"
        raise RecipeError(columns.where, expected=expected, found=columns.shown)
    found: dict[str, Mix] = {}
    for name, said in columns.value.items():
        if not 1 <= len(name) <= _LONGEST_NAME or name.startswith("{"):
            expected = f"a column's name of at most {_LONGEST_NAME} characters, without a brace at its beginning"
            raise RecipeError(columns.keys[name], expected=expected, found=quoted(name))
        if not isinstance(said.value, dict) or "mix" not in said.value:
            raise RecipeError(said.where, expected="a mix, such as {mix: {s_cliploss: 1}}", found=said.shown)
        _check_keys(said, list(_Definition.model_fields))
        values = {key: _plain(key, value) for key, value in said.value.items()}
        made = _validated(_Definition, values, said, name)
        found[name] = Mix(made.mix, made.standardise, made.missing)
    return found


def _step(step: _Located, defined: dict[str, Mix], allowed: Collection[str] = KINDS) -> AnyStep:
    """The step that a mapping says. defined: the columns of the recipe. allowed: kinds that may stand here."""
    if not isinstance(step.value, dict):
        expected = "a step such as {column: clip_score, keep_top: 0.3}"
        raise RecipeError(step.where, expected=expected, found=step.shown)
    kinds = [key for key in step.value if key in allowed]
    if len(kinds) != 1:
        _check_keys(step, [key for key in _STEP_KEYS if key in allowed or key not in KINDS])
        if kinds:
            found, remedy = f"{kinds[0]} and {kinds[1]} in one step", "write two steps"
            raise RecipeError(step.keys[kinds[1]], expected="one action a step", found=found, remedy=remedy)
        found = ", ".join(step.value) or "none of them"
        raise RecipeError(step.where, expected=f"one of {', '.join(allowed)}", found=found)
    kind = KINDS[kinds[0]]
    taken = {
        key for name in kind.model_fields for key in ((name, "metric") if name == "column" else (name.rstrip("_"),))
    }
    _check_keys(step, [key for key in _STEP_KEYS if key in taken])
    if "column" in step.value and "metric" in step.value:
        found = "column and metric in one step"
        raise RecipeError(step.keys["metric"], expected="one column a step", found=found, remedy="remove one")
    values = {key: _plain(key, value) for key, value in step.value.items()}
    if isinstance(values.get("any_of"), list):
        values["any_of"] = tuple(_step(item, defined, _JUDGES) for item in step.value["any_of"].value)
    built = _validated(kind, values, step, kinds[0])
    if allowed is _JUDGES and not built.enabled:
        remedy = "take the filter out, or switch the whole step off"
        raise RecipeError(step.keys["enabled"], expected="filters that are on", found="enabled: false", remedy=remedy)
    used = tuple((name, defined[name]) for name in dict.fromkeys(_named_by(built)) if name in defined)
    return built.model_copy(update={"defined": used}).read_at(step.where)


def _validated(kind: type[Model], values: dict[str, Any], step: _Located, action: str) -> Model:
    """What a mapping says as its model has it. action: what the others of its keys stand beside."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = str((*first["loc"], "")[0])
        if first["type"] == "together":
            expected = f"{first['msg']} beside {action}"
            raise RecipeError(step.where, expected=expected, found=first["ctx"]["found"]) from error
        if key not in step.value:
            raise RecipeError(step.where, expected=f"a {key} beside {action}", found="none") from error
        wrong = value = step.value[key]
        if isinstance(value.value, list | dict):
            items = value.value.values() if isinstance(value.value, dict) else value.value
            wrong = next((item for item in items if not _may_be_item(key, item)), value)
        found = value.content if wrong is value and key in ("between", "mix", "by") else wrong.shown
        raise RecipeError(wrong.where, expected=f"{key} to be {_EXPECTED[key]}", found=found) from error


def _may_be_item(key: str, item: _Located) -> bool:
    """Whether a value may stand within the list or mapping of a key: where not, an error points at it."""
    if isinstance(item.value, list | dict):
        return False
    if key in _HAND:
        return bool(_UID.fullmatch(item.text))
    return (
        isinstance(item.value, Decimal)
        if key in ("mix", "by", "between")
        else key != "contains" or bool(_WORD.search(item.text))
    )


def _check_keys(mapping: _Located, allowed: list[str]) -> None:
    for key, where in mapping.keys.items():
        if key not in allowed:
            raise RecipeError(where, expected=f"one of the keys {', '.join(allowed)}", found=quoted(key))


def _plain(key: str, value: _Located) -> Any:
    """A value as the model takes it. Names, uids, paths and the values of `in` are text however they look."""
    if isinstance(value.value, list):
        if key in (*_HAND, "in", "contains"):
            return [item if isinstance(item.value, list | dict) else item.text for item in value.value]
        return [item.value for item in value.value] if key == "between" else value.value
    if isinstance(value.value, dict):
        return {name: weight.value for name, weight in value.value.items()} if key in ("mix", "by") else value.value
    if key == "by":
        return {value.text: Decimal(1)}
    return value.text if key in ("column", "metric", *_LISTS) else value.value


def _parse_yaml(text: str, where: str) -> _Located:
    """The values of a YAML document, with lines. where: what errors call it.

    Raises: RecipeError where the text is not plain YAML, repeats a key, or is too long or too deep to be a recipe.
    """
    if len(text) > _MOST_CHARACTERS:
        found, remedy = f"{len(text):,} characters", "put long lists of uids into a file and intersect with it"
        raise RecipeError(where, expected=f"at most {_MOST_CHARACTERS:,}", found=found, remedy=remedy)
    if unprintable := yaml.reader.Reader.NON_PRINTABLE.search(text):
        number, found = text.count("\n", 0, unprintable.start()) + 1, f"the character {unprintable.group()!r}"
        raise RecipeError(f"{where}:{number}", expected="printable text", found=found)
    depth = 0
    try:
        # Piece by piece, before anything is built of it.
        for event in yaml.parse(text, _LOADER):
            line = f"{where}:{event.start_mark.line + 1}"
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise RecipeError(line, expected="plain YAML", found="an anchor or alias", remedy="write the value out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise _too_deep(line)
        node = yaml.compose(text, _LOADER)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "something else"
        line = f"{where}:{mark.line + 1 if mark else 1}"
        # Some versions of PyYAML have a limit of their own, and reach it as they look ahead: before an event is given.
        if isinstance(error, RecursionError) or "nesting" in problem:
            raise _too_deep(line) from error
        raise RecipeError(line, expected="YAML", found=problem.removeprefix("but found ")) from error
    return _located(node, where) if node else _Located(None, f"{where}:1", "", {})


def _too_deep(where: str) -> RecipeError:
    remedy = "write each step as one mapping, such as {column: clip_score, keep_top: 0.3}"
    found = f"lists or mappings within others, more than {_DEEPEST} deep"
    return RecipeError(where, expected="a list of steps", found=found, remedy=remedy)


def _located(node: yaml.Node, file: str) -> _Located:
    where = f"{file}:{node.start_mark.line + 1}"
    if node.tag not in _PLAIN_TAGS:
        raise RecipeError(where, expected="plain YAML", found=f"the tag {quoted(node.tag)}")
    if isinstance(node, yaml.SequenceNode):
        items = [_located(item, file) for item in node.value]
        return _Located(items, where, "a list" if items else "an empty list", {})
    if not isinstance(node, yaml.MappingNode):
        value: Any = node.value
        if not node.style:
            if node.tag.endswith(":null"):
                value = None
            elif node.tag.endswith(":bool"):
                value = node.value.lower() in ("true", "yes", "on", "y")
            elif _NUMBER.fullmatch(node.value):
                value = Decimal(node.value)
        return _Located(value, where, node.value, {})
    values: dict[str, _Located] = {}
    keys: dict[str, str] = {}
    for key, value in node.value:
        line = f"{file}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise RecipeError(line, expected="a key", found="a list or mapping")
        if key.value in values:
            found = f"{quoted(key.value)} twice"
            raise RecipeError(line, expected="each key once", found=found, remedy="remove one")
        values[key.value], keys[key.value] = _located(value, file), line
    return _Located(values, where, "a mapping", keys)


class _Dumper(yaml.SafeDumper):
    """Writes each mapping inside a list on one line, and decimals in full."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_decimal(self, data: Decimal) -> yaml.Node:
        text = plain_decimal(data)
        return self.represent_scalar(f"tag:yaml.org,2002:{'float' if '.' in text else 'int'}", text)

    def represent_text(self, data: str) -> yaml.Node:
        # Only double quotes keep line breaks, Unicode's three among them, as they are.
        style = '"' if _BREAKS.search(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    def represent_list_of_mappings(self, data: list[Any]) -> yaml.Node:
        node = self.represent_sequence("tag:yaml.org,2002:seq", data)
        for item in node.value:
            item.flow_style = True if isinstance(item, yaml.MappingNode) else None
        node.flow_style = not any(isinstance(item, yaml.MappingNode) for item in node.value)
        return node


_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_representer(Decimal, _Dumper.represent_decimal)
_Dumper.add_representer(list, _Dumper.represent_list_of_mappings)
