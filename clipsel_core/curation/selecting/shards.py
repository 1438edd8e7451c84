"""How does a selection become training shards? Webdataset tars with the images as they are, written whole, resumed.

OUT/<shard>.tar              <key>.jpg (or as the image is), <key>.txt, <key>.json; <shard>_stats.json beside each
OUT/export.json              what decides the bytes; an export is gone on with only where it is the same
OUT/missing.txt              the uids whose image could not be read, a line each
OUT/manifest.json            the whole: counts, recipe, run, and each tar's size and SHA-256; written last
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipsel_core import uids
from clipsel_core.counts import counted
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import Recipe
from clipsel_core.curation.selecting.export import describe
from clipsel_core.curation.selecting.selection import Selection
from clipsel_core.errors import ExportError
from clipsel_core.files import made_folder, sha256_of, write_atomically, write_json
from clipsel_core.pool.ahead import in_order
from clipsel_core.pool.images import ImageIndex, open_images
from clipsel_core.pool.making.claim import sole_worker
from clipsel_core.pool.making.packing import TarPacker, new_tar, write_stats
from clipsel_core.runs.store import Run, check_outside

PAIRS_PER_SHARD = 10_000

_READERS = 16
_WORDS = {"run_json_sha256": "run", "selection_sha256": "selection"}


@dataclass(frozen=True)
class Shards:
    """What was exported. content: the manifest as its JSON says it."""

    out: Path
    content: dict[str, Any]

    @property
    def written(self) -> int:
        """Pairs in the tars."""
        return self.content["written"]

    @property
    def missing(self) -> int:
        """Selected pairs whose image could not be read."""
        return self.content["missing"]

    @property
    def count(self) -> int:
        """Tars."""
        return len(self.content["tars"])


def export_shards(
    run: Run,
    selection: Selection,
    recipe: Recipe,
    out: str | Path,
    *,
    pairs_per_shard: int = PAIRS_PER_SHARD,
    scores: bool = False,
    named: Sequence[str] = (),
    finding: Callable[[int, int], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Shards:
    """Writes the selected pairs as webdataset tars, in the pool's order, or goes on with that.

    Images are copied byte for byte from where the pool has them: its tars, or the places that `embed` noted. The same
    run, recipe and options give the same bytes.

    scores: also write each pair's metrics into its json. named: places that images may lie below, see reach.
    finding: told how many of the pool's files were gone through for its images, where nobody did so before.
    progress: told after each tar how many of how many pairs are done.
    Raises: ExportError where the pool is not there or has no images, `out` holds something else, or cannot be written;
        PoolFormatError where a store that holds images stays away.
    """
    out, rows = Path(out), selection.rows
    settings = {
        "format": 1,
        "run_json_sha256": sha256_of(run.root / "run.json"),
        "selection_sha256": hashlib.sha256(selection.uids().tobytes()).hexdigest(),
        "pairs_per_shard": pairs_per_shard,
        "scores": scores,
    }
    check_outside(out)
    if pairs_per_shard < 1:
        raise ExportError("--pairs-per-shard", expected="1 or more", found=str(pairs_per_shard))
    if not len(rows):
        raise ExportError("the selection", expected="a pair or more", found="none", remedy="let the recipe keep some")
    try:
        _check_same(out, settings)
        images = _images(run, selection.table, named, finding)
        with made_folder(out), sole_worker(out):
            _check_same(out, settings)
            if not (out / "export.json").exists():
                write_json(out / "export.json", settings)
            work = _Work(selection.table, images, scores)
            for number, start in enumerate(range(0, len(rows), pairs_per_shard)):
                work.write(out / f"{number:08d}.tar", rows[start : start + pairs_per_shard])
                if progress:
                    progress(min(start + pairs_per_shard, len(rows)), len(rows))
            return _finish(run, selection, recipe, out, settings)
    except OSError as error:
        found, remedy = error.strerror or str(error), "make room and start again: finished tars are kept"
        raise ExportError(error.filename or out, expected="to write the shards", found=found, remedy=remedy) from error


@dataclass(frozen=True)
class _Work:
    """Writing tars, with all that it takes."""

    table: ScoreTable
    images: ImageIndex
    scores: bool

    def write(self, tar: Path, rows: np.ndarray) -> None:
        """Writes a tar and its stats, which mark that it is done."""
        if tar.exists() and _stats_of(tar).exists():
            return
        missing: list[str] = []
        counts: list[int] = []

        def fill(aside: Path) -> None:
            with new_tar(aside) as packer:
                missing.extend(uid for uid, data, facts in self._pairs(rows) if not _add(packer, tar, data, facts))
                counts.append(packer.count)

        write_atomically(tar, fill)
        more = {"sha256": sha256_of(tar), "size_bytes": tar.stat().st_size, "missing": missing}
        write_stats(tar, counts[0], **more)

    def _pairs(self, rows: np.ndarray) -> Iterator[tuple[str, bytes | None, dict[str, Any]]]:
        """Each pair's uid, image and facts, in order; some images are read ahead."""
        names = uids.to_hex(self.table.uids_at(rows)).to_pylist()
        said = self.table.metadata(rows)
        columns = {name: said[name].tolist() for name in ("caption", "url")}
        if self.scores:
            columns |= {metric: _numbers(self.table.take(metric, rows)) for metric in self.table.metrics}
        with ThreadPoolExecutor(_READERS) as threads:
            found = in_order(names, lambda uid: threads.submit(self.images.fetch, uid), 2 * _READERS)
            for place, (uid, data) in enumerate(found):
                yield uid, data, {"uid": uid, **{name: values[place] for name, values in columns.items()}}


