"""What does the map of a run show: where do its pairs lie, and what is each region about?

A sample is laid out in two dimensions such that similar images lie together: `map_layout` does it.

A region is a hill of the map's density: every pair belongs to the peak that it reaches by always going up. Words are
compared by the log-odds of a caption holding them in the region and outside it, divided by their standard error, times
the logarithm of how many times as often they occur inside as outside. Words that too many captions hold say nothing of
a region, in whatever language.

Reference: Haldane, "The estimation and significance of the logarithm of a ratio of frequencies", Annals of Human
Genetics 20 (1956), for the half that is added to each count.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core import uids
from clipsel_core.curation.index.counts import map_cells, span_around
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import RunError, reason_of
from clipsel_core.npy import load_or_make
from clipsel_core.runs.store import Run, check_seal

# Pairs on a map where nobody says how many.
SAMPLE = 50_000

# Under which the file's metadata holds the settings, as JSON.
SETTINGS_KEY = b"clipsel.projection"

# Two letters of the Latin alphabet are nearly always a small word; two of another may well be a noun.
_WORD = re.compile(r"[^\W\d_]{3,24}|[^\W\d_a-z]{2}")
_LONGEST_CAPTION = 400
# Words in a larger share of all captions are function words; those in fewer captions are names and noise.
_MOST_COMMON, _FEWEST = 0.4, 3
# A word speaks for a region where this share of its captions hold it, this many times as many as elsewhere.
_LEAST_SHARE, _LEAST_LIFT, _LEAST_Z = 0.08, 2.0, 3.0
_HALF = 0.5
_CELLS = 160
_SMALLEST_REGION = 0.004
# How far the hills are smoothed, in shares of the map's width: few large regions first, then more and smaller ones.
SMOOTHING = (0.04, 0.02, 0.01)


@dataclass(frozen=True)
class Projection:
    """The map of a run's sample. rows: (M,) int64 row numbers, ascending; x, y: (M,) float32, no unit.

    settings: sample asked for, seed, and the parameters of the layout.
    """

    rows: np.ndarray
    x: np.ndarray
    y: np.ndarray
    settings: dict[str, Any]


def draw_sample(table: ScoreTable, sample: int, seed: int) -> np.ndarray:
    """Row numbers of a sample, (M,) int64 ascending, drawn without repeats from the pairs that were scored.

    sample: pairs to draw; all where the run has fewer.
    Raises: RunError where there is none, or less than 1 is asked for.
    """
    if sample < 1:
        raise RunError(table.run.root, expected="a sample of 1 or more pairs", found=f"{sample}")
    candidates = np.flatnonzero(table.selectable())
    if not len(candidates):
        raise RunError(table.run.root, expected="scored pairs", found="none: all were set aside")
    if sample >= len(candidates):
        return candidates
    places = np.random.default_rng(seed).choice(len(candidates), sample, replace=False, shuffle=False)
    return candidates[np.sort(places)]


def read_projection(run: Run, table: ScoreTable | None = None) -> Projection | None:
    """The run's map, None where none was made. Pairs that the run does not have (any more) are left out.

    Raises: RunError where the file is damaged.
    """
    table = table or ScoreTable.open(run)
    try:
        (size, version), *_ = run.root.stamps([run.projection_file.name]).values() or [(0, 0)]
        with run.projection_file.here() as file:
            found = pq.read_table(file)
        check_seal(found)
        high, low = (found.column(name).cast(pa.uint64()).to_numpy() for name in ("uid_hi", "uid_lo"))
        x, y = (found.column(name).to_numpy().astype(np.float32) for name in ("x", "y"))
        settings = json.loads((found.schema.metadata or {}).get(SETTINGS_KEY, b"{}"))
    except FileNotFoundError:
        return None
    except (pa.ArrowException, LookupError, ValueError, TypeError, OSError) as error:
        expected, remedy = "a map of the run", "make it again with: clipsel project RUN"
        raise RunError(run.projection_file, expected=expected, found=reason_of(error), remedy=remedy) from error
    folder = table.index_folder

    def look_up() -> np.ndarray:
        for older in folder.glob("map-*.npy") if folder else ():
            with suppress(OSError):
                older.unlink()
        return table.rows_of(uids.from_halves(high, low))

    # Kept beside the index, whose folder changes with the scores: to look a million rows up reads every uid. The stamp
    # changes with the map's file. A run that has no index is small.
    version = f"{version:x}" if isinstance(version, int) else hashlib.sha256(version.encode()).hexdigest()[:16]
    kept = folder / f"map-{version}-{size:x}.npy" if folder else None
    rows = load_or_make(kept, (len(found),), np.int64, look_up)
    order = np.argsort(rows, kind="stable")
    order = order[rows[order] >= 0]
    return Projection(rows[order], x[order], y[order], settings)


@dataclass(frozen=True)
class Region:
    """A hill of the map. x, y: where it is highest, in the map's coordinates. pairs: how many lie on it."""

    x: float
    y: float
    pairs: int
    words: tuple[str, ...]


