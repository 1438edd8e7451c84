"""What is a recipe? Steps that pick pairs, checked when they are made; and what does another one say differently?"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from difflib import SequenceMatcher
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from clipsel_core import uids
from clipsel_core.curation.recipes.uidlists import ENDINGS
from clipsel_core.errors import RecipeError, UidError, quoted

_MOST_DECIMALS = 30


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
    if not isinstance(value, str) or Path(value).suffix.lower() not in ENDINGS.split(", "):
        raise ValueError("not a list of uids")
    return value


Metric = Annotated[str, Field(min_length=1, max_length=200)]
Part = Annotated[Decimal, BeforeValidator(_fraction)]
Threshold = Annotated[float, BeforeValidator(_threshold)]
Uids = Annotated[tuple[str, ...], BeforeValidator(_uid_digits)]
ListFile = Annotated[str, BeforeValidator(_list_file)]


class Frozen(BaseModel):
    """Two are equal when they say the same, wherever they were read from."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and dict(self) == dict(other)


class Step(Frozen):
    """One step of a recipe. kind: the key that says what it does. enabled: whether it runs."""

    kind: ClassVar[str]
    enabled: bool = True
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

    @property
    def value(self) -> Any:
        """What its kind is set to: a share, a threshold, the name of a list or uids."""
        return getattr(self, self.kind)

    @property
    @abstractmethod
    def text(self) -> str:
        """What the step does, in words."""


class MetricStep(Step):
    """Looks at each pair's value of a metric."""

    metric: Metric

    @property
    def text(self) -> str:
        return f"{self.metric} {self.kind.replace('_', ' ')} {self.value!r}"


class KeepTop(MetricStep):
    """Keeps the highest of a metric: floor(keep_top * N) pairs, N the pool's or the survivors' number."""

    kind = "keep_top"
    keep_top: Part
    of: Literal["pool", "survivors"] = "pool"

    @property
    def text(self) -> str:
        return f"top {plain_decimal(self.keep_top * 100)} % of the {self.of} by {self.metric}"


class AtLeast(MetricStep):
    """Keeps pairs whose metric is this value or more."""

    kind = "at_least"
    at_least: Threshold


class AtMost(MetricStep):
    """Keeps pairs whose metric is this value or less."""

    kind = "at_most"
    at_most: Threshold


class ListStep(Step):
    """Looks whether a list of uids names a pair. words: what its text says before "those in" the list."""

    words: ClassVar[str]

    @property
    def text(self) -> str:
        return f"{self.words} those in {self.value}"


class Intersect(ListStep):
    """Keeps pairs that a list names."""

    kind, words = "intersect", "only"
    intersect: ListFile


class Union(ListStep):
    """Adds the pairs that a list names; the run must have them all."""

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


AnyStep = KeepTop | AtLeast | AtMost | Intersect | Union | Subtract | Keep | Drop
KINDS: dict[str, type[AnyStep]] = {step.kind: step for step in get_args(AnyStep)}


class Recipe(Frozen):
    """Steps in the order they run, from the whole pool; disabled ones are left out. `folder` holds its uid lists."""

    name: Annotated[str, Field(max_length=200)] | None = None
    steps: Annotated[tuple[AnyStep, ...], Field(min_length=1)]
    _folder: Path = PrivateAttr(default_factory=Path)

    @property
    def folder(self) -> Path:
        """Where relative names of uid lists begin: the folder of the recipe's file."""
        return self._folder

    def in_folder(self, folder: Path) -> Recipe:
        """The same recipe with its uid lists looked for in another folder."""
        moved = self.model_copy()
        moved._folder = folder
        return moved

    def list_files(self) -> list[Path]:
        """The uid lists that the enabled steps read."""
        return [self.folder / step.value for step in self.steps if step.enabled and isinstance(step, ListStep)]


def check_metrics(recipe: Recipe, metrics: Collection[str]) -> None:
    """Raises RecipeError where a step asks for a metric that the run lacks."""
    for step in recipe.steps:
        if isinstance(step, MetricStep) and step.metric not in metrics:
            expected = f"one of the run's metrics {', '.join(metrics)}"
            raise RecipeError(step.where, expected=expected, found=quoted(step.metric))


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

        >>> steps = (KeepTop(metric="clip_score", keep_top=share) for share in (0.3, 0.2))
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
    if isinstance(step, MetricStep):
        return "metric", step.metric
    return ("by hand", step.kind) if isinstance(step, HandStep) else (step.kind, step.value)
