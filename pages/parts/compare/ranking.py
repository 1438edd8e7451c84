"""How far do two runs agree, metric by metric? Worked out in the background, and kept beside the run."""

from __future__ import annotations

from clipsel_core.curation.exploring import kept_agreement
from clipsel_core.curation.exploring.agreement import Agreement, Alignment, agreement, align
from clipsel_core.curation.index.score_table import ScoreTable
from pages.parts import metrics
from pages.parts.background import Report, Work

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
        self._kept = kept_agreement.file_of(first.run, second.run)
        self.found: dict[str, Agreement] = kept_agreement.read(self._kept)
        self.work = Work(self._do)

    @property
    def known(self) -> tuple:
        """Changes with whatever a page shows of it, but for the share that is done."""
        return self.alignment is not None, len(self.found), self.work.active, self.work.stopped

    def _do(self, report: Report) -> None:
        if self.alignment is None:
            said = "Matching the pairs of both runs …"
            report(0.0, said)
            self.alignment = align(*self._tables, lambda share: report(_MATCHING * share, said))
        missing = [name for name in self._names if name not in self.found] if self.alignment.shared else []
        for place, name in enumerate(missing):
            self.found = {**self.found, name: self._agreement(name, place, len(missing), report)}
            kept_agreement.keep(self._kept, self.found)

    def _agreement(self, name: str, place: int, of: int, report: Report) -> Agreement:
        assert self.alignment is not None
        said = f"Ranking both runs by {metrics.title(name)} …"

        def between(share: float) -> None:
            report(_MATCHING + (1 - _MATCHING) * (place + share) / of, said)

        between(0)
        return agreement(self.alignment, name, between)
