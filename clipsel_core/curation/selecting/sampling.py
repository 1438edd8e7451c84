"""How often is each pair drawn, where a selection is a number of samples and a pair may be drawn several times?

soft_cap and hard_cap draw one pair after another. The pairs are sorted into levels of scores that are close together.
A draw picks a level with a probability proportional to the number of its pairs times the largest weight that one of
them can have. It picks a place in the level at random, and takes the pair there with the probability of the pair's
weight over that largest weight; otherwise it starts again. A pair that takes no further part in a round is swapped
behind those of its level that do. This is exact up to the rounding of float64, and a level is left out while its
probability is below 1e-20.

The order of the pairs takes 4 bytes a pair, besides the scores and the counts. One thread draws. Random numbers are
PCG64's, and all else is sums, products and quotients of float64: the same arguments give the same counts on every
machine that computes these as IEEE 754 says.
"""

from __future__ import annotations

import math

import numpy as np

from clipsel_core.curation.index.bitmaps import compiled, in_parts, read_only
from clipsel_core.errors import SamplingError, counted, quoted
from clipsel_core.tasks import check

_WIDEST = 0.25  # of a level, in units of the score: at least 78 of 100 places that are picked are taken
_MOST_LEVELS = 1 << 22
_FAR = 100.0  # e^-100 is no probability
_AT_ONCE = 1 << 20
_BLOCK = 1 << 16