def _add(packer: TarPacker, tar: Path, data: bytes | None, facts: dict[str, Any]) -> bool:
    """Adds a pair, where it has an image; says whether it has."""
    if not data:
        return False
    key = f"{tar.stem}{packer.count:08d}"
    packer.add(key, data, facts["caption"], {"uid": facts["uid"], "key": key, **facts})
    return True


def _numbers(values: np.ndarray) -> list[float | None]:
    """Scores as JSON has them: nothing where there is none."""
    return [None if np.isnan(value) else float(value) for value in values]


def _images(
    run: Run, table: ScoreTable, named: Sequence[str], finding: Callable[[int, int], None] | None
) -> ImageIndex:
    if table.pool is None:
        remedy = "bring the pool back to where it was scored"
        raise ExportError(run.pool_root, expected="the pool of the run", found="no such folder", remedy=remedy)
    images = open_images(table.pool, run.cache_dir, finding, named)
    if images is None:
        remedy = "export uids with select, and use DataComp's resharder"
        expected = "images: shards/*.tar, or a pool that embed made"
        raise ExportError(run.pool_root, expected=expected, found="none", remedy=remedy)
    return images


def _check_same(out: Path, settings: dict[str, Any]) -> None:
    """Makes sure that `out` is new, empty, or was begun with these settings. Raises: ExportError, OSError."""
    path = out / "export.json"
    if not path.exists():
        there = sorted(out.iterdir()) if out.exists() else []
        if found := next((name for name in there if not name.name.startswith(".")), None):
            raise ExportError(out, expected="an empty folder, or one of export's", found=found.name)
        return
    try:
        begun = json.loads(path.read_bytes())
        changed = next((name for name in settings if begun.get(name) != settings[name]), None)
    except (ValueError, AttributeError) as error:
        raise ExportError(path, expected="the settings of an export", found=str(error)) from error
    if changed:
        remedy = "give it as before, or export into another folder"
        expected, other = f"{changed} {begun.get(changed)}, as begun", str(settings[changed])
        if changed in _WORDS:
            expected, other = f"the {_WORDS[changed]} that it was begun with", "another"
        raise ExportError(out, expected=expected, found=other, remedy=remedy)


def _finish(run: Run, selection: Selection, recipe: Recipe, out: Path, settings: dict[str, Any]) -> Shards:
    """Puts the tars' stats together and checks that every selected pair is accounted for."""
    tars, missing = [], list[str]()
    for tar in sorted(out.glob("*.tar")):
        stats = json.loads(_stats_of(tar).read_bytes())
        missing += stats["missing"]
        tars.append({"file": tar.name, "pairs": stats["successes"]} | {k: stats[k] for k in ("size_bytes", "sha256")})
    written = sum(tar["pairs"] for tar in tars)
    if written + len(missing) != len(selection):
        found = f"{written:,} written and {len(missing):,} missing"
        raise ExportError(
            out, expected=counted(len(selection), "pairs"), found=found, remedy="export into another folder"
        )
    if missing:
        write_atomically(out / "missing.txt", lambda aside: aside.write_text("".join(f"{uid}\n" for uid in missing)))
    counts = {"written": written, "missing": len(missing)}
    content = describe(run, selection, recipe) | settings | counts | {"tars": tars}
    write_json(out / "manifest.json", content)
    return Shards(out, content)


def _stats_of(tar: Path) -> Path:
    return tar.with_name(f"{tar.stem}_stats.json")
