"""How much of a selection is chance? The share that would be other pairs had the run been scored with another seed.

s-CLIPLoss is a mean over K random divisions, and `normalizer_se` is the standard error of that mean for each pair. Two
seeds draw their divisions independently, so the difference between a pair's score under another seed, s', and the score
we have, s, is normal with mean 0 and variance se^2 + se^2:

    s' - s ~ N(0, 2 se^2)        se = normalizer_se / c4(K)        P(s' >= t) = Phi((s - t) / (sqrt(2) se))

c4(K) = sqrt(2 / (K - 1)) Gamma(K / 2) / Gamma((K - 1) / 2) takes out that a standard deviation estimated from K values
is too small on average (0.973 at K = 10). Thresholds are held where they are: the threshold of a keep_top is a quantile
of all N scores and moves by the order of 1 / sqrt(N). Steps on other metrics do not depend on the seed, so a pair flips
exactly when s' lands where the recipe as a whole decides otherwise about it.

The two seeds are alike, so as many pairs are expected to leave a selection as to join it. The two sums that we have of
them, lost and gained, differ a little, because scores that passed a threshold by luck are more often above it than
below; their mean is the estimate.

Held against seeds that were really drawn (3,000 pairs, 12 seeds, tau 0.05 and 0.1): within 6 % where a batch is a
quarter of its shard, as at B = 32,768. Where it is a thirtieth, a few near neighbours decide each sum, the draws are
skewed, and the estimate can be 20 % low at K = 5, 13 % at K = 10.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.ranking import float32_up
from clipsel_core.curation.recipes.recipe import AtLeast, AtMost, KeepTop, Recipe, columns_of
from clipsel_core.curation.selecting.selection import Selection

NOISY = "s_cliploss"
_ERROR = "normalizer_se"
# Of these the seed's share is not on record, nor of what s_cliploss is mixed with: normalizer_se is that of their sum.
_UNKNOWN = ("r_image", "r_text", _ERROR)
_FARTHEST = 6.0
_GRID = np.linspace(-_FARTHEST, _FARTHEST, 8193)
_NORMAL = np.array([0.5 * math.erfc(-place / math.sqrt(2)) for place in _GRID])


@dataclass(frozen=True)
class Stability:
    """What another seed would do to a selection.

    kept: pairs in it. lost, gained: expected number of pairs that would leave it, and that would join it.
    rows: (M,) int64 row numbers of the pairs most likely to flip, likeliest first. chances: (M,) float64, of each.
    noisy: how many enabled steps use s-CLIPLoss. unknown: metrics of enabled steps that depend on the seed in a way
        that the run has no record of.
    scored_once: no pair has a standard error above 0, because there was one division, or one batch, and no chance.
    """

    kept: int
    lost: float
    gained: float
    rows: np.ndarray
    chances: np.ndarray
    noisy: int
    unknown: tuple[str, ...]
    scored_once: bool

    @property
    def flips(self) -> float:
        """Expected number of pairs of the selection that would be other ones."""
        return (self.lost + self.gained) / 2

    @property
    def share(self) -> float:
        """The same as a share of the selection, 0 to 1; 0 where nothing is kept."""
        return min(self.flips / self.kept, 1.0) if self.kept else 0.0


def stability(selection: Selection, recipe: Recipe, *, most: int = 48) -> Stability:
    """Estimates what another seed would change. selection: what the recipe keeps. most: rows to name."""
    table = selection.table
    steps = [step for step in recipe.steps if step.enabled]
    noisy = [getattr(step, "metric", None) for step in steps].count(NOISY)
    asked = [(getattr(step, "metric", None), name) for step in steps for name in columns_of(step)]
    unknown = tuple(dict.fromkeys(name for metric, name in asked if name in _UNKNOWN or name == NOISY != metric))
    if not noisy or _ERROR not in table.metrics:
        return Stability(len(selection), 0.0, 0.0, np.empty(0, np.int64), np.empty(0), noisy, unknown, False)
    edges, kept_in = _regions(selection, recipe)
    # The rows whose fate a seed could change at all, and the deviation of s' from s for each.
    values, error = table.column(NOISY), table.column(_ERROR)
    spread = _spread(table.run.config.divisions)
    open_still, near = np.zeros(len(values), bool), np.zeros(len(values), bool)
    for below, above in pairwise(kept_in):
        open_still |= below != above
    for edge in edges:
        near |= np.abs(values - np.float32(edge)) <= np.float32(_FARTHEST * spread) * error
    rows = np.flatnonzero(open_still & near & (error > 0))
    deviation = spread * error[rows].astype(np.float64)
    kept = selection.mask()[rows]
    chances = _chances(values[rows], deviation, edges, [kept_if[rows] != kept for kept_if in kept_in])
    order = np.argsort(-chances, kind="stable")[:most]
    order = order[chances[order] > 0]
    lost, gained = float(chances[kept].sum()), float(chances[~kept].sum())
    once = not np.any(error > 0)
    return Stability(len(selection), lost, gained, rows[order], chances[order], noisy, unknown, once)


def _regions(selection: Selection, recipe: Recipe) -> tuple[np.ndarray, list[np.ndarray]]:
    """Where along s-CLIPLoss the recipe's decisions change, (E,) ascending, and who is kept in each of the E + 1 parts.

    Each part's answer, (N,) bool, says of every pair whether it would be kept if its s-CLIPLoss lay there and all
    thresholds were what they are.
    """
    table = selection.table
    steps = [step for step in recipe.steps if step.enabled]
    limits = [np.inf if report.threshold is None else report.threshold for report in selection.report]
    noisy = [getattr(step, "metric", None) == NOISY for step in steps]
    edges = np.unique([limit for limit, counts in zip(limits, noisy, strict=True) if counts and math.isfinite(limit)])
    answers = []
    for part in range(len(edges) + 1):
        left = table.selectable()
        for step, cut, limit, counts in zip(steps, selection.cuts, limits, noisy, strict=True):
            if counts:
                above = bool(part > np.searchsorted(edges, limit))
                left = left if above != isinstance(step, AtMost) else np.zeros_like(left)
            elif isinstance(step, KeepTop | AtLeast):
                left = left & (table.column(step.metric) >= float32_up(np.array(limit)))
            elif isinstance(step, AtMost):
                left = left & (table.column(step.metric) <= -float32_up(np.array(-limit)))
            elif cut.kind == "from":
                passing = np.zeros(len(left), bool)
                passing[table.ranking(cut.name).order[cut.rank :]] = True
                left = left & passing
            else:
                listed = bitmaps.unpack(cut.listed, len(left))
                left = (
                    left | listed & table.selectable() if cut.kind == "add" else left & (listed == (cut.kind == "in"))
                )
        answers.append(left)
    return edges, answers


def _spread(divisions: int) -> float:
    """How far apart two seeds' scores lie, in units of the standard error that was estimated from K divisions."""
    if divisions < 2:
        return 0.0
    half = divisions / 2
    c4 = math.sqrt(2 / (divisions - 1)) * math.exp(math.lgamma(half) - math.lgamma(half - 0.5))
    return math.sqrt(2) / c4


def _chances(values: np.ndarray, deviation: np.ndarray, edges: np.ndarray, other: list[np.ndarray]) -> np.ndarray:
    """The chance that s' lands in a part where the answer is another one: (M,) float64 in [0, 1]."""
    below = np.zeros(len(values))
    chances = np.zeros(len(values))
    for part, differs in enumerate(other):
        if part == len(edges):
            upto = np.ones(len(values))
        else:
            upto = np.interp((edges[part] - values.astype(np.float64)) / deviation, _GRID, _NORMAL, 0.0, 1.0)
        chances += np.where(differs, upto - below, 0.0)
        below = upto
    return chances
