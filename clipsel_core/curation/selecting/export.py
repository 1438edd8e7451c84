"""How does a selection become a file that others can use, with a manifest that says how it was made?

The same run and recipe give the same bytes, wherever and whenever they are exported: nothing in either file depends on
the clock, the machine or the folder. And what does one type to go on with DataComp's own tools, or open_clip's? Their
options as of https://github.com/mlfoundations/datacomp (commit 4a8df19), resharder.py and train.py; quoted, ready to
paste. What stands in capitals after a $ is the reader's to fill in, and what stands after a # is said to them.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from clipsel_core import __version__, uids
from clipsel_core.curation.recipes.recipe import Recipe, Sample, dump_recipe
from clipsel_core.curation.selecting.selection import Selection
from clipsel_core.errors import ExportError, PoolFormatError, counted, reason_of
from clipsel_core.files import put_json, sha256_of
from clipsel_core.places import Place, write_places
from clipsel_core.pool.conventions import COUNT_NAME
from clipsel_core.runs.store import Run, check_outside
from clipsel_core.tasks import Report, silent

# Samples that train.py sees at each scale, whatever is in the shards.
_SCALES = {"debug": 128_000, "small": 12_800_000, "medium": 128_000_000, "large": 1_280_000_000}
_LARGEST = ("xlarge", 12_800_000_000)
_ENDINGS = (".npy", ".parquet", ".csv", ".txt")


@dataclass(frozen=True)
class Manifest:
    """What was exported. path, manifest_path: the two files. content: the manifest as its JSON says it."""

    path: Path | Place
    manifest_path: Path | Place
    content: dict[str, Any]

    @property
    def pairs(self) -> int:
        """Uids in the file."""
        return self.content["pairs"]

    @property
    def sha256(self) -> str:
        """Of the file's bytes, 64 hex digits."""
        return self.content["sha256"]

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return self.content["size_bytes"]


def export(
    run: Run,
    selection: Selection,
    recipe: Recipe,
    out: str | os.PathLike[str],
    report: Report = silent,
    *,
    samples_seen: int | None = None,
) -> Manifest:
    """Writes a selection's uids, ascending, and beside them <out>.manifest.json. Both appear whole, or neither does.

    out: a path, or an address in a store; its ending says what is written. .npy: dtype u8,u8, as DataComp's resharder
        takes it; .txt: a uid a line, both with a uid as often as it counts; .parquet and .csv: the uid as 32 hex
        digits, its count where samples were drawn, and every metric of the run.
    samples_seen: how many a training is going to see, for the epochs in the manifest; see manifest_of.
    Raises: ExportError where nothing is selected, on another ending, where the file cannot be written, or would lie in
        a run or a pool (but for a run's exports/).
    """
    out = Place.of_named(out)
    check_name(out)
    check_some(selection)
    manifest_path = out.with_name(f"{out.name}.manifest.json")
    report(0, 10, "", f"Writing {counted(len(selection), 'uids')} …")
    content = manifest_of(run, selection, recipe, samples_seen=samples_seen)

    def write(aside: Path) -> None:
        _write(selection, f".{out.ending}", aside)
        report(8, 10, "", "Reading them back for the SHA-256 …")
        content.update(file=out.name, sha256=sha256_of(aside), size_bytes=aside.stat().st_size)

    def tell(aside: Path) -> None:
        put_json(aside, content)
        report(10, 10, "", "Done")

    try:
        write_places({out: write, manifest_path: tell})
    except OSError as error:
        found = error.strerror or str(error)
        remedy = "make room, or choose another folder"
        raise ExportError(out, expected="to write the subset", found=found, remedy=remedy) from error
    return Manifest(out.for_others, manifest_path.for_others, content)


def check_name(out: Place) -> None:
    """Raises ExportError on another ending than those of subsets, also on a place in a run or a pool."""
    ending = f".{out.ending}" if out.ending else ""
    if ending not in _ENDINGS:
        raise ExportError(out, expected=f"a name ending in {', '.join(_ENDINGS)}", found=ending or "no ending")
    check_outside(out)


def check_some(selection: Selection) -> None:
    """Raises ExportError where nothing is selected: a file of nothing would be taken for a subset."""
    if not len(selection):
        raise ExportError("the selection", expected="a pair or more", found="none", remedy="let the recipe keep some")


def manifest_of(
    run: Run, selection: Selection, recipe: Recipe, *, samples_seen: int | None = None, written: int | None = None
) -> dict[str, Any]:
    """What a manifest says of how its pairs were selected, and from what.

    samples_seen: how many samples a training is going to see; None for as many as the recipe draws, where it does.
    written: of the selection's samples, those that there are to see; None for all.
    """
    by_count = {str(count): pairs for count, pairs in selection.counts_of_counts().items()}
    return {
        "format": 1,
        "pairs": len(selection),
        "pool_pairs": selection.total,
        "set_aside": selection.set_aside,
        **({} if selection.counts is None else {"samples": selection.samples, "pairs_by_count": by_count}),
        **_epochs(selection, recipe, samples_seen, selection.samples if written is None else written),
        "recipe": dump_recipe(recipe),
        "steps": [asdict(step) for step in selection.report],
        "run": {**run.config.model_dump(mode="json", exclude={"shards"}), "name": run.root.absolute().name},
        **{
            name: [one.model_dump(mode="json") for one in added]
            for name, added in (("added_targets", run.added_targets), ("added_columns", run.added_columns))
            if added
        },
        "shards": list(selection.table.shard_names),
        "shards_planned": len(run.config.shards),
        "run_json_sha256": (run.root / "run.json").sha256(),
        "versions": {
            "clipsel": __version__,
            "numpy": np.__version__,
            "pyarrow": pa.__version__,
            "duckdb": version("duckdb"),
        },
    }


