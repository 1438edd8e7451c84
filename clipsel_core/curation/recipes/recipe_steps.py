"""What may a step of a recipe say? One class for each thing that a step can do, checked when it is made."""

from __future__ import annotations

import math
from abc import abstractmethod
from decimal import Decimal
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from clipsel_core import uids
from clipsel_core.curation.recipes.recipe_yaml import plain_decimal
from clipsel_core.curation.recipes.uidlists import ENDINGS
from clipsel_core.errors import UidError

_MOST_DECIMALS = 30


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
    @abstractmethod
    def text(self) -> str:
        """What the step does, in words."""


class KeepTop(Step):
    """Keeps the highest of a metric: floor(keep_top * N) pairs, N the pool's or the survivors' number."""

    kind = "keep_top"
    metric: Metric
    keep_top: Part
    of: Literal["pool", "survivors"] = "pool"

    @property
    def text(self) -> str:
        whole = "pool" if self.of == "pool" else "survivors"
        return f"top {plain_decimal(self.keep_top * 100)} % of the {whole} by {self.metric}"


class AtLeast(Step):
    """Keeps pairs whose metric is this value or more."""

    kind = "at_least"
    metric: Metric
    at_least: Threshold

    @property
    def text(self) -> str:
        return f"{self.metric} at least {self.at_least!r}"


class AtMost(Step):
    """Keeps pairs whose metric is this value or less."""

    kind = "at_most"
    metric: Metric
    at_most: Threshold

    @property
    def text(self) -> str:
        return f"{self.metric} at most {self.at_most!r}"


class Intersect(Step):
    """Keeps pairs that a list names."""

    kind = "intersect"
    intersect: ListFile

    @property
    def text(self) -> str:
        return f"only those in {self.intersect}"


class Union(Step):
    """Adds the pairs that a list names; the run must have them all."""

    kind = "union"
    union: ListFile

    @property
    def text(self) -> str:
        return f"and those in {self.union}"


class Subtract(Step):
    """Drops pairs that a list names."""

    kind = "subtract"
    subtract: ListFile

    @property
    def text(self) -> str:
        return f"without those in {self.subtract}"


class Keep(Step):
    """Adds pairs by hand; the run must have them all. keep: uids as 32 hex digits."""

    kind = "keep"
    keep: Uids

    @property
    def text(self) -> str:
        return f"keep {len(self.keep):,} by hand"


class Drop(Step):
    """Drops pairs by hand; the run must have them all. drop: uids as 32 hex digits."""

    kind = "drop"
    drop: Uids

    @property
    def text(self) -> str:
        return f"drop {len(self.drop):,} by hand"


AnyStep = KeepTop | AtLeast | AtMost | Intersect | Union | Subtract | Keep | Drop
KINDS: dict[str, type[AnyStep]] = {
    step.kind: step for step in (KeepTop, AtLeast, AtMost, Intersect, Union, Subtract, Keep, Drop)
}
