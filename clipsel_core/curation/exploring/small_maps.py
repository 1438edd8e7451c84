"""How are a few thousand images laid out by UMAP while somebody waits?

umap-learn imports for 3 s, and compiles for 12 to 30 s the first time on a machine. Its steps for few rows, in numpy
and one compiled loop: exact neighbours, their fuzzy graph, principal components to begin with, and the descent along
the graph's edges with five random rows pushed away for each. Its defaults, spread 1 and min_dist 0.1.

Reference: McInnes, Healy, Melville, "UMAP", arXiv 1802.03426, sections 3 and 4.
"""

from __future__ import annotations

import numpy as np

from clipsel_core.curation.index.passes import compiled
from clipsel_core.tasks import Report

_EPOCHS = 500
# Of the curve 1 / (1 + a d^2b) that is nearest to spread 1 and min_dist 0.1.
_A, _B = 1.5769434603113077, 0.8950608779109733
_STEPS, _LEAST_WIDTH = 64, 1e-3
_NOISE = 1e-4


def lay_out(images: np.ndarray, neighbours: int, seed: int, report: Report) -> np.ndarray:
    """Places of few images on a map: (M, 2) float32. images: (M, D) float32, none of length 0; M squared is held.

    neighbours: that each image is linked to, 1 to M - 1, itself counted among them. report: told the epochs done.
    """
    rng = np.random.default_rng(seed)
    head, tail, weights = edges_of(images, neighbours)
    # What would not be drawn once in all epochs is left out.
    drawn = weights >= weights.max() / _EPOCHS
    head, tail, every = head[drawn], tail[drawn], weights.max() / weights[drawn]
    places, due = _beginning(images, rng), every.copy()
    state = rng.integers(1, 1 << 62, 1, np.uint64)
    for epoch in range(_EPOCHS):
        _epoch(head, tail, every, due, places, float(epoch), 1 - epoch / _EPOCHS, state, _A, _B)
        report(epoch + 1, _EPOCHS, "", "")
    return places.astype(np.float32)


def edges_of(images: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The fuzzy graph of images by cosine: the two rows of each edge, in both directions, and its weight, in (0, 1].

    images, neighbours: as of lay_out. Returns: (E,) int32, (E,) int32, (E,) float64.
    """
    unit = images / np.linalg.norm(images, axis=1, keepdims=True)
    distances = np.clip(1 - unit @ unit.T, 0, None).astype(np.float64)
    np.fill_diagonal(distances, -1)  # first of its own neighbours, also among equals
    near = np.argpartition(distances, neighbours - 1, axis=1)[:, :neighbours]
    near = np.take_along_axis(near, np.take_along_axis(distances, near, 1).argsort(1, "stable"), 1)[:, 1:]
    apart = np.take_along_axis(distances, near, 1)
    # The nearest that is not equal is linked for certain.
    nearest = np.where(apart > 0, apart, np.inf).min(1, initial=np.inf, keepdims=True)
    beyond = np.clip(apart - np.where(np.isfinite(nearest), nearest, 0), 0, None)
    widths = _widths(beyond, apart, np.log2(neighbours))
    found = np.zeros(distances.shape)
    np.put_along_axis(found, near, np.exp(-beyond / widths), 1)
    joined = found + found.T - found * found.T
    head, tail = np.nonzero(joined)
    return head.astype(np.int32), tail.astype(np.int32), joined[head, tail]


def _widths(beyond: np.ndarray, apart: np.ndarray, wanted: float) -> np.ndarray:
    """How quickly each row's links fade, such that their sum is the one wanted: (M, 1), by halving."""
    low, high, widths = np.zeros((len(beyond), 1)), np.full((len(beyond), 1), np.inf), np.ones((len(beyond), 1))
    for _ in range(_STEPS):
        above = np.exp(-beyond / widths).sum(1, keepdims=True) > wanted
        low, high = np.where(above, low, widths), np.where(above, widths, high)
        with np.errstate(invalid="ignore"):
            widths = np.where(np.isinf(high), 2 * widths, (low + high) / 2)
    mean = apart.mean(1, keepdims=True)
    least = _LEAST_WIDTH * np.where(mean > 0, mean, apart.mean())
    return np.maximum(widths, np.where(least > 0, least, 1.0))


def _beginning(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The first two principal components, 0 to 10 each, with a little noise that parts equals: (M, 2) float64."""
    centred = (images - images.mean(0)).astype(np.float64)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, :-3:-1]
    found = np.zeros((len(images), 2))
    found[:, : axes.shape[1]] = centred @ axes
    found *= 10 / (np.abs(found).max() or 1.0)
    found += rng.normal(0, _NOISE, found.shape)
    spans = np.ptp(found, axis=0)
    return 10 * (found - found.min(0)) / np.where(spans > 0, spans, 1.0)


@compiled
def _epoch(head, tail, every, due, places, epoch, rate, state, a, b):
    """Along each edge that is due: its rows are drawn together, and five random rows pushed away from the first."""
    rows = np.uint64(len(places))
    for edge in range(len(head)):
        if due[edge] > epoch:
            continue
        due[edge] += every[edge]
        one, other = head[edge], tail[edge]
        for turn in range(6):
            if turn:
                state[0] = state[0] * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
                other = np.int64((state[0] >> np.uint64(33)) % rows)
                if other == one:
                    continue
            x, y = places[one, 0] - places[other, 0], places[one, 1] - places[other, 1]
            squared = x * x + y * y
            if squared <= 0:
                continue
            powered = squared**b
            if turn:
                pull = 2 * b / ((0.001 + squared) * (1 + a * powered))
            else:
                pull = -2 * a * b * powered / squared / (1 + a * powered)
            x, y = rate * min(max(pull * x, -4.0), 4.0), rate * min(max(pull * y, -4.0), 4.0)
            places[one, 0] += x
            places[one, 1] += y
            if not turn:
                places[other, 0] -= x
                places[other, 1] -= y
