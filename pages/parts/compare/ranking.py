"""How far do two runs agree, metric by metric? Worked out in the background, and kept beside the run."""

from __future__ import annotations

import numpy as np

from clipsel_core.curation.exploring.agreement import (
    Agreement,
    Alignment,
    agreement_file,
    align,
    measure_agreement,
    read_agreements,
    write_agreements,
)
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.tasks import Report, Task, part_of
from pages.parts import metrics

_MATCHING = 0.2


class Ranking:
    """Two runs being compared. alignment: their pairs matched, once that is done. found: what is known, by metric.

    work: what finds the rest.
    """

    def __init__(self, first: ScoreTable, second: ScoreTable) -> None:
        self.alignment: Alignment | None = None
        self._tables = first, second
        shared = [name for name in first.metrics if name in second.metrics]
        # The one that is looked at first comes first.
        self._names = sorted(shared, key=lambda name: name != "s_cliploss")
        self._kept = agreement_file(first.run, second.run)
        self.found: dict[str, Agreement] = read_agreements(self._kept)
        self.work = Task(self._do)

    @property
    def known(self) -> tuple:
        """Changes with whatever a page shows of it, but for the share that is done."""
        return self.alignment is not None, len(self.found), self.work.active, self.work.stopped

    def _do(self, report: Report) -> None:
        if self.alignment is None:
            told = part_of(report, 0, _MATCHING, "Matching the pairs of both runs …")
            self.alignment = align(*self._tables, told)
        missing = [name for name in self._names if name not in self.found] if self.alignment.shared else []
        steps = np.linspace(_MATCHING, 1, len(missing) + 1)
        for name, first, last in zip(missing, steps, steps[1:], strict=False):
            told = part_of(report, first, last, f"Ranking both runs by {metrics.title(name)} …")
            told(0, 1)
            self.found = {**self.found, name: measure_agreement(self.alignment, name, told)}
            write_agreements(self._kept, self.found)
