"""In what order do all pairs stand by a score? Worst first, and of equal scores the smaller uid higher."""

from __future__ import annotations

from functools import partial

import numpy as np

from clipsel_core.curation import binning, sorting
from clipsel_core.curation.binning import NO_SCORE
from clipsel_core.curation.passes import compiled, in_parts, read_only


class Sorter:
    """Puts metrics of the same pairs in order, one after another in the same room: new memory costs more than sorting.

    by_uid: (N,) uint32, the rows in ascending order of their uids. Only one thread at a time may ask.
    """

    def __init__(self, by_uid: np.ndarray) -> None:
        self._by_uid = read_only(by_uid)
        self._scores, self._codes = np.empty(len(by_uid), np.float32), np.empty(len(by_uid), np.uint16)
        self._records = np.empty(len(by_uid), np.uint64)

    def order(self, values: np.ndarray, span: tuple[float, float], bins: int) -> np.ndarray:
        """The rows that have a score, in ascending order of it: (M,) uint32.

        values: (N,) float32. span: the least and the greatest finite score. bins: to lay pairs into beforehand.
        """
        values, by_uid, pairs = read_only(values), self._by_uid, len(values)
        # In descending order of the uids from here on; what is equal stays in it.
        in_parts(lambda start, stop: _bring(values, by_uid, start, stop, self._scores), pairs)
        scores = read_only(self._scores)
        tally = sorting.Tally.of(binning.codes(scores, *span, bins, self._codes))
        order = np.empty(pairs - int(tally.counts[:, NO_SCORE].sum()), np.uint32)

        def finish(records: np.ndarray, start: int, stop: int) -> None:
            order[start:stop] = records[start:stop]  # Their lower halves.

        lay = partial(_lay, scores, by_uid, tally.codes)
        sorting.in_order(tally, NO_SCORE, lay, finish, self._records[: len(order)])
        return order


@compiled
def _bring(values, by_uid, start, stop, brought):
    for place in range(start, stop):
        brought[place] = values[by_uid[len(by_uid) - 1 - place]]


@compiled
def _lay(brought, by_uid, codes, start, stop, group_of, places, records):
    number = np.empty(1, np.float32)
    pattern = number.view(np.uint32)
    for place in range(start, stop):
        group = group_of[codes[place]]
        if group >= 0:
            number[0] = brought[place] + np.float32(0)  # -0 and 0 are the same score.
            bits = pattern[0]
            key = ~bits if bits >> 31 else bits | np.uint32(1 << 31)
            row = by_uid[len(by_uid) - 1 - place]
            records[places[group]] = (np.uint64(key) << np.uint64(32)) | np.uint64(row)
            places[group] += 1
