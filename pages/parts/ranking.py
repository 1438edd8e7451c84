"""How far do two runs agree, metric by metric? Worked out in the background, and kept beside the run."""

from __future__ import annotations

from clipsel_core.curation import kept_agreement
from clipsel_core.curation.agreement import Agreement, Alignment, agreement, align
from clipsel_core.curation.score_table import ScoreTable
from clipsel_core.errors import ClipselError
from pages.parts import metrics
from pages.parts.background import Report, Work

_MATCHING = 0.2
_AT_ONCE_S = 0.4


class Ranking:
    """Two runs being compared. alignment: their pairs matched, once that is done. found: what is known, by metric."""

    def __init__(self, first: ScoreTable, second: ScoreTable) -> None:
        self.alignment: Alignment | None = None
        self._tables = first, second
        shared = [name for name in first.metrics if name in second.metrics]
        # The one that is looked at first comes first.
        self._names = sorted(shared, key=lambda name: name != "s_cliploss")
        self._kept = kept_agreement.file_of(first.run, second.run)
        self.found: dict[str, Agreement] = kept_agreement.read(self._kept)
        self._work = Work(self._do)
        self._begun = False

    @property
    def active(self) -> bool:
        """Whether it is being worked on now."""
        return self._work.active

    @property
    def finished(self) -> bool:
        return self._work.finished

    @property
    def stopped(self) -> bool:
        """Whether somebody stopped it before its end."""
        return self._work.stopped

    @property
    def error(self) -> ClipselError | None:
        """Why the two cannot be compared."""
        return self._work.error

    @property
    def share(self) -> float:
        return self._work.share

    @property
    def said(self) -> str:
        """What it is at."""
        return self._work.said

    @property
    def known(self) -> tuple:
        """Changes with whatever a page shows of it, but for the share that is done."""
        return self.alignment is not None, len(self.found), self.active, self.stopped

    def begin(self) -> None:
        """Starts, the first time that somebody looks; small runs are done before this returns."""
        if not self._begun:
            self._begun = True
            self._work.start()
            self._work.wait(_AT_ONCE_S)

    def start(self) -> None:
        """Goes on after a stop."""
        self._work.start()

    def stop(self) -> None:
        """Ends it soon; what is known stays."""
        self._work.stop()

    def _do(self, report: Report) -> None:
        if self.alignment is None:
            report(0.0, "Matching the pairs of both runs …")
            between = lambda share: report(_MATCHING * share, "Matching the pairs of both runs …")  # noqa: E731
            self.alignment = align(*self._tables, between)
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
