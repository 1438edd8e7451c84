"""How does a selection become training shards? Webdataset tars with the images as they are, written whole, resumed.

OUT/<shard>.tar              <key>.jpg, .png or .webp, <key>.txt, <key>.json; <shard>_stats.json beside each
OUT/export.json              what decides the bytes; an export is gone on with only where it is the same
OUT/missing.txt              the uids that have no image, a line each
OUT/unreadable.txt           the uids whose image cannot be read or is broken, a line each
OUT/sizes.json, __len__      the pairs of each tar, and of all, where open_clip looks for them
OUT/manifest.json            the whole: counts, recipe, run, and each tar's size and SHA-256; written last

A tar of which no pair has an image is not written; its _stats.json says so.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clipsel_core import leases, uids
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import Recipe
from clipsel_core.curation.selecting.export import check_some, manifest_of
from clipsel_core.curation.selecting.selection import Selection
from clipsel_core.errors import ExportError, counted
from clipsel_core.files import made_folder, sha256_of
from clipsel_core.places import Place
from clipsel_core.pool.images import Images, open_images
from clipsel_core.pool.layout import parquet_file
from clipsel_core.pool.making.decode import Unusable, quiet_pillow
from clipsel_core.pool.making.packing import check_whole, for_loaders, new_tar, stats_file, write_stats
from clipsel_core.pool.making.settings import hold_folder
from clipsel_core.runs.columns import Column
from clipsel_core.runs.store import Run, check_outside
from clipsel_core.tasks import Report, in_order, silent

PAIRS_PER_SHARD = 10_000

_READERS = 16
# What a pair's json has of the pair itself.
_FIELDS = ("uid", "key", "caption", "url")
# What is counted of the pairs that are written.
_COUNTED = ("encoded_again", "without_caption")
_WORDS = {"run_json_sha256": "run", "selection_sha256": "selection"}


class _Pair(NamedTuple):
    """A selected pair. image: as loaders read it; else why there is none, "missing" or "unreadable"."""

    uid: str
    image: bytes | str
    encoded_again: bool
    json: bytes


def export_shards(
    run: Run,
    selection: Selection,
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    pairs_per_shard: int = PAIRS_PER_SHARD,
    scores: bool = False,
    named: Sequence[str] = (),
    samples_seen: int | None = None,
    finding: Report = silent,
    report: Report = silent,
) -> dict[str, Any]:
    """Writes the selected pairs as webdataset tars, in the pool's order, or goes on with that. A pair that counts
    several times is written as often, as <uid>-0, <uid>-1 and so on, which are DataComp's resharder's keys.

    Images are copied byte for byte from where the pool has them: its tars, or the places that `embed` noted. What
    training loaders do not read is encoded again; see packing.for_loaders. The same run, recipe and options give the
    same bytes. The json of a pair keeps what the source's says. Beside it, it has the numbers, truth values and texts
    of the pool's table, under their names. A field that the source's json has already stays as it is there.

    Returns: the manifest as its JSON says it. written: pairs in the tars; missing, unreadable: selected pairs without
    an image, and with one that cannot be read; encoded_again: pairs whose image is a PNG in the tars, as loaders do not
    read what it was; without_caption: pairs whose caption says nothing; json_stays: fields whose value the source's
    json has otherwise, and in how many pairs; tars: each tar's file, pairs, size and SHA-256.

    scores: also write each pair's columns of the run into its json. named: places that images may lie below, see reach.
    samples_seen: as in export; the epochs are of what is written.
    finding: told how many of the pool's files were gone through for its images, where nobody did so before.
    report: told after each tar how many of how many pairs are done.
    Raises: ExportError where nothing is selected, the pool is not there, no pair has an image, `out` holds something
        else, or cannot be written; PoolFormatError where a store that holds images stays away, or the pool is not as it
        was scored.
    """
    out, (rows, copies) = Place.of_named(out), _in_order(selection)
    settings = {
        "format": 3,
        "run_json_sha256": (run.root / "run.json").sha256(),
        "selection_sha256": hashlib.sha256(selection.uids().tobytes()).hexdigest(),
        "pairs_per_shard": pairs_per_shard,
        "scores": scores,
    }
    check_outside(out)
    if pairs_per_shard < 1:
        raise ExportError("--pairs-per-shard", expected="1 or more", found=str(pairs_per_shard))
    check_some(selection)
    try:
        _check_same(out, settings)
        images = _images(run, selection.table, named, finding)
        with quiet_pillow(), _held(out):
            _check_same(out, settings)
            if not (out / "export.json").exists():
                (out / "export.json").write_json(settings)
            work = _Work(selection.table, images, scores, selection.counts is not None)
            done = 0
            # Of one size, or one more: open_clip's workers take the same number of pairs, each from tars of its own.
            tars = -(-len(rows) // pairs_per_shard)
            for number, parts in enumerate(zip(*(np.array_split(one, tars) for one in (rows, copies)), strict=True)):
                work.write(out / f"{number:08d}.tar", *parts)
                done += len(parts[0])
                report(done, len(rows), "pairs")
            return _finish(run, selection, recipe, out, settings, samples_seen, tars)
    except OSError as error:
        found, remedy = error.strerror or str(error), "make room and start again: finished tars are kept"
        raise ExportError(error.filename or out, expected="to write the shards", found=found, remedy=remedy) from error


def _in_order(selection: Selection) -> tuple[np.ndarray, np.ndarray]:
    """The rows in the order in which they are written, and which copy of its pair each is: (S,) int64 both.

    Those that count several times come again behind all others, so that a batch of training seldom holds a pair twice.
    """
    rows, counts = selection.rows, selection.counts
    if counts is None:
        return rows, np.zeros_like(rows)
    parts = [rows[counts[rows] > copy] for copy in range(int(counts.max(initial=0)))]
    return np.concatenate(parts), np.repeat(np.arange(len(parts)), list(map(len, parts)))


@dataclass(frozen=True)
class _Work:
    """Writing tars, with all that it takes. counted: whether pairs may be written several times."""

    table: ScoreTable
    images: Images
    scores: bool
    counted: bool

    @cached_property
    def of_pool(self) -> tuple[str, ...]:
        """The pool's columns that a pair's json gets under their names, but those that the run has, too."""
        pool = self.table.metadata.pool
        assert pool is not None
        left_out = {pool.uid_column, pool.text_column, pool.url_column, "json", *_FIELDS, *self.table.metrics}
        return tuple(name for name in self.table.columns if name in pool.columns and name not in left_out)

    def write(self, tar: Place, rows: np.ndarray, copies: np.ndarray) -> None:
        """Writes a tar and its stats, which mark that it is done. copies: which of its pair each row is."""
        done = stats_file(tar)
        if done.exists() and (tar.exists() or not json.loads(done.read())["successes"]):
            return
        lost: dict[str, list[str]] = {"missing": [], "unreadable": []}
        written, counts, stays, facts_of_tar = 0, dict.fromkeys(_COUNTED, 0), Counter[str](), dict[str, str | int]()

        def fill(aside: Path) -> None:
            nonlocal written
            with new_tar(aside) as packer:
                for copy, (pair, facts, columns) in zip(copies.tolist(), self._pairs(rows), strict=True):
                    if isinstance(pair.image, str):
                        lost[pair.image].append(pair.uid)
                        continue
                    # As DataComp's resharder calls the copies of a pair.
                    key = f"{pair.uid}-{copy}" if self.counted else f"{tar.stem}{packer.count:08d}"
                    # What the source says of the image stays; what the pool says of the pair comes first.
                    own = {"uid": pair.uid, "key": key, **facts}
                    said = _facts_in(pair.json)
                    stays.update(name for name, value in columns.items() if name in said and said[name] != value)
                    packer.add(key, pair.image, facts["caption"], {**own, **columns, **said, **own})
                    counts["encoded_again"] += pair.encoded_again
                    counts["without_caption"] += not facts["caption"].strip()
                written = packer.count
            facts_of_tar.update(sha256=sha256_of(aside), size_bytes=aside.stat().st_size)

        tar.write(fill)
        more = {**facts_of_tar, **counts, **lost, "json_stays": dict(sorted(stays.items()))}
        if not written:
            tar.remove()
        write_stats(tar, written, **more)

    def _pairs(self, rows: np.ndarray) -> Iterator[tuple[_Pair, dict[str, Any], dict[str, Any]]]:
        """Each pair with its facts and further columns, in order; some images are read ahead."""
        names = uids.to_hex(self.table.uids_at(rows)).to_pylist()
        noted = ("json",) if self.table.metadata.pool and "json" in self.table.metadata.pool.columns else ()
        said = self.table.metadata.of(rows, ("caption", "url", *noted, *self.of_pool))
        facts = {name: said[name].tolist() for name in ("caption", "url")}
        columns = {name: [_as_json(value) for value in said[name].tolist()] for name in self.of_pool}
        for metric in self.table.metrics if self.scores else ():
            columns[metric] = _as_values(self.table.columns[metric], self.table.take(metric, rows))
        threads = ThreadPoolExecutor(_READERS)
        try:
            found = in_order(names, lambda uid: threads.submit(self._fetch, uid), 2 * _READERS)
            for place, (_, pair) in enumerate(found):
                if noted:
                    pair = pair._replace(json=said["json"][place])
                further = {name: values[place] for name, values in columns.items()}
                yield pair, {name: values[place] for name, values in facts.items()}, further
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, uid: str) -> _Pair:
        image, facts, known = self.images.fetch(uid)
        if not known:
            return _Pair(uid, "missing", False, b"")
        try:
            data = for_loaders(image or b"")
            check_whole(data)
        except Unusable:
            return _Pair(uid, "unreadable", False, b"")
        return _Pair(uid, data, data is not image, facts)


def _facts_in(text: bytes) -> dict[str, Any]:
    """What the json of a pair's source says. NaN, which is no JSON, is nothing."""
    try:
        facts = json.loads(text or b"{}", parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _as_json(value: Any) -> Any:
    """A value of the pool's table as JSON has it: nothing where there is none, or an infinite one."""
    return None if value == "" or (isinstance(value, float) and not math.isfinite(value)) else value


def _as_values(column: Column, values: np.ndarray) -> list[Any]:
    """A column's values, (M,) float32, as JSON has them: numbers, truth values, texts; nothing where there is none."""
    if column.kind == "number":
        return [_as_json(value) for value in values.tolist()]
    known = column.values if column.kind == "category" else (False, True)
    return [None if np.isnan(value) else known[int(value)] for value in values]


def _images(run: Run, table: ScoreTable, named: Sequence[str], finding: Report) -> Images:
    if table.metadata.pool is None:
        remedy = "bring the pool back to where it was scored"
        raise ExportError(run.pool_root, expected="the pool of the run", found="no such folder", remedy=remedy)
    images = open_images(table.metadata.pool, run.cache_dir, finding, named, table.pool_rows_of)
    if images is None:
        remedy = "export uids with select, and use DataComp's resharder"
        expected = "images: shards/*.tar, or a pool that embed made"
        raise ExportError(run.pool_root, expected=expected, found="none", remedy=remedy)
    return images


@contextmanager
def _held(out: Place) -> Iterator[None]:
    """Holds the folder of an export, made if need be."""
    if not out.remote:
        with made_folder(Path(out)), hold_folder(out):
            yield
        return
    remedy = "wait for it, or take another folder"
    busy = ExportError(out, expected="a folder nobody writes into", found="another process at work", remedy=remedy)
    with leases.hold_place(out, busy):
        yield


def _check_same(out: Place, settings: dict[str, Any]) -> None:
    """Makes sure that `out` is new, empty, or was begun with these settings. Raises: ExportError, OSError."""
    path = out / "export.json"
    if not path.exists():
        if found := next(iter([*out.names(), *out.folders()]), None):
            raise ExportError(out, expected="an empty folder, or one of export's", found=found)
        return
    try:
        begun = json.loads(path.read())
        changed = next((name for name in settings if begun.get(name) != settings[name]), None)
    except (ValueError, AttributeError) as error:
        raise ExportError(path, expected="the settings of an export", found=str(error)) from error
    if changed:
        remedy = "give it as before, or export into another folder"
        expected, other = f"{changed} {begun.get(changed)}, as begun", str(settings[changed])
        if changed in _WORDS:
            expected, other = f"the {_WORDS[changed]} that it was begun with", "another"
        raise ExportError(out, expected=expected, found=other, remedy=remedy)


def _finish(
    run: Run,
    selection: Selection,
    recipe: Recipe,
    out: Place,
    settings: dict[str, Any],
    samples_seen: int | None,
    count: int,
) -> dict[str, Any]:
    """Puts the stats of so many tars together and checks that every selected pair is accounted for."""
    tars, noted, stays = [], dict.fromkeys(_COUNTED, 0), Counter[str]()
    lost: dict[str, list[str]] = {"missing": [], "unreadable": []}
    stats_files = [stats_file(out / f"{number:08d}.tar") for number in range(count)]
    with ThreadPoolExecutor(_READERS) as threads:
        read = list(threads.map(Place.read, stats_files))
    for path, stats in zip(stats_files, map(json.loads, read), strict=True):
        for what in _COUNTED:
            noted[what] += stats[what]
        stays.update(stats["json_stays"])
        for what, names in lost.items():
            names += stats[what]
        if stats["successes"]:
            facts = {name: stats[name] for name in ("size_bytes", "sha256")}
            tars.append({"file": f"{path.name.removesuffix('_stats.json')}.tar", "pairs": stats["successes"]} | facts)
    written = sum(tar["pairs"] for tar in tars)
    counts = {"written": written, **{what: len(names) for what, names in lost.items()}}
    if sum(counts.values()) != selection.samples:
        found = ", ".join(f"{count:,} {what}" for what, count in counts.items())
        expected = counted(selection.samples, "pairs" if selection.counts is None else "samples")
        raise ExportError(out, expected=expected, found=found, remedy="export into another folder")
    if not written:
        # So that the next attempt looks for the images again, and the folder goes where it was made for this one.
        for path in (*stats_files, out / "export.json"):
            path.remove()
        raise _no_image(selection, counts)
    for what, names in lost.items():
        if names:
            text = "".join(f"{uid}\n" for uid in dict.fromkeys(names))
            (out / f"{what}.txt").write_bytes(text.encode())
    (out / "sizes.json").write_json({tar["file"]: tar["pairs"] for tar in tars})
    (out / "__len__").write_json(written)
    content = manifest_of(run, selection, recipe, samples_seen=samples_seen, written=written)
    content |= settings | counts | noted
    content |= {"json_stays": dict(sorted(stays.items())), "tars": tars}
    (out / "manifest.json").write_json(content)
    return content


def _no_image(selection: Selection, counts: dict[str, int]) -> ExportError:
    pool = selection.table.metadata.pool
    assert pool is not None
    found = f"none: {counts['missing']:,} have no image in the pool, {counts['unreadable']:,} one that cannot be read"
    remedy = "bring the images back to where they were"
    if pool.indexes and not any(parquet_file(index).metadata.num_rows for index in pool.indexes):
        remedy = "the pool has none: embed their TARS into it with another teacher, which finds its images"
    elif not pool.indexes and counts["missing"]:
        remedy = (
            "the json beside an image must hold the pair's uid; else make a pool of the tars with embed, and score it"
        )
    expected = f"images of the {counted(len(selection), 'pairs')} selected"
    return ExportError(pool.root, expected=expected, found=found, remedy=remedy)