def _epochs(selection: Selection, recipe: Recipe, samples_seen: int | None, samples: int) -> dict[str, Any]:
    """How often a training goes through so many samples, and how many pairs it sees how often; nothing where nobody
    says how many it sees."""
    drawn = next((step.sample for step in recipe.steps if step.enabled and isinstance(step, Sample)), None)
    seen = samples_seen or drawn
    if seen is None:
        return {}
    by_times = {f"{count * seen / samples:.12g}": pairs for count, pairs in selection.counts_of_counts().items()}
    return {"samples_seen": seen, "epochs": seen / samples, "pairs_by_times_seen": by_times}


def reshard_commands(pool: str | os.PathLike[str], subset: Place) -> list[str]:
    """The lines that write a subset's pairs as training shards, from the tars of its pool.

    resharder.py finds tars by their numbers and counts of pairs, which <tar>_stats.json has beside each, as img2dataset
    and `embed --pack` write it; where it would not find them, a line says so.
    """
    try:
        folder = Place.of_named(pool) / "shards"
        there = folder.names()
    except (OSError, PoolFormatError) as error:
        return [f"# no tars for resharder.py, as the pool cannot be read: {reason_of(error)}"]
    tars = [name.removesuffix(".tar") for name in there if name.endswith(".tar")]
    if not tars:
        return ["# no tars in the pool for resharder.py: export --shards writes the pairs"]
    if not all(tar.isascii() and tar.isdigit() for tar in tars) or len({len(tar) for tar in tars}) > 1:
        return [f"# resharder.py takes tars that are numbered, not {tars[0]}.tar: export --shards writes the pairs"]
    bare = len({f"{tar}_stats.json" for tar in tars}.difference(there))
    said = (
        f"# {bare:,} of {len(tars):,} tars have no _stats.json: resharder.py passes them over, export --shards does not"
    )
    # What it must be told where tars are not numbered from 0 in eight digits without a gap.
    first, last, width = int(tars[0]), int(tars[-1]), len(tars[0])
    options = []
    if width != 8:
        name = f"{{:0{width}d}}"
        options += ["--shard-format", f"{name}.tar", "--shard-stats-format", f"{name}_stats.json"]
    if first:
        options += ["--first-shard", str(first)]
    if last - first + 1 != len(tars):
        options += ["--num-shards", str(last - first + 1)]
    numbering = "".join(f" {shlex.quote(option)}" for option in options)
    command = f"python resharder.py -i {_quoted(folder)} -o $SHARDS -s {_quoted(subset)}{numbering}"
    # resharder.py looks into its output folder before anything else, and fails where there is none.
    return [*[said] * bool(bare), "mkdir -p $SHARDS", command]


def train_commands(shards: Place | None, pool_pairs: int) -> list[str]:
    """The lines that train on shards; those of reshard_commands where None. pool_pairs: decide the scale."""
    scale, samples = next(((name, most) for name, most in _SCALES.items() if pool_pairs <= most), _LARGEST)
    folder = _quoted(shards) if shards else "$SHARDS"
    return [
        f"# {samples:,} samples are seen at scale {scale}, however many pairs were kept",
        f"torchrun --nproc_per_node $GPUS train.py --scale {scale} --data_dir {folder}"
        " --output_dir $OUTPUT --exp_name $NAME",
    ]


def open_clip_commands(shards: Place, tars: list[str]) -> list[str]:
    """The lines that train on shards with open_clip, which reads their counts of pairs from sizes.json beside them.

    tars: their names, <number>.tar. It wants a tar or more for each of its workers.
    """
    first, last = tars[0].removesuffix(".tar"), tars[-1].removesuffix(".tar")
    names = tars[0]
    if len(tars) > 1:
        names = f"{{{first}..{last}}}.tar" if int(last) - int(first) + 1 == len(tars) else f"{{{','.join(tars)}}}"
    folder = re.sub(r"([\\{},])", r"\\\1", str(shards.absolute()))
    return [
        f"python -m open_clip_train.main --dataset-type webdataset --train-data {shlex.quote(f'{folder}/{names}')}"
        f" --workers {min(4, len(tars))} --model $MODEL --logs $OUTPUT"
    ]


def _write(selection: Selection, ending: str, aside: Path) -> None:
    """Fills a file with the uids, ascending; where there is room for more, with every metric of theirs."""
    table = selection.table
    if ending == ".npy":
        with open(aside, "wb") as file:
            np.save(file, selection.uids(), allow_pickle=False)
        return
    if ending == ".txt":
        options = pacsv.WriteOptions(include_header=False, quoting_style="none")
        pacsv.write_csv(pa.table({"uid": uids.to_hex(selection.uids())}), aside, options)
        return
    names = table.uids_at(selection.rows)
    order = uids.argsort(names)
    rows = selection.rows[order]
    own: dict[str, Any] = {"uid": uids.to_hex(names[order])}
    if selection.counts is not None:
        own[COUNT_NAME] = selection.counts[rows]
    metrics = {name: table.take(name, rows) for name in table.metrics if name not in own}
    columns = pa.table({**own, **metrics})
    if ending == ".csv":
        pacsv.write_csv(columns, aside, pacsv.WriteOptions(quoting_style="none"))
    else:
        pq.write_table(columns, aside, compression="zstd", use_dictionary=False)


def _quoted(place: Place) -> str:
    return shlex.quote(str(place.absolute()))
