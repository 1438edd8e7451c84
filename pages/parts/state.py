"""Which run is being looked at, and what has already been read of it?

Everything cached here goes by the run and a stamp of its files, so a run that grows or changes is read anew, and is
shared between sessions, so it must not be written to.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np
import streamlit as st

from clipsel_core.cache import Recent
from clipsel_core.curation.exploring.projection import Projection, read_projection
from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.index import must_build, open_indexed
from clipsel_core.curation.index.ranking import Ranking
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import Recipe, parse_recipe
from clipsel_core.curation.selecting.selection import Picker, Selection, Taken
from clipsel_core.errors import ClipselError
from clipsel_core.places import Place
from clipsel_core.pool import layout
from clipsel_core.pool.layout import Pool, TeacherInfo, open_pool
from clipsel_core.runs.store import Run, description_files
from clipsel_core.tasks import Report, Task
from pages.parts import catalog, messages, stores

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
# From rows, (M,) int64, to which of them are kept, (M,) bool.
Keeps = Callable[[np.ndarray], np.ndarray]
Stamp = tuple[tuple[str, int, int], ...]

# When a pool was sought in vain, and how long that took: of a large one it may take as long as reading it.
_lacking: Recent[tuple[float, float]] = Recent(32)
# Where it lies in a store that stays away, nobody waits for that again before so many times as long.
_LACKING_S, _LACKING_REST = 5.0, 5
# When the files of a run's scores are looked at again, and their stamp.
_files_seen: Recent[tuple[float, Stamp]] = Recent(64)
_FILES_SEEN_S = 1.0
# And how many times as long as it took they are not looked at again.
_FILES_REST = 100
# Runs with so many pairs have their map opened so long after their scores: whoever came first does not wait for it.
_LARGE, _LATER_S = 10_000_000, 5.0


# By function: a page's script defines its functions anew whenever it is run.
_results: dict[tuple[str, str], OrderedDict[Hashable, Any]] = {}
_lock = threading.Lock()


class _Slot:
    """Room for one result, which one session works out and the others wait for."""

    def __init__(self) -> None:
        self.lock, self.filled, self.result = threading.Lock(), False, None


class Cached(Generic[Arguments, Result]):
    """A function that keeps its last `most` results. They are shared between sessions: nobody may write to them.

    stamp: told the arguments; a result is kept by them and by what this returns. spinner: said while it is worked out.
    Streamlit's own caches take a millisecond to name a result, and a moved thumb asks for dozens.
    """

    def __init__(
        self, work: Callable[Arguments, Result], most: int, stamp: Callable[..., Hashable], spinner: str
    ) -> None:
        self._work, self._most, self._stamp, self._spinner = work, most, stamp, spinner
        code = work.__code__
        self._slots = _results.setdefault((code.co_filename, code.co_qualname), OrderedDict())

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        name = args, tuple(kwargs.items()), self._stamp(*args, **kwargs)
        with _lock:
            slot = self._slots.setdefault(name, _Slot())
            self._slots.move_to_end(name)
            while len(self._slots) > self._most:
                self._slots.popitem(last=False)
        with slot.lock:
            if not slot.filled:
                with st.spinner(self._spinner) if self._spinner else nullcontext():
                    slot.result, slot.filled = self._work(*args, **kwargs), True
        return slot.result

    def clear(self) -> None:
        """Forgets all results."""
        with _lock:
            self._slots.clear()


def current() -> catalog.Entry:
    """The run chosen in the sidebar; the script stops where there is none."""
    chosen = st.session_state.get("run")
    entry = next((entry for entry in catalog.entries() if entry.label == chosen), None)
    if entry is None:
        st.stop()
    return entry


def files_stamp(root: Path | Place, *names: str) -> Stamp:
    """Changes whenever these files or folders in a folder do."""
    return tuple((name, *version_of(root / name)) for name in names)


def version_of(place: Path | Place) -> tuple[int, int]:
    """Two numbers that change whenever a file or a folder does; zeros where there is none.

    On this machine it is looked up each time. Of one in a store they are what was found when it was asked last.
    """
    if isinstance(place, Place) and place.remote:
        return stores.known_version(place)
    try:
        stat = os.stat(place)
    except OSError:
        return stores.ABSENT
    return stat.st_mtime_ns, stat.st_size


def scores_stamp(entry: catalog.Entry) -> Stamp:
    """Changes whenever the run's description, its score files or its added targets do.

    Files that were written over in place are noticed within some seconds.
    """
    root, described = entry.root, description_files(entry.root)
    # What the folders of the scores say; where that changes, all files in them are looked at again. Looking at
    # thousands takes longer than an answer may: it is done now and then. In a store a folder says it of its files.
    folders = [root / "scores", *dict.fromkeys(file.parent for file in described[1:])]
    said = _versions_in(described) + tuple((folder.name, *version_of(folder)) for folder in folders)
    now = time.monotonic()
    if root.remote:
        return said
    again_at, found = _files_seen.peek((root, said)) or (-math.inf, ())
    if now >= again_at:
        digest = hashlib.sha256()
        for folder in sorted(map(Path, folders)):
            with suppress(OSError), os.scandir(folder) as files:
                # Not in the folder's order, which may change by itself.
                for name, stat in sorted((file.name, file.stat()) for file in files if file.name.endswith(".parquet")):
                    digest.update(f"{folder} {name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        found = (("scores/*", int.from_bytes(digest.digest()[:8]), 0),)
        _files_seen.put((root, said), (now + max(_FILES_SEEN_S, _FILES_REST * (time.monotonic() - now)), found))
    return said + found


def per_map(most: int, *, spinner: str = "") -> Callable[[Callable[Arguments, Result]], Cached[Arguments, Result]]:
    """The same for what is worked out of the map too: until the scores or the map change."""
    return per_run(most, spinner=spinner, stamp=lambda entry, *_: map_stamp(entry))


def map_stamp(entry: catalog.Entry) -> Stamp:
    """Changes whenever the run's scores or its projection do."""
    return scores_stamp(entry) + files_stamp(entry.root, "projection.parquet")


