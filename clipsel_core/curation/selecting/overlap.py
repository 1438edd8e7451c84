"""How much do several selections have in common? Pairs in both of any two, and what that is of each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.uidlists import read_uid_list
from clipsel_core.places import Place


@dataclass(frozen=True)
class Overlap:
    """Counts of S sets. both: (S, S) int64, pairs in set i and in set j; the diagonal holds the sizes."""

    names: tuple[str, ...]
    both: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Pairs in each set: (S,) int64."""
        return np.diagonal(self.both)

    @property
    def jaccard(self) -> np.ndarray:
        """Pairs in both sets as a share of the pairs in either: (S, S) float64 in [0, 1]; 1 for two empty sets."""
        either = self.sizes[:, None] + self.sizes[None, :] - self.both
        return np.where(either > 0, self.both / np.maximum(either, 1), 1.0)

    @property
    def of_row(self) -> np.ndarray:
        """Pairs in both sets as a share of the row's set: (S, S) float64 in [0, 1]; NaN in an empty set's row."""
        with np.errstate(invalid="ignore"):
            return self.both / self.sizes[:, None]


def overlap(sets: Mapping[str, np.ndarray]) -> Overlap:
    """Counts what each two of these sets share. sets: from a name to the bitmap of a set, all of one run."""
    names, bits = tuple(sets), list(sets.values())
    both = np.zeros((len(names), len(names)), np.int64)
    for i, row in enumerate(bits):
        for j in range(i, len(bits)):
            both[i, j] = both[j, i] = bitmaps.pairs_in(row & bits[j])
    return Overlap(names, both)


def listed_pairs(table: ScoreTable, path: Place) -> tuple[np.ndarray, int]:
    """The pairs of a run that a list of uids names, a bitmap, and how many of its uids the run lacks.

    Raises: UidError where it is no list of uids.
    """
    rows = table.rows_of(read_uid_list(path))
    mask = np.zeros(len(table), bool)
    mask[rows[rows >= 0]] = True
    return bitmaps.pack(mask), int((rows < 0).sum())
