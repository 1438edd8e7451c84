"""What is a column? What it is called, what it measures, which way is better and where its values come from.

Pages, commands and recipes ask here what to say of a column, and name none themselves. Those that a run has are listed
by `clipsel_core.curation.index.columns`.

Derived columns are made of others when they are asked for: a mix, a column turned round, random numbers. Each has a
name that says all of it, so that whatever takes a column's name takes these as well. The names are JSON, and begin with
a brace as no column's own name does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field

_NORMSIM = re.compile(r"normsim_([^_]+)_(.+)")
Kind = Literal["number", "category", "flag", "text"]
Direction = Literal["higher", "lower"]
Standardise = Literal["zscore", "rank", "none"]
MOST_CATEGORIES = 10_000
"""Texts of a column that may differ: more are no categories."""
_STANDARDISED = {"zscore": "z-scores", "rank": "ranks", "none": "values"}


class Column(BaseModel):
    """One value a pair, kept as float32; NaN, or "" of a text, where a pair has none.

    title: what people read instead of its name. measures, misleads: a sentence each; "" where nothing is known.
    kind: number; category, the place of its value in `values`; flag, 1 or 0; text, which only the pool's table holds.
    direction: which of its values are better, None where neither is. unit: "" where it has none.
    least, most: between what its values lie, None where there is no such bound.
    origin: where its values come from: computed, target, pool, imported, run or mix.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=200)]
    title: str = ""
    measures: str = ""
    misleads: str = ""
    kind: Kind = "number"
    direction: Direction | None = None
    unit: str = ""
    least: Annotated[float | None, Field(exclude_if=lambda bound: bound is None)] = None
    most: Annotated[float | None, Field(exclude_if=lambda bound: bound is None)] = None
    origin: Literal["computed", "target", "pool", "imported", "run", "mix"] = "computed"
    values: tuple[str, ...] = ()

    @property
    def is_number(self) -> bool:
        """Whether its values can be put in order."""
        return self.kind in ("number", "flag")

    @property
    def help(self) -> str:
        """What it measures, between what it lies and when it misleads, a sentence each."""
        bounds = f"Values: {self.range}." if self.range else ""
        return " ".join(filter(None, (self.measures, bounds, self.misleads)))

    @property
    def range(self) -> str:
        """Between what its values lie and in which unit, "" where nobody said."""
        least, most = (f"{bound:,g}" if bound is not None else "" for bound in (self.least, self.most))
        bounds = f"{least} to {most}" if most else f"{least} or more" if least else ""
        return f"{bounds} {self.unit}".strip()

    @property
    def shown(self) -> str:
        """Its title, or its name where it has none."""
        return self.title or self.name


class Said(TypedDict, total=False):
    """What may be said of a column that is imported; the rest is found out."""

    title: str
    measures: str
    direction: Direction | None
    unit: str
    least: float
    most: float


CLIP_SCORE = Column(
    name="clip_score",
    title="CLIPScore",
    measures="Cosine of an image with its own caption; higher is better.",
    misleads="Misleads on images that show their caption as text, and on captions so general that they fit anything.",
    direction="higher",
    least=-1,
    most=1,
)
S_CLIPLOSS = Column(
    name="s_cliploss",
    title="s-CLIPLoss",
    measures="CLIPScore less what image and caption gain by fitting the rest of their batch; higher is better.",
    misleads="Misleads where a batch is small or full of near duplicates, because twins are marked down for each "
    "other.",
    direction="higher",
)
R_IMAGE = Column(
    name="r_image",
    title="r image",
    measures="How well the image fits the other captions of its batch; the half of the normalizer it pays.",
    misleads="A high value says that the image is common or vague, not that the pair is bad.",
)
R_TEXT = Column(
    name="r_text",
    title="r text",
    measures="How well the caption fits the other images of its batch; the half of the normalizer it pays.",
    misleads="A high value says that the caption is common or vague, not that the pair is bad.",
)
NORMALIZER_ERROR = Column(
    name="normalizer_se",
    title="Normalizer error",
    measures="Standard error of the normalizer over the random divisions; lower is steadier.",
    misleads="Says how much the rank would move under another seed, and nothing about how good the pair is.",
    least=0,
)
SCORES = {column.name: column for column in (CLIP_SCORE, S_CLIPLOSS, R_IMAGE, R_TEXT, NORMALIZER_ERROR)}
NORMSIM = "NormSim"
"""What the columns that compare a pair with a target are called together."""

NEAREST = "normsim_inf_"
"""With a target's name behind it, the column of how near the nearest of its images is."""

NORMSIM_2D = "normsim_2d"
NEIGHBOUR_RANK = "neighbour_rank_"
"""With a target's name behind it, the column of a pair's best place among the nearest of its images."""

# What DataComp's tables, and those that img2dataset writes, hold beside the captions.
IN_POOLS = {
    column.name: column
    for column in (
        Column(
            name="original_width",
            title="Width",
            measures="Width of the image as it was found on the web.",
            unit="px",
            origin="pool",
            least=0,
        ),
        Column(
            name="original_height",
            title="Height",
            measures="Height of the image as it was found on the web.",
            unit="px",
            origin="pool",
            least=0,
        ),
        Column(
            name="aspect_ratio",
            title="Aspect ratio",
            measures="The longer side of the image over the shorter one, from width and height in the pool's table.",
            origin="pool",
            least=1,
        ),
    )
}


def usual(names: Sequence[str]) -> str:
    """The one of these columns that people look at first. Raises IndexError where there is none."""
    return S_CLIPLOSS.name if S_CLIPLOSS.name in names else names[0]


def describe(name: str) -> Column:
    """What is known of a computed column by its name alone; an unknown one is described by its name."""
    if name in SCORES:
        return SCORES[name]
    match = _NORMSIM.fullmatch(name)
    if match is None:
        return Column(
            name=name,
            measures="A column that was imported.",
            misleads="Its maker knows what it means.",
            origin="imported",
        )
    p, target = match.groups()
    if p == "inf":
        measures = f"Largest cosine of the image with any image of the target {target}; higher is better."
        misleads = "One odd target image lets all its look-alikes in; captions take no part."
    else:
        measures = f"{p}-norm of the image's cosines with all images of the target {target}; higher is better."
        misleads = "Favours what the target shows most often, grows with the target's size; captions take no part."
    title = f"{NORMSIM} {'∞' if p == 'inf' else p} · {target}"
    return Column(
        name=name,
        title=title,
        measures=measures,
        misleads=misleads,
        direction="higher",
        least=0,
        most=1 if p == "inf" else None,
        origin="target",
    )


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
