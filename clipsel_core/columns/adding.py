"""How does a finished run get one more column, and how is it taken away? Its values are written beside the scores.

RUN/added/<name>/<shard>.parquet  uid_hi, uid_lo (uint64) and the column (float32), a row a pair, in the shard's order
RUN/added/<name>/column.json      what the column is and how it was made; written last, of several columns together

A folder without the description is of a column that was not finished, and nobody sees it. The same command again makes
it anew, to the same bytes; of a finished column it makes the files anew that were damaged.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from errno import ENOSPC
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import pyarrow as pa

from clipsel_core.columns.captions import COMPUTED, Computed
from clipsel_core.columns.join import Joined, ShardUids, join_group
from clipsel_core.columns.keyed_values import KeyedGroup, KeyedValues, open_groups, open_keyed
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import load_recipe
from clipsel_core.curation.selecting.selection import select
from clipsel_core.errors import ColumnError, RunError, TargetError, counted, quoted, reason_of
from clipsel_core.files import remove_leftovers
from clipsel_core.places import Place
from clipsel_core.pool.conventions import COUNT_NAME, UID_NAMES
from clipsel_core.runs.columns import NEIGHBOUR_RANK, NORMSIM_2D, Column, Said
from clipsel_core.runs.local import sole_worker
from clipsel_core.runs.store import (
    NAME_PATTERN,
    UID_HALVES,
    AddedColumn,
    Run,
    SealedFiles,
    digest_of,
    keep_whole,
    read_added,
    write_description,
)
from clipsel_core.tasks import Report, check, silent

# An export has them beside the run's columns, and whoever reads it finds them by name.
_RESERVED = (*UID_NAMES, *UID_HALVES, COUNT_NAME)
Missing = Literal["nan", "error"]
Made = dict[str, str | int | float | None]


@dataclass(frozen=True)
class ColumnValues:
    """A column and its values. values: (N,) float32 in row order. counts: as in AddedColumn."""

    column: Column
    values: np.ndarray
    counts: dict[str, int]

    @classmethod
    def of(cls, column: Column, values: np.ndarray) -> ColumnValues:
        """Of a column that was computed, NaN where a pair has no value."""
        missing = int(np.isnan(values).sum())
        return cls(column, values, {"matched": len(values) - missing, "missing": missing})


@dataclass(frozen=True)
class Addition:
    """Columns that are found together. made: what each is made of. find: finds them, in order, a run given."""

    names: tuple[str, ...]
    made: tuple[Made, ...]
    find: Callable[[Run], Iterator[ColumnValues]]


def import_column(
    root: str | os.PathLike[str],
    name: str,
    source: str,
    *,
    missing: Missing = "nan",
    kind: Literal["number", "category"] | None = None,
    report: Report = silent,
    **said: Unpack[Said],
) -> AddedColumn:
    """Adds values by uid as a column of a finished run.

    source: FILE#COLUMN or OTHER_RUN#COLUMN, as `columns.keyed_values` describes. missing: error refuses a source that
    lacks values of some pairs; nan leaves these pairs without one. kind: None for what the values' type says.
    report: told how many rows were read. said: as Column has it; of another run's column what is said there, where
    nothing is given.
    Raises: ColumnError where the source does not fit, a value lies out of bounds, or the name is taken; RunError where
        the run is unfinished or cannot be written; what reading the source raises. Then the run is left as it was.
    """
    (added,) = add_together(root, plan_imports({name: source}, missing=missing, kind=kind, report=report, **said))
    return added


def plan_imports(
    sources: Mapping[str, str],
    *,
    missing: Missing = "nan",
    kind: Literal["number", "category"] | None = None,
    report: Report = silent,
    **said: Unpack[Said],
) -> list[Addition]:
    """What adds values by uid, for add_together. Columns of the same files are read and joined once.

    sources: by the columns' names. The rest as in import_column, for all of them.
    Raises: ColumnError where a source is not there; what looking at it raises.
    """

    def addition(names: Sequence[str], group: KeyedGroup) -> Addition:
        digest = _digest(group.columns[0].files)
        made: list[Made] = [{"path": keyed.source, "column": keyed.column, "sha256": digest} for keyed in group.columns]

        def find(run: Run) -> Iterator[ColumnValues]:
            joined = join_group(ShardUids.of(run), group, report=report)
            for name, keyed, values in zip(names, group.columns, joined, strict=True):
                yield described(name, keyed, values)

        return Addition(tuple(names), tuple(made), find)

    def described(name: str, keyed: KeyedValues, joined: Joined) -> ColumnValues:
        if joined.missing and missing == "error":
            found = f"none for {joined.missing:,} of {len(joined.values):,}"
            remedy = "leave out --missing error to add it for the others"
            raise ColumnError(keyed.source, expected="a value for every pair", found=found, remedy=remedy)
        known = keyed.described or Column(
            name=name,
            measures=f"Imported from {Path(keyed.files[0].address).name}, column {keyed.column}.",
            kind=joined.kind,
            values=joined.categories,
        )
        if known.kind == "category" and {"least", "most"} & set(said):
            raise ColumnError(keyed.source, expected="numbers, which lie between others", found="categories")
        own: dict[str, Any] = {"name": name, "title": "", "origin": "imported"}
        if keyed.described:
            # Two runs' scores have the same title; the run's folder tells them apart.
            folder = Path(keyed.source.rpartition("#")[0]).resolve().name
            own |= {"title": f"{known.shown} · {folder}", "origin": "run"}
        own |= {"misleads": ""} if "measures" in said else {}
        column = Column(**{**known.model_dump(), **own, **said})
        least, most = said.get("least", -np.inf), said.get("most", np.inf)
        outside = joined.values[(joined.values < least) | (joined.values > most)]
        if len(outside):
            others = f" and {counted(len(outside) - 1, 'others')}" if len(outside) > 1 else ""
            found = f"{outside[0]:g}{others} outside"
            raise ColumnError(keyed.source, expected=f"values: {column.range}", found=found)
        counts = {key: getattr(joined, key) for key in ("matched", "missing", "unknown", "repeated", "rounded")}
        return ColumnValues(column, joined.values, counts)

    names = {source: [name for name in sources if sources[name] == source] for source in sources.values()}
    groups = open_groups(list(sources.values()), kind=kind)
    return [addition([names[keyed.source].pop(0) for keyed in group.columns], group) for group in groups]


def check_import(
    root: str | os.PathLike[str], name: str, source: str, *, kind: Literal["number", "category"] | None = None
) -> KeyedValues:
    """Makes sure that `import_column` can begin, and writes nothing: the name is free, the source has such a column.

    Returns: the values, of which only the beginning was looked at. Raises: as import_column.
    """
    run = Run.open(root)
    run.check_finished()
    _added_before(run, name)
    return open_keyed(source, kind=kind)


def compute_column(root: str | os.PathLike[str], name: str, *, report: Report = silent) -> AddedColumn:
    """Adds a column of COMPUTED, which follows from the pool's table, to a finished run.

    report: told how many pairs were read.
    Raises: ColumnError where there is no such column, or the pool lacks what it takes; else as import_column.
    """

    (added,) = add_together(root, [plan_computed(name, report=report)])
    return added


def plan_computed(name: str, *, report: Report = silent) -> Addition:
    """What adds a column of COMPUTED, for add_together. Raises: ColumnError where there is no such column."""
    computed = _computed(name)

    def find(run: Run) -> Iterator[ColumnValues]:
        values, categories = computed.values(ScoreTable.open(run), report=report)
        yield ColumnValues.of(computed.column.model_copy(update={"values": categories}), values)

    return Addition((name,), ({"computed": name},), find)


def check_computed(root: str | os.PathLike[str], name: str) -> None:
    """Makes sure that `compute_column` can begin, and writes nothing. Raises: as there, where the name says it."""
    _computed(name)
    run = Run.open(root)
    run.check_finished()
    _added_before(run, name)


def add_normsim_2d(
    root: str | os.PathLike[str],
    name: str,
    start: str | os.PathLike[str],
    keep: Decimal,
    *,
    rounds: int = 500,
    device: str | None = None,
    cluster: str | None = None,
    cpus_per_worker: int | None = None,
    report: Report = silent,
) -> AddedColumn:
    """Adds NormSim_2-D of the pairs that a recipe keeps to a finished run.

    start: the recipe's file. keep: the share of the pool that remains. All others: as runs.whole_pool.
    Raises: RecipeError on the recipe, ScoringError where keep or rounds do not fit; else as import_column.
    """
    options: dict[str, Any] = {"cluster": cluster, "cpus_per_worker": cpus_per_worker, "report": report}
    planned = plan_normsim_2d(root, name, start, keep, rounds=rounds, device=device, **options)
    (added,) = add_together(root, [planned])
    return added


def plan_normsim_2d(
    root: str | os.PathLike[str],
    name: str,
    start: str | os.PathLike[str],
    keep: Decimal,
    *,
    rounds: int = 500,
    device: str | None = None,
    cluster: str | None = None,
    cpus_per_worker: int | None = None,
    report: Report = silent,
) -> Addition:
    """What adds NormSim_2-D, for add_together. Arguments and what is raised: as in add_normsim_2d."""
    from clipsel_core.runs.whole_pool import normsim_2d_of_run

    start = Place.of_named(start)
    recipe = load_recipe(start)
    digests = hashlib.sha256("".join(file.sha256() for file in [start, *recipe.list_files()]).encode()).hexdigest()
    made: Made = {"start": start.name, "sha256": digests, "keep": str(keep), "rounds": rounds}
    made |= {"device": device or Run.open(root).config.device}

    options: dict[str, Any] = {"cluster": cluster, "cpus_per_worker": cpus_per_worker, "report": report}

    def find(run: Run) -> Iterator[ColumnValues]:
        mask = select(run, recipe).mask()
        values = normsim_2d_of_run(run, mask, keep=keep, rounds=rounds, device=device, **options)
        column = Column(
            name=name,
            title="NormSim 2-D",
            measures=f"Which share of {rounds:,} rounds a pair outlasts while the pairs least like all others that "
            "remain are dropped; higher is better.",
            misleads=f"Only the {int(mask.sum()):,} pairs that {start.name} keeps have a value.",
            direction="higher",
            least=0,
            most=1,
        )
        yield ColumnValues.of(column, values)

    return Addition((name,), (made,), find)


def plan_neighbours(
    root: str | os.PathLike[str],
    name: str,
    target: str | os.PathLike[str],
    *,
    most: int = 100,
    device: str | None = None,
    report: Report = silent,
) -> Addition:
    """What adds the place among a target's nearest, for add_together. name: NEIGHBOUR_RANK and the target's name.

    target, most, device, report: as runs.whole_pool and runs.targets.
    Raises: TargetError where the target holds no embeddings; what opening the run's pool and the target raises.
    """
    from clipsel_core.runs.added import scored_pool
    from clipsel_core.runs.targets import load_target
    from clipsel_core.runs.whole_pool import neighbour_ranks

    opened, called = Run.open(root), name.removeprefix(NEIGHBOUR_RANK)
    pool, arch = scored_pool(opened)
    info, rows = load_target(called, target, pool, arch, opened.root, device=device or "cpu", embedding=report)
    if info.kind == "moment":
        raise TargetError(target, expected="embeddings, to find the nearest of each", found="a second moment")
    made: Made = {"path": info.given, "sha256": info.sha256, "neighbours": most}
    made |= {"device": device or opened.config.device}

    def find(run: Run) -> Iterator[ColumnValues]:
        column = Column(
            name=name,
            title=f"Neighbour rank · {called}",
            measures=f"Best place of a pair among the {most:,} nearest that an image of the target {called} has in the "
            "pool; 1 is the nearest.",
            misleads="Every image of the target names as many pairs, also one that the pool has nothing like.",
            direction="lower",
            least=1,
            most=most,
        )
        yield ColumnValues.of(column, neighbour_ranks(run, rows, most=most, device=device, report=report))

    return Addition((name,), (made,), find)


def remove_column(root: str | os.PathLike[str], name: str) -> None:
    """Takes an added column away, also what is left of one that was not finished.

    Raises: ColumnError where the run has none of that name: scores, the pool's columns and targets are not taken away.
    """
    run = Run.open(root)
    folder = run.root / "added" / name
    is_there = bool(re.fullmatch(NAME_PATTERN, name)) and (folder.is_dir() or (folder / "column.json").exists())
    if not is_there or (folder / "target.json").exists():
        known = ", ".join(added.column.name for added in run.added_columns) or "there is none"
        raise ColumnError(run.root, expected=f"one of the columns that were added: {known}", found=quoted(name))
    with _telling(run.root), sole_worker(run.root):
        # Without its description nobody sees it, whatever happens before all of it is gone.
        (folder / "column.json").remove()
        folder.remove_tree(_names(run))


def add_together(root: str | os.PathLike[str], additions: Sequence[Addition]) -> list[AddedColumn]:
    """Adds columns to a finished run, all or none, or makes finished ones whole again.

    No column has its description before the values of all are found and written.
    Returns: the columns, in the order of the additions and their names.
    Raises: ColumnError where a name is taken; RunError where the run is unfinished or cannot be written; what finding
        the values raises. Then the run is left as it was.
    """
    run = Run.open(root)
    run.check_finished()
    with ExitStack() as held:
        with _telling(run.root):
            held.enter_context(sole_worker(run.root))
        names = [name for addition in additions for name in addition.names]
        known = {name: _added_before(run, name) for name in names}
        for addition in additions:
            for name, made in zip(addition.names, addition.made, strict=True):
                if (old := known[name]) and _without_path(old.made) != _without_path(made):
                    raise _taken(run, name, "a column that was added from something else", removable=True)
        new = [run.root / "added" / name for name in names if known[name] is None]
        try:
            added = [each for addition in additions for each in _find(run, addition, known)]
            with _telling(run.root):
                for column, folder in ((each, run.root / "added" / each.folder) for each in added):
                    if folder in new:
                        write_description(run.root, folder / "column.json", column)
        except BaseException:
            for folder in new:
                with suppress(OSError):
                    folder.remove_tree(_names(run))
            with suppress(OSError):
                if not run.root.remote:
                    Path(run.root / "added").rmdir()
            raise
    return added


def _find(run: Run, addition: Addition, known: Mapping[str, AddedColumn | None]) -> Iterator[AddedColumn]:
    """Finds the values of an addition's columns and writes them, without descriptions. known: the finished ones."""
    for made, found in zip(addition.made, addition.find(run), strict=True):
        added = AddedColumn(column=found.column, made=made, counts=found.counts, complete=True)
        before = known[added.folder]
        if before and digest_of(before) != digest_of(added):
            raise _taken(run, added.folder, "a column that was added in another way", removable=True)
        with _telling(run.root):
            _write(run, before or added, found.values, is_new=before is None)
        yield before or added


