"""What are the regions of a run's map called? By their captions, which are read in the background, once a server."""

from __future__ import annotations

import numpy as np
import streamlit as st

from clipsel_core.curation.exploring import projection
from clipsel_core.curation.exploring.projection import CaptionWords, Projection
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import ClipselError
from clipsel_core.tasks import Report, Task, part_of
from pages.parts import empty, state, watching
from pages.parts.catalog import Entry

Labels = list[list[tuple[str, float, float]]]

_NAMED = 50_000
# Captions of so many pairs are read for it at most.
_READ = 16_000_000
_STEPS = 16
_SHARE_READ = 0.8


class Naming:
    """A map's regions being named. labels: text, x, y, a few for the whole map, then more for each zoom.

    Nothing is there before the work is done.
    """

    def __init__(self, table: ScoreTable, places: Projection) -> None:
        self.work = Task(self._do)
        self.labels: Labels = []
        self._table, self._places = table, places
        self._named, self._said = np.empty(0, np.int64), CaptionWords([])

    def words(self, member: np.ndarray, most: int) -> tuple[str, ...] | None:
        """The words that set some captions apart from all others on the map; None before they are read.

        member: (M,) bool, the pairs on the map that are meant.
        """
        return self._said.distinctive(member[self._named], most) if self.work.finished else None

    def _do(self, report: Report) -> None:
        reading = part_of(report, 0, _SHARE_READ, "Reading captions to name the regions …")
        naming = part_of(report, _SHARE_READ, 1, "Naming the regions …")
        named, captions = _sample(self._table, self._places), []
        for step, part in enumerate(np.array_split(named, _STEPS)):
            reading(step, _STEPS)
            captions += self._table.metadata(self._places.rows[part], ("caption",))["caption"].tolist()
        said, x, y = CaptionWords(captions), self._places.x[named], self._places.y[named]
        labels = []
        for step, smoothing in enumerate(projection.SMOOTHING):
            naming(step, len(projection.SMOOTHING))
            found = projection.find_regions(x, y, said, smoothing)
            labels.append([(" · ".join(region.words), region.x, region.y) for region in found])
        self._named, self._said, self.labels = named, said, labels


def of(entry: Entry) -> Naming:
    """The naming of a run's map, begun and shared by all who look at it; on small maps it is done at once."""
    naming = _naming(entry, state.map_stamp(entry))
    naming.work.begin()
    return naming


def watch(naming: Naming, drawn: Labels) -> None:
    """How far it is, with a way to stop it; the page is drawn anew at its end. An error does not take the map away.

    drawn: the labels that the map was drawn with; it may have ended since.
    """
    error = naming.work.error
    if isinstance(error, ClipselError):
        empty.show_error(error, "The map's regions have no names, since captions cannot be read")
    elif error:
        raise error
    elif naming.labels is not drawn or not naming.work.finished:
        watching.until_done(naming.work, key="naming")


@st.cache_resource(max_entries=4, show_spinner=False)
def _naming(entry: Entry, stamp: state.Stamp) -> Naming:
    return Naming(state.open_table(entry), state.open_map(entry))


def _sample(table: ScoreTable, places: Projection) -> np.ndarray:
    """Which of the map's pairs name its regions, (K,) int64 places among them: all, or every so many-th.

    Of a large run those in every so many-th shard: to read one caption of a shard takes as long as to read them all.
    """
    apart = -(-len(table) // _READ)
    read = np.flatnonzero(table.files.shard_of(places.rows) % max(1, apart) == 0)
    read = read if len(read) else np.arange(len(places.rows))
    return read[:: max(1, -(-len(read) // _NAMED))]
