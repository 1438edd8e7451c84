"""What does the map of a run show: where do its pairs lie, and what is each region about?

A sample is laid out in two dimensions such that similar images lie together.

A region is a hill of the map's density: every pair belongs to the peak that it reaches by always going up. Words are
compared by the log-odds of a caption holding them in the region and outside it, divided by their standard error, times
the logarithm of how many times as often they occur inside as outside. Words that too many captions hold say nothing of
a region, in whatever language.

Reference: Haldane, "The estimation and significance of the logarithm of a ratio of frequencies", Annals of Human
Genetics 20 (1956), for the half that is added to each count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core import uids
from clipsel_core.curation.exploring import small_maps
from clipsel_core.curation.exploring.vectors import PoolVectors
from clipsel_core.curation.index import array_files
from clipsel_core.curation.index.counts import map_cells, whole_span
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import RunError, reason_of
from clipsel_core.files import write_atomically
from clipsel_core.runs.store import Run, check_seal, sealed
from clipsel_core.tasks import Report, part_of, silent

# Pairs on a map where nobody says how many.
SAMPLE = 50_000

_NEIGHBOURS = 15
_MIN_DIST = 0.1
# So many are laid out here before umap-learn is imported.
_FEW = 3_000
_METADATA_KEY = b"clipsel.projection"
_READ, _LINKED = 0.15, 0.4

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


def project(run: Run, *, sample: int = SAMPLE, seed: int = 0, report: Report = silent) -> Path:
    """Lays out a random sample of the run's pairs by their images with UMAP (cosine) and writes RUN/projection.parquet.

    sample: pairs to lay out; all where the run has fewer. Pairs that were set aside are not drawn. The same seed gives
        the same sample, and on one machine and one version of umap-learn the same map.
    report: told the share that is done, and the stage.
    Raises: RunError where the pool is not there or there is nothing to lay out; PoolFormatError on damaged embeddings.
    Reference: McInnes, Healy, Melville, "UMAP", arXiv 1802.03426.
    """
    table = ScoreTable.open(run)
    rows = draw_sample(table, sample, seed)
    vectors = PoolVectors(table, "image", rows)
    images = vectors.read(np.float32, part_of(report, 0, _READ, "reading embeddings"))
    with np.errstate(invalid="ignore", over="ignore"):
        length = np.linalg.norm(images, axis=1)
    usable = np.isfinite(length) & (length > 0)
    rows = rows[usable]
    neighbours = max(1, min(_NEIGHBOURS, len(rows) - 1))
    points = _lay_out(images[usable], neighbours, seed, report)
    settings = {"sample": sample, "seed": seed, "pairs": len(rows), "method": "umap", "metric": "cosine"}
    settings |= {"n_neighbors": neighbours, "min_dist": _MIN_DIST, "arch": run.config.arch}
    names = table.uids_at(rows)
    columns = {"uid_hi": names["f0"], "uid_lo": names["f1"], "x": points[:, 0], "y": points[:, 1]}
    out = pa.table({name: np.ascontiguousarray(values) for name, values in columns.items()})
    out = out.replace_schema_metadata({_METADATA_KEY: json.dumps(settings)})
    write_atomically(run.projection_file, lambda aside: pq.write_table(sealed(out, "", ""), aside))
    report(1, 1, "", "done")
    return run.projection_file


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


def _lay_out(images: np.ndarray, neighbours: int, seed: int, report: Report) -> np.ndarray:
    """Places of the images on the map, (M, 2) float32. Up to three lie on a circle: there is nothing to lay out."""
    pairs = len(images)
    if pairs <= 3:
        angle = 2 * np.pi * np.arange(pairs) / max(1, pairs)
        return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32) * (pairs > 1)
    if pairs <= _FEW:
        part_of(report, _READ, 1, "finding neighbours")(0, 1)
        return small_maps.lay_out(images, neighbours, seed, part_of(report, _LINKED, 1, "laying out"))
    part_of(report, _READ, 1, "starting UMAP")(0, 1)
    # Loading numba takes many seconds: whoever only looks at a map that exists need not wait for it.
    import umap

    _keep_compiled()
    part_of(report, _READ, 1, "finding neighbours")(0, 1)
    layout = umap.UMAP(
        n_neighbors=neighbours,
        min_dist=_MIN_DIST,
        metric="cosine",
        random_state=seed,
        n_jobs=1,
        tqdm_kwds={"disable": False, "file": _EpochReader(report), "bar_format": "{n_fmt}/{total_fmt} "},
    )
    return layout.fit_transform(images).astype(np.float32)


def _keep_compiled() -> None:
    """Has numba keep the machine code of UMAP's loops on the disk: to compile them takes 12 s in each process."""
    from numba.core.dispatcher import Dispatcher
    from umap import distances, layouts, umap_, utils

    loops = [value for module in (distances, layouts, umap_, utils) for value in vars(module).values()]
    # Where no folder for it can be written, they are compiled as before.
    with suppress(RuntimeError, OSError):
        for loop in loops:
            if isinstance(loop, Dispatcher):
                loop.enable_caching()