def soft_cap(
    scores: np.ndarray, samples: int, *, penalty: float = 0.15, per_round: int = 100_000, seed: int
) -> np.ndarray:
    """How often each pair is drawn by soft cap sampling: in rounds, and a pair that was drawn is less likely later.

    A round draws per_round different pairs one after another, each with the probability exp(f_i) over the sum of
    exp(f_j) of the pairs that the round has not drawn yet; then f of those drawn is lowered by the penalty. f starts as
    the score. The last round draws what is left. A round draws each pair once where fewer than per_round have a score.
    scores: (N,) of any scale, which matters; a pair whose score is NaN or -inf is never drawn.
    penalty: at least 0; inf draws no pair again before all were drawn.
    Returns: (N,) uint16, or uint32 where a pair may come 65,536 times; their sum is samples.
    Raises: SamplingError where an argument is out of range or the scores lie too far apart for the penalty.
    Reference: arXiv 2503.08805, soft cap sampling.
    """
    scores, low, high, scored = _checked(scores, samples, seed)
    if not penalty >= 0:
        raise SamplingError("penalty", expected="a number of at least 0", found=quoted(penalty))
    if per_round < 1:
        raise SamplingError("round", expected="at least 1 pair a round", found=quoted(per_round))
    per_round, drawn_before = min(per_round, scored), 0
    counts = _zeros(len(scores), -(-samples // per_round))
    if per_round == scored:
        # A round draws all and lowers all, which leaves the probabilities as they are.
        rounds = samples // scored
        in_parts(
            lambda start, stop: np.multiply(scores[start:stop] > -np.inf, rounds, counts[start:stop], casting="unsafe"),
            len(scores),
        )
        drawn_before = rounds * scored
    # A larger penalty changes nothing: a pair that was drawn once more than another is never drawn before it.
    penalty = min(penalty, high - low + _FAR)
    phases = max(1, math.ceil(penalty / _WIDEST))
    levels = _Levels(scores, low, high, scored, phases, penalty / phases or _WIDEST)
    generator = _generator(seed)
    for drawn in range(drawn_before, samples, per_round):
        check()
        levels.draw(generator, min(per_round, samples - drawn), 1, counts)
        levels.end_round(lower=penalty > 0)
    return counts


def hard_cap(scores: np.ndarray, samples: int, *, limit: int, seed: int) -> np.ndarray:
    """How often each pair is drawn with replacement, none more than so many times.

    Pairs are drawn one after another, each with the probability exp(f_i) over the sum of exp(f_j) of the pairs that
    were drawn fewer than limit times. f is the score.
    scores: (N,) of any scale, which matters; a pair whose score is NaN or -inf is never drawn.
    Returns: (N,) uint16, or uint32 where a pair may come 65,536 times; their sum is samples.
    Raises: SamplingError where an argument is out of range, the scores lie too far apart, or limit times the number of
    pairs that have a score is less than samples.
    Reference: arXiv 2503.08805, hard cap sampling.
    """
    scores, low, high, scored = _checked(scores, samples, seed)
    if limit * scored < samples:
        pairs = counted(scored, "pairs")
        raise SamplingError(
            "limit",
            expected=f"at least {-(-samples // scored):,}, to draw {counted(samples, 'samples')} from {pairs}",
            found=quoted(limit),
            remedy="raise the limit, or draw fewer samples",
        )
    limit = min(limit, samples)
    counts = _zeros(len(scores), limit)
    levels, generator = _Levels(scores, low, high, scored, 1, _WIDEST), _generator(seed)
    for drawn in range(0, samples, _AT_ONCE):
        check()
        levels.draw(generator, min(_AT_ONCE, samples - drawn), limit, counts)
    return counts


def proportional(weights: np.ndarray, samples: int, *, seed: int) -> np.ndarray:
    """How often each pair is drawn with replacement, with probabilities proportional to its weight: a multinomial.

    weights: (N,), at least 0; NaN is 0.
    Returns: (N,) uint16, or uint32 where samples are 65,536 or more; their sum is samples.
    Raises: SamplingError where a weight is negative or infinite, none is above 0, or samples are out of range.
    """
    weights = _as_floats("weights", weights, samples, seed)
    starts = range(0, len(weights), _BLOCK)

    def sums(start: int) -> np.ndarray:
        # Added one after another: other orders would round in other ways on other machines.
        return np.cumsum(np.nan_to_num(weights[start : start + _BLOCK], nan=0.0, posinf=np.inf), dtype=np.float64)

    if np.fmin.reduce(weights, initial=0) < 0:
        raise SamplingError("weights", expected="at least 0", found=f"{np.fmin.reduce(weights):g}")
    upto = np.cumsum([sums(start)[-1] for start in starts])
    total = upto[-1] if len(upto) else 0.0
    if not 0 < total < np.inf:
        raise SamplingError("weights", expected="a finite sum above 0", found=f"{total:g}")
    generator, counts, in_block = _generator(seed), _zeros(len(weights), samples), np.zeros(len(upto), np.int64)
    for drawn in range(0, samples, _AT_ONCE):
        check()
        points = generator.random(min(_AT_ONCE, samples - drawn)) * total
        in_block += np.bincount(np.searchsorted(upto, points, side="right"), minlength=len(upto))
    for start, many in zip(starts, in_block.tolist(), strict=True):
        check()
        within = sums(start)
        for drawn in range(0, many, _AT_ONCE):
            points = generator.random(min(_AT_ONCE, many - drawn)) * within[-1]
            found = np.bincount(np.searchsorted(within, points, side="right"), minlength=len(within))
            counts[start : start + _BLOCK] += found.astype(counts.dtype)
    return counts


class _Levels:
    """The pairs that have a score, sorted by it into levels of one width.

    Level k of phase p holds the pairs whose f is between k * phases + p and k * phases + p + 1 widths below the highest
    score. The penalty is as many widths as there are phases, so a pair that is lowered goes to the next level of its
    phase. One array holds the pairs, phase after phase and level after level; in each level, those that take part in
    the round come first.
    """

    def __init__(self, scores: np.ndarray, low: float, high: float, scored: int, phases: int, width: float) -> None:
        depth = int((high - low) / width) // phases + 2 if high - low < _MOST_LEVELS * width else _MOST_LEVELS + 1
        if depth * phases > _MOST_LEVELS:
            raise SamplingError(
                "scores",
                expected=f"at most {_MOST_LEVELS:,} times {width:g} between the lowest and the highest",
                found=f"{high - low:g}",
                remedy="scale the scores, or leave out the pairs that lie far off",
            )
        self._scores, self._high, self._width = scores, high, width
        self._pairs = np.empty(scored, np.uint32)
        self._ends = np.zeros((phases, depth), np.int64)  # where a level ends in the array of pairs
        _sort_into_levels(scores, high, width, self._pairs, self._ends)
        self._lay_out()

    def _lay_out(self) -> None:
        self._starts, self._to_draw = _starts_of(self._ends), self._ends.copy()
        self._by_weight = np.arange(self._ends.size).reshape(self._ends.shape).T.ravel()

    def draw(self, generator: np.random.Generator, wanted: int, limit: int, counts: np.ndarray) -> None:
        """Draws and counts so many. Where its count becomes a multiple of limit, a pair takes no further part."""
        levels = self._by_weight, self._starts.ravel(), self._to_draw.ravel()
        _draw(generator, self._scores, self._high, self._width, self._pairs, *levels, counts, wanted, limit)

    def end_round(self, *, lower: bool) -> None:
        """Lets all pairs take part again. lower: the pairs that were drawn go to the next level of their phase.

        They lie at their level's end, where the next level starts: it is its start that moves.
        """
        if not lower:
            self._to_draw[:] = self._ends
            return
        self._ends[:] = self._to_draw
        self._starts = _starts_of(self._ends)
        if (self._starts[:, -1] < self._ends[:, -1]).any():  # The next round may need a level behind the last.
            empty = int(np.argmax((self._starts < self._ends).any(axis=0)))
            self._ends = np.pad(self._ends[:, empty:], ((0, 0), (0, self._ends.shape[1])), mode="edge")
            self._lay_out()


def _starts_of(ends: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], ends.ravel()[:-1]]).reshape(ends.shape)


