"""How does a finished run get one more column? Its values are found, then written beside its scores.

RUN/added/<name>/column.json      what it is and how it was made; says at the end that it is complete
RUN/added/<name>/<shard>.parquet  uid_hi, uid_lo (uint64) and the column (float32), a row a pair, in the shard's order

Until it is complete nobody sees it. Started again it is made again, to the same bytes.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from clipsel_core.columns.captions import COMPUTED
from clipsel_core.columns.join import ShardUids, join
from clipsel_core.columns.keyed_files import find_files
from clipsel_core.columns.keyed_values import open_keyed
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import load_recipe
from clipsel_core.curation.selecting.selection import select
from clipsel_core.errors import ColumnError, RunError, quoted
from clipsel_core.files import remove_leftovers, sha256_of, write_json
from clipsel_core.runs.columns import Column, Direction
from clipsel_core.runs.local import sole_worker
from clipsel_core.runs.store import NAME_PATTERN, UID_HALVES, AddedColumn, Run, SealedFiles, keep_whole, read_added
from clipsel_core.tasks import Report, check, silent

Missing = Literal["nan", "error"]


@dataclass(frozen=True)
class Values:
    """A column's values and what is to be said of them. values: (N,) float32 in row order. counts, made: as in
    AddedColumn."""

    column: Column
    values: np.ndarray
    made: dict[str, Any]
    counts: dict[str, int]


def import_column(
    root: str | Path,
    name: str,
    source: str,
    *,
    missing: Missing = "nan",
    kind: Literal["number", "category"] | None = None,
    direction: Direction | None = None,
    title: str = "",
    help_text: str = "",
    report: Report = silent,
) -> AddedColumn:
    """Adds values by uid as a column of a finished run.

    source: FILE#COLUMN or RUN#COLUMN, as `columns.keyed_values` describes. missing: error refuses a source that lacks
    values of some pairs; nan leaves them without one. kind: None for what the values' type says. direction: which of
    them are better. report: told how many rows were read.
    Raises: ColumnError where the source does not fit, or the name is taken; what reading it raises. Nothing is added
    then.
    """

    def find(run: Run) -> Values:
        keyed = open_keyed(source, kind=kind)
        joined = join(ShardUids.of(run), keyed, report=report)
        if joined.missing and missing == "error":
            found = f"{joined.missing:,} pairs without one"
            raise ColumnError(source, expected="a value for every pair", found=found, remedy="say --missing nan")
        measures = help_text or f"Imported from {Path(source.partition('#')[0]).name}, column {keyed.column}."
        column = Column(
            name=name,
            title=title,
            measures=measures,
            kind=joined.kind,
            direction=direction,
            origin="run" if _is_run(source) else "imported",
            values=joined.categories,
        )
        counts = {
            "matched": joined.matched,
            "missing": joined.missing,
            "unknown": joined.unknown,
            "repeated": joined.repeated,
            "rounded": joined.rounded,
        }
        return Values(column, joined.values, {"path": source, "sha256": _digest(source)}, counts)

    return _add(root, name, find)


def compute_column(root: str | Path, name: str) -> AddedColumn:
    """Adds a column of COMPUTED, which follows from the pool's captions or addresses, to a finished run.

    Raises: ColumnError where there is no such column, or the pool lacks what it takes.
    """
    computed = COMPUTED.get(name)
    if computed is None:
        expected = f"NAME=FILE, or one of {', '.join(COMPUTED)}, normsim_2d"
        raise ColumnError("column", expected=expected, found=quoted(name))

    def find(run: Run) -> Values:
        values, categories = computed.compute(ScoreTable.open(run).metadata)
        missing = int(np.isnan(values).sum())
        column = computed.column.model_copy(update={"values": categories})
        return Values(column, values, {"computed": name}, {"matched": len(values) - missing, "missing": missing})

    return _add(root, name, find)


def add_normsim_2d(
    root: str | Path,
    name: str,
    start: Path,
    keep: Decimal,
    *,
    rounds: int = 500,
    device: str | None = None,
    report: Report = silent,
) -> AddedColumn:
    """Adds NormSim_2-D of the pairs that a recipe keeps. keep: the share of the pool that remains. See runs.dynamic."""
    from clipsel_core.runs.dynamic import normsim_2d

    recipe = load_recipe(start)

    def find(run: Run) -> Values:
        table = ScoreTable.open(run)
        mask = select(run, recipe, table).mask()
        values = normsim_2d(run, mask, keep=keep, rounds=rounds, device=device, report=report)
        column = Column(
            name=name,
            title="NormSim 2-D",
            measures=f"Which share of {rounds:,} rounds a pair outlasts while the pairs least like all others that "
            "remain are dropped; higher is better.",
            misleads=f"Only the {int(mask.sum()):,} pairs that {start.name} keeps have a value.",
            direction="higher",
        )
        made = {"start": start.name, "sha256": sha256_of(start), "keep": str(keep), "rounds": rounds}
        missing = int(np.isnan(values).sum())
        return Values(column, values, made, {"matched": len(values) - missing, "missing": missing})

    return _add(root, name, find)


def remove_column(root: str | Path, name: str) -> None:
    """Takes an added column away. Raises ColumnError where the run has none of that name."""
    run = Run.open(root)
    if not (run.root / "added" / name / "column.json").is_file() or "/" in name:
        known = ", ".join(added.column.name for added in run.added_columns) or "none"
        raise ColumnError(run.root, expected=f"one of the added columns {known}", found=quoted(name))
    with sole_worker(run.root):
        shutil.rmtree(run.root / "added" / name)


def _add(root: str | Path, name: str, find: Callable[[Run], Values]) -> AddedColumn:
    run = Run.open(root)
    run.check_finished()
    try:
        with sole_worker(run.root):
            _check_name(run, name)
            return _write(run, find(run))
    except OSError as error:
        remedy, found = "make room, then start it again", str(error.strerror or error)
        raise RunError(error.filename or root, expected="to write a column", found=found, remedy=remedy) from error


def _check_name(run: Run, name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        expected = "a name of letters, digits, _ and -, at most 64"
        raise ColumnError(run.root, expected=expected, found=quoted(name))
    taken = name in ScoreTable.open(run).columns or any(target.name == name for target in run.targets)
    if taken:
        remedy = f"choose another, or remove it first: clipsel remove-column RUN {name}"
        raise ColumnError(run.root, expected="a new column's name", found=quoted(name), remedy=remedy)


def _write(run: Run, found: Values) -> AddedColumn:
    """Writes a column's files, those that are there already as they are to be left as they are."""
    plan = AddedColumn(column=found.column, made=found.made, counts=found.counts)
    description = run.root / "added" / plan.folder / "column.json"
    if description.exists() and read_added(description) != plan:
        for file in description.parent.iterdir():  # Begun from something else, and seen by nobody.
            file.unlink()
    write_json(description, plan.model_dump(mode="json"))
    remove_leftovers(description.parent)
    files, scores = SealedFiles(run.root, run.config, plan), SealedFiles(run.root, run.config)
    keep_whole(files)
    first = 0
    for shard in run.config.shards:
        check()
        if not files.file(shard.name).exists():
            table = scores.read(shard.name, UID_HALVES).replace_schema_metadata(None)
            values = np.ascontiguousarray(found.values[first : first + shard.rows])
            column = pa.Array.from_buffers(pa.float32(), shard.rows, [None, pa.py_buffer(values)])
            files.write(shard.name, table.append_column(found.column.name, column), use_dictionary=False)
        first += shard.rows
    finished = plan.model_copy(update={"complete": True})
    write_json(description, finished.model_dump(mode="json"))
    return finished


def _is_run(source: str) -> bool:
    return (Path(source.rpartition("#")[0] or source) / "run.json").is_file()


def _digest(source: str) -> str:
    """SHA-256 of the source's file; of several, of theirs one after another."""
    if _is_run(source):
        return sha256_of(Path(source.rpartition("#")[0] or source) / "run.json")
    digests = []
    for place in find_files(source)[0]:
        digest = hashlib.sha256()
        with place.open() as file:
            while block := file.read(1 << 20):
                digest.update(block)
        digests.append(digest.hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