class _EpochReader:
    """A file that UMAP draws its progress bar into: the only way it tells how far the layout is."""

    def __init__(self, report: Report) -> None:
        self._report = part_of(report, _LINKED, 1, "laying out")

    def write(self, text: str) -> None:
        done, slash, total = text.strip().partition("/")
        if slash and done.isdigit() and total.isdigit() and int(total):
            self._report(int(done), int(total))

    def flush(self) -> None:
        """Nothing is held back."""


def read_projection(run: Run, table: ScoreTable | None = None) -> Projection | None:
    """The run's map, None where none was made. Pairs that the run does not have (any more) are left out.

    Raises: RunError where the file is damaged.
    """
    table = table or ScoreTable.open(run)
    try:
        stat = run.projection_file.stat()
        found = pq.read_table(run.projection_file)
        check_seal(found)
        high, low = (found.column(name).cast(pa.uint64()).to_numpy() for name in ("uid_hi", "uid_lo"))
        x, y = (found.column(name).to_numpy().astype(np.float32) for name in ("x", "y"))
        settings = json.loads((found.schema.metadata or {}).get(_METADATA_KEY, b"{}"))
    except FileNotFoundError:
        return None
    except (pa.ArrowException, LookupError, ValueError, TypeError, OSError) as error:
        expected, remedy = "a map of the run", "make it again with: clipsel project RUN"
        raise RunError(run.projection_file, expected=expected, found=reason_of(error), remedy=remedy) from error
    rows = _rows_on_map(table, uids.from_halves(high, low), f"{stat.st_mtime_ns:x}-{stat.st_size:x}")
    order = np.argsort(rows, kind="stable")
    order = order[rows[order] >= 0]
    return Projection(rows[order], x[order], y[order], settings)


def _rows_on_map(table: ScoreTable, names: np.ndarray, stamp: str) -> np.ndarray:
    """The rows of the map's pairs, (M,) int64, cached beside the index: to look a million of them up reads every uid.

    stamp: changes with the map's file. The index's folder changes with the scores; a run that has none is small.
    """
    folder = table.index_folder

    def look_up() -> np.ndarray:
        for older in folder.glob("map-*.npy") if folder else ():
            with suppress(OSError):
                older.unlink()
        return table.rows_of(names)

    return array_files.load_or_make(folder / f"map-{stamp}.npy" if folder else None, (len(names),), np.int64, look_up)


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
    left, right, bottom, top = span = whole_span(x, y)
    density = map_cells(x, y, span, longest=_CELLS, sigma=smoothing * _CELLS).density
    across, up = density.shape
    column = np.clip(((x - left) / (right - left) * across).astype(np.int64), 0, across - 1)
    line = np.clip(((y - bottom) / (top - bottom) * up).astype(np.int64), 0, up - 1)
    peaks, peak_of = np.unique(_uphill(density)[column * up + line], return_inverse=True)
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


def _uphill(density: np.ndarray) -> np.ndarray:
    """The cell where going up from each cell ends, (cells,) int64; of equally high neighbours the first is taken."""
    across, up = density.shape
    padded = np.full((across + 2, up + 2), -np.inf)
    padded[1:-1, 1:-1] = density
    steps = [(0, 0), *((dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if dx or dy)]
    around = np.stack([padded[1 + dx : 1 + dx + across, 1 + dy : 1 + dy + up] for dx, dy in steps])
    best = around.argmax(0)
    number = np.arange(across * up).reshape(across, up)
    next_cell = (number + np.array([dx * up + dy for dx, dy in steps])[best]).ravel()
    while not np.array_equal(jumped := next_cell[next_cell], next_cell):
        next_cell = jumped
    return next_cell