def _added_before(run: Run, name: str) -> AddedColumn | None:
    """The finished column of this name that was added before, None where the name is free.

    Raises: ColumnError where it is no name, or that of a score, of a column of the pool's table, or of a target.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        expected = "a name of letters, digits, _ and -, at most 64, that begins with a letter or digit"
        raise ColumnError(run.root, expected=expected, found=quoted(name))
    if name.lower() in _RESERVED:
        raise _taken(run, name, "what a list of uids calls a column of its own")
    folder = run.root / "added" / name
    if (folder / "target.json").exists() or any(target.name == name for target in run.targets):
        raise _taken(run, name, "a target")
    if (folder / "column.json").exists():
        added = read_added(folder / "column.json")
        assert isinstance(added, AddedColumn)
        if added.column.name != name:  # where a folder's name is found in either case
            raise _taken(run, name, f"the column {added.column.name}")
        return added if added.complete else None
    if name in run.metrics:
        raise _taken(run, name, "a score of the run")
    if name in ScoreTable.open(run).columns:
        raise _taken(run, name, "a column of the pool's table")
    return None


def computable() -> dict[str, str]:
    """What each column measures that can be computed from the pool, by name."""
    return {name: computed.column.measures for name, computed in COMPUTED.items()} | {
        NORMSIM_2D: "Which share of some rounds a pair outlasts while those least like all others that remain are "
        "dropped. Takes --start and --keep.",
        f"{NEIGHBOUR_RANK}NAME": "Best place of a pair among the nearest that an image of a target has in the pool. "
        "Takes --target.",
    }


def _computed(name: str) -> Computed:
    if name not in COMPUTED:
        expected = f"NAME=FILE or one of {', '.join(computable())}"
        raise ColumnError("the column", expected=expected, found=quoted(name))
    return COMPUTED[name]


def _taken(run: Run, name: str, what: str, *, removable: bool = False) -> ColumnError:
    remedy = f"choose another, or first: clipsel remove-column {run.root} {name}" if removable else "choose another"
    return ColumnError(run.root, expected="a new column's name", found=f"{quoted(name)}, {what}", remedy=remedy)


def _write(run: Run, added: AddedColumn, values: np.ndarray, *, is_new: bool) -> None:
    """Writes a column's files but its description. Of one that is not new, those that are damaged or gone."""
    folder = run.root / "added" / added.folder
    files, scores = SealedFiles(run.root, run.config, added), SealedFiles(run.root, run.config)
    whole = set[str]()
    if not is_new:
        if not folder.remote:
            remove_leftovers(Path(folder))
        whole = keep_whole(files)
    elif not folder.remote:
        folder.remove_tree()  # what a killed process left; in a store it is written over
    first = 0
    for shard in run.config.shards:
        check()
        if shard.name not in whole:
            table = scores.read(shard.name, UID_HALVES).replace_schema_metadata(None)
            here = np.ascontiguousarray(values[first : first + shard.rows])
            column = pa.Array.from_buffers(pa.float32(), shard.rows, [None, pa.py_buffer(here)])
            files.write(shard.name, table.append_column(added.column.name, column), use_dictionary=False)
        first += shard.rows


def _names(run: Run) -> list[str]:
    """The files of a column, of which a store's listing may lack some."""
    return [*(f"{shard.name}.parquet" for shard in run.config.shards), "column.json"]


@contextmanager
def _telling(root: Place) -> Iterator[None]:
    """Turns an error of the disk, where the run's folder is written, into a RunError."""
    try:
        yield
    except OSError as error:
        remedy = "make room, then start it again" if error.errno == ENOSPC else ""
        where = error.filename or root
        raise RunError(where, expected="to write a column", found=reason_of(error), remedy=remedy) from error


def _without_path(made: Made) -> Made:
    return {key: value for key, value in made.items() if key != "path"}


def _digest(places: Sequence[Place]) -> str:
    """SHA-256 of a file; of several, of their digests one after another."""
    digests = [place.sha256() for place in places]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