class CaptionWords:
    """Which caption holds which word, for captions of (M,) pairs."""

    def __init__(self, captions: Sequence[str]) -> None:
        numbers: dict[str, int] = {}
        captions_of, words_of = [], []
        for place, caption in enumerate(captions):
            for word in set(_WORD.findall(str(caption)[:_LONGEST_CAPTION].casefold())):
                captions_of.append(place)
                words_of.append(numbers.setdefault(word, len(numbers)))
        self.captions = len(captions)
        # In the order of the alphabet, so that equal words of a region come in the same order each time.
        words = sorted(numbers)
        rank = np.empty(len(words), np.int64)
        rank[[numbers[word] for word in words]] = np.arange(len(words))
        word_of, caption_of = rank[np.array(words_of, np.int64)], np.array(captions_of, np.int64)
        held = np.bincount(word_of, minlength=len(words))
        useful = (held >= _FEWEST) & (held <= max(_MOST_COMMON * self.captions, _FEWEST))
        self._words = np.array(words, object)[useful]
        self._held = held[useful]
        kept = useful[word_of]
        self._word_of = (np.cumsum(useful) - 1)[word_of[kept]]
        self._caption_of = caption_of[kept]

    def distinctive(self, member: np.ndarray, most: int = 2) -> tuple[str, ...]:
        """The words that most set some captions apart from the others. member: (M,) bool. Strongest first."""
        inside = int(np.count_nonzero(member))
        outside = self.captions - inside
        if not inside or not outside or not len(self._words):
            return ()
        here = np.bincount(self._word_of[member[self._caption_of]], minlength=len(self._words))
        odds, spread = [], []
        for holding, all_of in ((here, inside), (self._held - here, outside)):
            has, has_not = holding + _HALF, all_of - holding + _HALF
            odds.append(np.log(has / has_not))
            spread.append(1 / has + 1 / has_not)
        z = (odds[0] - odds[1]) / np.sqrt(spread[0] + spread[1])
        # A small word that is merely used more here has a high z; what is said here alone also has a high lift.
        lift = (here / inside) / ((self._held - here + _HALF) / (outside + 1))
        speaks = (here >= _LEAST_SHARE * inside) & (lift >= _LEAST_LIFT) & (z >= _LEAST_Z)
        strength = np.where(speaks, z * np.log(np.maximum(lift, 1)), -np.inf)
        order = np.argsort(-strength, kind="stable")[:most]
        return tuple(str(word) for word in self._words[order[speaks[order]]])


def find_regions(x: np.ndarray, y: np.ndarray, words: CaptionWords, smoothing: float) -> list[Region]:
    """The map's regions that some words tell apart, largest first. x, y: (M,) floats; words: of the same pairs.

    smoothing: standard deviation of the blur before hills are looked for, in shares of the map's longer side.
    """
    if len(x) < 3:
        return []
    left, right, bottom, top = span = span_around(x, y)
    density = map_cells(x, y, span, longest=_CELLS, sigma=smoothing * _CELLS).density
    across, up = density.shape
    column = np.clip(((x - left) / (right - left) * across).astype(np.int64), 0, across - 1)
    line = np.clip(((y - bottom) / (top - bottom) * up).astype(np.int64), 0, up - 1)
    # From each cell the highest neighbour is the next one, until there is no higher; of equals the first is taken.
    padded = np.full((across + 2, up + 2), -np.inf)
    padded[1:-1, 1:-1] = density
    steps = [(0, 0), *((dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if dx or dy)]
    around = np.stack([padded[1 + dx : 1 + dx + across, 1 + dy : 1 + dy + up] for dx, dy in steps])
    upwards = np.array([dx * up + dy for dx, dy in steps])[around.argmax(0)]
    next_cell = (np.arange(across * up).reshape(across, up) + upwards).ravel()
    while not np.array_equal(jumped := next_cell[next_cell], next_cell):
        next_cell = jumped
    peaks, peak_of = np.unique(next_cell[column * up + line], return_inverse=True)
    sizes = np.bincount(peak_of, minlength=len(peaks))
    regions = []
    for peak in np.argsort(-sizes, kind="stable"):
        if sizes[peak] < max(_SMALLEST_REGION * len(x), 5):
            break
        found = words.distinctive(peak_of == peak)
        if found:
            x_top = left + (peaks[peak] // up + 0.5) * (right - left) / across
            y_top = bottom + (peaks[peak] % up + 0.5) * (top - bottom) / up
            regions.append(Region(float(x_top), float(y_top), int(sizes[peak]), found))
    return regions