def _generator(seed: int) -> np.random.Generator:
    """Not numpy's default, which may become another one."""
    return np.random.Generator(np.random.PCG64(seed))


def _zeros(pairs: int, most: int) -> np.ndarray:
    return np.zeros(pairs, np.uint16 if most < 1 << 16 else np.uint32)


def _as_floats(name: str, values: np.ndarray, samples: int, seed: int) -> np.ndarray:
    if not 1 <= samples < 1 << 32:
        raise SamplingError("samples", expected="1 to 4,294,967,295", found=quoted(samples))
    if seed < 0:
        raise SamplingError("seed", expected="at least 0", found=quoted(seed))
    values = np.asarray(values)
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        raise SamplingError(name, expected="a number a pair", found=f"{values.dtype} of shape {values.shape}")
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    return read_only(np.ascontiguousarray(values))


def _checked(scores: np.ndarray, samples: int, seed: int) -> tuple[np.ndarray, float, float, int]:
    """The scores as they are read, the lowest and the highest, and how many pairs have one."""
    scores = _as_floats("scores", scores, samples, seed)

    def ends(start: int, stop: int) -> tuple[float, float, int]:
        part = scores[start:stop]
        part = part[part > -np.inf]
        return float(part.min(initial=np.inf)), float(part.max(initial=-np.inf)), len(part)

    found = in_parts(ends, len(scores)) or [(np.inf, -np.inf, 0)]
    low, high, scored = min(part[0] for part in found), max(part[1] for part in found), sum(part[2] for part in found)
    if not scored:
        raise SamplingError("scores", expected="a pair that has one", found=f"none of {counted(len(scores), 'pairs')}")
    if high == np.inf:
        raise SamplingError("scores", expected="finite numbers", found="inf", remedy="leave these pairs out")
    return scores, low, high, scored


@compiled
def _sort_into_levels(scores, high, width, pairs, ends):
    """Fills the array of pairs and where each level ends, (phases, depth) zeros."""
    phases, depth = ends.shape
    places = ends.ravel()
    for i in range(len(scores)):
        if scores[i] > -np.inf:
            level = int((high - float(scores[i])) / width)
            places[level % phases * depth + level // phases] += 1
    start = 0
    for i in range(len(places)):
        start, places[i] = start + places[i], start
    for i in range(len(scores)):
        if scores[i] > -np.inf:
            level = int((high - float(scores[i])) / width)
            place = level % phases * depth + level // phases
            pairs[places[place]] = i
            places[place] += 1


@compiled
def _draw(generator, scores, high, width, pairs, by_weight, starts, to_draw, counts, wanted, limit):
    """Draws so many. by_weight: the levels; starts, to_draw: where a level starts and where those that take part end.

    Many draws use the same sums over the levels, which are too large once a pair has left: a place behind to_draw is
    passed over, and where these are more than a quarter of the draws the sums are made anew. The random numbers of some
    draws come first, as a loop without calls lets the processor fetch many places side by side: half the time.
    """

    def exp_of_minus(x):
        total, term = 1.0, 1.0
        for n in range(1, 14):  # Its series: up to 0.25 the terms behind these are lost in rounding.
            term *= -x / n
            total += term
        return total

    at_once = 256
    least = exp_of_minus(width)
    sums, sizes = np.empty(len(starts)), np.empty(len(starts), np.int64)
    levels, places, coins = np.empty(at_once, np.int64), np.empty(at_once, np.int64), np.empty(at_once)
    highest, window, total, tries, passed_over = 0, 0, 0.0, 0, 1
    while wanted > 0:
        if 4 * passed_over > tries:
            while starts[by_weight[highest]] == to_draw[by_weight[highest]]:
                highest += 1
            window, total, weight = 0, 0.0, 1.0
            while highest + window < len(starts) and weight * len(pairs) > 1e-20 * total:
                level = by_weight[highest + window]
                sizes[window] = to_draw[level] - starts[level]
                total += sizes[window] * weight
                sums[window] = total
                weight *= least
                window += 1
        tries, passed_over = min(at_once, wanted), 0
        for i in range(tries):
            point, low, left = generator.random() * total, 0, window
            while left > 1:
                half = left >> 1
                low = low + half if sums[low + half - 1] <= point else low
                left -= half
            levels[i] = by_weight[highest + low]
            places[i] = starts[levels[i]] + int(generator.random() * sizes[low])
            coins[i] = generator.random()
        for i in range(tries):
            level, place = levels[i], places[i]
            if place >= to_draw[level]:
                passed_over += 1
                continue
            pair = pairs[place]
            if coins[i] >= least:
                below = high - float(scores[pair])
                if coins[i] >= exp_of_minus(below - math.floor(below / width) * width):
                    continue
            counts[pair] += 1
            wanted -= 1
            if counts[pair] % limit == 0:
                to_draw[level] -= 1
                pairs[place], pairs[to_draw[level]] = pairs[to_draw[level]], pair
