"""Is everything in a run's folder as it was written?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clipsel_core import uids
from clipsel_core.curation.index.index import read_index, scores_fingerprint
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import parse_recipe
from clipsel_core.curation.recipes.uidlists import read_uid_list
from clipsel_core.curation.selecting.selection import select
from clipsel_core.errors import ClipselError, counted
from clipsel_core.places import Place
from clipsel_core.runs.store import UID_HALVES, Run, SealedFiles, files_at_once, is_sealed, score_file
from clipsel_core.tasks import Report, silent

# What float32 may differ by from float64, of values of about 1 and in proportion.
_TOLERANCE = 2e-5


@dataclass
class Verified:
    """What was found. problems: a line each, none where all is well. notes: what could not be looked at, and why.

    files: files of scores that were read whole. exports: subsets that were picked again.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: int = 0
    exports: int = 0


def verify(run: Run, *, report: Report = silent) -> Verified:
    """Reads every file of a run, and holds exports against their recipes.

    report: told how many of how many files of scores were read.
    """
    found = Verified()
    _check_files(run, found, report)
    if not found.problems:
        table = ScoreTable.open(run)
        ordered = uids.sort(table.uids())
        same = uids.repeats(ordered)
        if same.any():
            said, example = counted(int(same.sum()), "repeats"), uids.to_hex(ordered[same][:1])[0].as_py()
            found.problems.append(f"{run.root}: expected each uid once, found {said}, such as {example}")
        found.problems += _score_problems(run, table)
        folder = run.index_dir / scores_fingerprint(run)
        if folder.is_dir():
            index = read_index(folder, table.metrics, len(table))
            damaged = index is None or index.uids is None or index.rows_of(index.uids[:1]) is None
            if damaged or any(index.ranking(metric) is None for metric in table.metrics):  # type: ignore[union-attr]
                said = "expected the index as written, found it damaged; delete it: it is built again"
                found.problems.append(f"{folder}: {said}")
        for manifest in _manifests(run.exports_dir):
            found.exports += 1
            found.problems += [f"{manifest}: {problem}" for problem in _export_problems(run, table, manifest)]
    return found


def _manifests(exports: Place) -> list[Place]:
    """Those of uid lists and of shards."""
    of_lists = [exports / name for name in exports.names() if name.endswith(".manifest.json")]
    of_shards = [exports / name / "manifest.json" for name in exports.folders()]
    return sorted([*of_lists, *(file for file in of_shards if file.exists())], key=str)


def _check_files(run: Run, found: Verified, report: Report) -> None:
    """Reads all columns of all shards, and says where the uids of what was added are not those of the scores."""
    scores = SealedFiles(run.root, run.config)
    added = [SealedFiles(run.root, run.config, target) for target in run.added]
    names = [shard.name for shard in run.scored_shards]
    if len(names) < len(run.config.shards) or not run.finished:
        found.problems.append(f"{run.root}: {len(names):,} of {len(run.config.shards):,} shards are scored")

    def look(shard: str) -> tuple[list[str], bool]:
        problems, own = [], None
        for files in (scores, *added):
            try:
                table = files.read(shard)
                own = table if own is None else own
                if any(table[half] != own[half] for half in UID_HALVES):
                    problems.append(f"{files.file(shard)}: expected the uids of the scores, found others")
            except ClipselError as error:
                problems.append(str(error))
        return problems, own is not None and is_sealed(own)

    unsealed = 0
    with ThreadPoolExecutor(files_at_once(run.root)) as threads:
        for problems, sealed in threads.map(look, names):
            found.problems += problems
            found.files += 1 + len(added)
            unsealed += not sealed and not problems
            report(found.files, len(names) * (1 + len(added)), "files")
    if unsealed:
        found.notes.append(f"{counted(unsealed, 'shards')} of an earlier version, which has no checksums")


def _score_problems(run: Run, table: ScoreTable) -> Iterator[str]:
    """Where the counts and sums that hold for every run do not."""
    aside = int(np.isnan(table.column("clip_score")).sum()) if "clip_score" in table.metrics else None
    if aside is not None and run.config.skipped_rows not in (aside, None):
        expected = f"{run.config.skipped_rows:,} pairs set aside, as run.json says"
        yield f"{run.root}: expected {expected}, found {aside:,}"
    if {"clip_score", "s_cliploss", "r_image", "r_text"} <= set(table.metrics):
        whole = table.column("clip_score").astype(np.float64) - table.column("r_image") - table.column("r_text")
        off = np.abs(whole - table.column("s_cliploss")) > _TOLERANCE
        if off.any():
            rows = np.array([np.argmax(off)])
            shard = table.shard_names[table.files.shard_of(rows)[0]]
            where = f"{score_file(table.run.root, shard)}, row {table.files.place_in_shard(rows)[0]}"
            yield f"{where}: expected s_cliploss = clip_score - r_image - r_text, found another"


def _export_problems(run: Run, table: ScoreTable, manifest: Place) -> Iterator[str]:
    """What of an export is not as its manifest says, or not what its recipe picks now."""
    try:
        said = json.loads(manifest.read())
        recipe = parse_recipe(said["recipe"], str(manifest), table.columns, folder=run.recipes_dir)
        files = [said] if "file" in said else said["tars"]
        for each in files:
            path = manifest.parent / Path(each["file"]).name
            if path.size() != each["size_bytes"] or path.sha256() != each["sha256"]:
                yield f"expected {path.name} as it was exported, found other bytes"
                return
        if said["shards"] != list(table.shard_names):
            yield f"expected all {len(table.shard_names):,} shards, found a subset of {len(said['shards']):,}"
            return
        selection = select(run, recipe, table)
        if "file" in said:
            named = read_uid_list(manifest.parent / Path(said["file"]).name)
            same = np.array_equal(named, uids.sort(table.uids_at(selection.rows)))
        else:
            same = said["selection_sha256"] == hashlib.sha256(selection.uids().tobytes()).hexdigest()
        # How often each pair is in the file, its SHA-256 has told; how often the recipe draws them, these do.
        drawn = said.get("pairs_by_count", {"1": len(selection)})
        counts = {str(count): pairs for count, pairs in selection.counts_of_counts().items()}
        if not same or said["pairs"] != len(selection) or drawn != counts:
            yield f"expected what its recipe picks, {counted(len(selection), 'pairs')}, found others"
    except OSError as error:
        yield f"expected what was exported, found {error.strerror or error}"
    except ClipselError as error:
        yield str(error)
    except (ValueError, LookupError, TypeError) as error:
        yield f"expected an export's manifest, found {type(error).__name__}: {str(error).splitlines()[:1]}"