def recipe_stamp(entry: catalog.Entry, recipe: str) -> Stamp:
    """Changes whenever what a recipe (YAML) keeps may have: the run's scores, or a uid list that it reads."""
    lists = parse(entry, recipe).list_files() if recipe else []
    return scores_stamp(entry) + tuple((path.name, *version_of(path)) for path in lists)


def per_run(
    most: int, *, spinner: str = "", stamp: Callable[..., Hashable] | None = None
) -> Callable[[Callable[Arguments, Result]], Cached[Arguments, Result]]:
    """Caches what a function works out of a run, its first argument, until the run's scores change.

    most: results that are kept, see Cached. stamp: told the arguments; the run's scores_stamp where there is none.
    """
    return lambda work: Cached(work, most, stamp or (lambda entry, *_: scores_stamp(entry)), spinner)


@per_run(32, stamp=lambda entry: _versions_in(description_files(entry.root)))
def open_run(entry: catalog.Entry) -> Run:
    """The run as its files are now. Raises RunError where they cannot be understood."""
    return Run.open(entry.root, catalog.named_places())


class Opening:
    """A run's scores being opened, once for all sessions. table: what came out, once it is there.

    builds: whether their index has to be built first, which takes up to half a minute.
    """

    def __init__(self, root: Place) -> None:
        self.table: ScoreTable | None = None
        self.work = Task(self._do)
        self._run = Run.open(root, catalog.named_places())
        self.builds = must_build(self._run)

    def get(self) -> ScoreTable:
        """The table, waited for. Raises what opening it does."""
        while self.table is None:
            self.work.start()
            self.work.wait(threading.TIMEOUT_MAX)
            if self.work.error:
                raise self.work.error
        return self.table

    def _do(self, report: Report) -> None:
        def told(done: int, total: int, unit: str = "", note: str = "", /) -> None:
            report(done, total, unit, note or f"{done} of {total} columns are in order …")

        report(0, 0, "", "Reading the scores …")
        self.table = open_indexed(self._run, report=told)


def opening(entry: catalog.Entry) -> Opening | None:
    """The opening of the run's scores; None where no shard is finished."""
    return _opening(entry) if open_run(entry).score_files else None


@per_run(4)
def _opening(entry: catalog.Entry) -> Opening:
    return Opening(entry.root)


def open_table(entry: catalog.Entry) -> ScoreTable:
    """The run's scores, opened once for all sessions."""
    return open_picker(entry).table


@per_run(4, spinner="Opening the scores …")
def open_picker(entry: catalog.Entry) -> Picker:
    """What answers for the run's recipes; shared, so that nobody works out again what somebody asked before."""
    table = _opening(entry).get()
    if len(table) >= _LARGE:
        # While another page is looked at: which rows are on the map takes a look at every uid, once.
        def open_map_ahead() -> None:
            with suppress(ClipselError):  # Whoever opens the Map is told.
                find_map(entry)

        ahead = threading.Timer(_LATER_S, open_map_ahead)
        ahead.daemon = True
        ahead.start()
    return Picker(table)


