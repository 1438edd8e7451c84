"""Which columns are made of others when they are asked for? A mix, a column turned round, random numbers.

Each has a name that says all of it, so that whatever takes a column's name takes these as well. The names are JSON, and
begin with a brace as no column's own name does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Literal

Standardise = Literal["zscore", "rank", "none"]
_STANDARDISED = {"zscore": "z-scores", "rank": "ranks", "none": "values"}


@dataclass(frozen=True)
class Mix:
    """The weighted sum of columns. weights: a column and its weight each, in any order.

    standardise: what is done to each column before: zscore, (v - mean) / standard deviation over its finite values;
    rank, (average rank - 1/2) / n, 0 to 1; or none. missing: mean has a pair that lacks a column take the mean of what
    is summed; with None it has no mix.
    """

    weights: tuple[tuple[str, Decimal], ...]
    standardise: Standardise = "zscore"
    missing: Literal["mean"] | None = None

    @property
    def name(self) -> str:
        """The same for equal mixes, whatever the order of their columns."""
        said: dict[str, object] = {
            "mix": {column: f"{weight.normalize():f}" for column, weight in sorted(self.weights)},
            "standardise": self.standardise,
        }
        return json.dumps(said | ({"missing": self.missing} if self.missing else {}), ensure_ascii=False)


@dataclass(frozen=True)
class Negated:
    """A column whose highest values are the lowest of another. column: a name, of a derived column too."""

    column: str

    @property
    def name(self) -> str:
        return json.dumps({"negated": self.column}, ensure_ascii=False)


@dataclass(frozen=True)
class Noise:
    """Random numbers, uniform from 0 up to 1, that follow from seed and uid alone."""

    seed: int

    @property
    def name(self) -> str:
        return json.dumps({"random": self.seed})


@lru_cache(maxsize=1024)
def parse_derived(name: str) -> Mix | Negated | Noise | None:
    """What a name stands for; None where it is a column's own."""
    if not name.startswith("{"):
        return None
    try:
        said = json.loads(name)
        if "mix" in said:
            weights = tuple((column, Decimal(weight)) for column, weight in said["mix"].items())
            return Mix(weights, said["standardise"], said.get("missing"))
        return Negated(str(said["negated"])) if "negated" in said else Noise(int(said["random"]))
    except (ValueError, LookupError, TypeError, ArithmeticError):
        return None


def words_of(name: str, title: Callable[[str], str] = str) -> str:
    """A column's name as people read it. title: what a column that is not derived is called.

    >>> words_of(Mix((("s_cliploss", Decimal("1.0")), ("dfn", Decimal("0.5")))).name)
    '0.5 dfn + 1 s_cliploss (z-scores)'
    """
    match parse_derived(name):
        case Mix(weights=((column, weight),), standardise="none") if weight == 1:
            return words_of(column, title)
        case Mix() as mix:
            summed = " + ".join(
                f"{weight.normalize():f} {words_of(column, title)}" for column, weight in sorted(mix.weights)
            )
            return f"{summed.replace('+ -', '- ')} ({_STANDARDISED[mix.standardise]})"
        case Negated() as negated:
            return f"lowest {words_of(negated.column, title)}"
        case Noise() as noise:
            return f"random numbers, seed {noise.seed}"
    return title(name)