def require_table(entry: catalog.Entry) -> ScoreTable:
    """The run's scores; where no shard is finished yet the page says so and stops."""
    run = open_run(entry)
    if not run.score_files:
        messages.show_empty(
            "No shard is finished yet",
            "Pairs appear here as soon as the first shard is scored. Overview says how far it is, and starts it again.",
            messages.score_again(run),
        )
        st.stop()
    return open_table(entry)


@per_run(4, stamp=map_stamp)
def find_map(entry: catalog.Entry) -> Projection | None:
    """The projected sample with its rows and coordinates, or None where the run has no projection."""
    return read_projection(open_run(entry), open_table(entry))


def open_map(entry: catalog.Entry) -> Projection:
    """The same where there is one. Raises ClipselError where there is none any more."""
    found = find_map(entry)
    if found is None:
        where = entry.root / "projection.parquet"
        raise ClipselError(
            where, expected="the run's map", found="no such file", remedy="make it again on the Map page"
        )
    return found


def find_pool(entry: catalog.Entry) -> Pool | None:
    """The run's pool, or None where it is not at hand any more, or lies in a store that the server was not told of.

    A pool that came back is seen at once, one whose files were mended within seconds.
    """
    run, begun = open_run(entry), time.monotonic()
    if not run.may_read_pool:
        return None
    sought: Hashable = run.pool_address
    try:
        root = run.pool_root
        sought = root.address, pool_stamp(root)
        failed_at, took_s = _lacking.peek(sought) or (-math.inf, 0.0)
        return (
            None
            if begun - failed_at < (max(_LACKING_S, _LACKING_REST * took_s) if root.remote else _LACKING_S)
            else pool_at(root)
        )
    except ClipselError:
        now = time.monotonic()
        _lacking.put(sought, (now, now - begun))
        return None


def pool_stamp(root: Path | Place) -> Stamp:
    """Changes whenever one of a pool's folders does: what is known of the pool holds until then."""
    return files_stamp(root, "metadata", "shards", "images")


@per_run(8, stamp=pool_stamp)
def pool_at(root: Path | Place) -> Pool:
    """The pool in a folder, here or in a store, as its files are now. Raises PoolFormatError where there is none."""
    return open_pool(root)


def teacher_of(run: Run) -> tuple[str, str | None, str] | None:
    """The model behind the embeddings of the run's pool, see layout.find_teacher. Raises as that."""
    root, arch = run.pool_root, run.config.arch
    if not root.remote:
        return layout.find_teacher(root, arch)
    noted = noted_teachers(root).get(arch)
    return (noted.model, noted.pretrained, noted.weights) if noted else None


@per_run(32, stamp=lambda root: files_stamp(root, "teachers.json"))
def noted_teachers(root: Place) -> dict[str, TeacherInfo]:
    """The teachers that a pool notes, by arch. Raises PoolFormatError where the file is damaged."""
    return layout.read_teachers(root)


@dataclass(frozen=True)
class Picked:
    """What a recipe picks from a run, and who can say what it would pick otherwise."""

    picker: Picker
    recipe: Recipe
    taken: list[Taken]
    selection: Selection


def picked(entry: catalog.Entry, recipe: str) -> Picked:
    """What a recipe (YAML) picks from the run. Raises RecipeError where it does not fit the run."""
    picker, steps = open_picker(entry), parse(entry, recipe)
    taken = picker.take(steps)
    return Picked(picker, steps, taken, picker.selection(taken))


def keeps(entry: catalog.Entry, recipe: str) -> Keeps:
    """What tells of some rows which of them a recipe (YAML) keeps."""
    return partial(bitmaps.holds, kept_bits(entry, recipe))


def kept_bits(entry: catalog.Entry, recipe: str) -> np.ndarray:
    """The bitmap of the pairs that a recipe keeps. "" has no step and keeps every pair that may be selected."""
    return picked(entry, recipe).selection.bits() if recipe else open_picker(entry).bits(())


def ranking(entry: catalog.Entry, metric: str) -> Ranking:
    """The interactive index of a metric, built once for all sessions."""
    return open_table(entry).ranking(metric)


@per_run(64, stamp=lambda entry, recipe: tuple(open_run(entry).metrics))
def parse(entry: catalog.Entry, recipe: str) -> Recipe:
    """A recipe's steps, checked against the run's columns; uid lists in it are named from the run's recipes folder."""
    return parse_recipe(recipe, columns=open_table(entry).columns, folder=open_run(entry).recipes_dir)


def _versions_in(files: list[Place]) -> Stamp:
    """The versions of files of one name in several folders, which tell them apart."""
    return tuple((file.parent.name, *version_of(file)) for file in files)
