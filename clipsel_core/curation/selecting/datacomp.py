"""What does one type to go on with DataComp's own tools, or open_clip's?

Their options as of https://github.com/mlfoundations/datacomp (commit 4a8df19), resharder.py and train.py; quoted, ready
to paste. What stands in capitals after a $ is the reader's to fill in, and what stands after a # is said to them.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

# Samples that train.py sees at each scale, whatever is in the shards.
_SCALES = {"debug": 128_000, "small": 12_800_000, "medium": 128_000_000, "large": 1_280_000_000}
_LARGEST = ("xlarge", 12_800_000_000)


def reshard_commands(pool: Path, subset: Path) -> list[str]:
    """The lines that write a subset's pairs as training shards, from the tars of its pool.

    resharder.py finds tars by their numbers and counts of pairs, which <tar>_stats.json has beside each, as img2dataset
    and `embed --pack` write it; where it would not find them, a line says so.
    """
    tars = sorted((pool / "shards").glob("[!.]*.tar"))
    if not tars:
        return ["# no tars in the pool for resharder.py: export --shards writes the pairs"]
    if not all(tar.stem.isascii() and tar.stem.isdigit() for tar in tars) or len({len(tar.stem) for tar in tars}) > 1:
        return [f"# resharder.py takes tars that are numbered, not {tars[0].name}: export --shards writes the pairs"]
    bare = sum(not tar.with_name(f"{tar.stem}_stats.json").exists() for tar in tars)
    said = (
        f"# {bare:,} of {len(tars):,} tars have no _stats.json: resharder.py passes them over, export --shards does not"
    )
    command = f"python resharder.py -i {_quoted(pool / 'shards')} -o $SHARDS -s {_quoted(subset)}{_numbering(tars)}"
    # resharder.py looks into its output folder before anything else, and fails where there is none.
    return [*[said] * bool(bare), "mkdir -p $SHARDS", command]


def train_commands(shards: Path | None, pool_pairs: int) -> list[str]:
    """The lines that train on shards; those of reshard_commands where None. pool_pairs: decide the scale."""
    scale, samples = next(((name, most) for name, most in _SCALES.items() if pool_pairs <= most), _LARGEST)
    folder = _quoted(shards) if shards else "$SHARDS"
    return [
        f"# {samples:,} samples are seen at scale {scale}, however many pairs were kept",
        f"torchrun --nproc_per_node $GPUS train.py --scale {scale} --data_dir {folder}"
        " --output_dir $OUTPUT --exp_name $NAME",
    ]


def open_clip_commands(shards: Path, tars: list[str]) -> list[str]:
    """The lines that train on shards with open_clip, which reads their counts of pairs from sizes.json beside them.

    tars: their names, <number>.tar. It wants a tar or more for each of its workers.
    """
    first, last = tars[0].removesuffix(".tar"), tars[-1].removesuffix(".tar")
    names = tars[0]
    if len(tars) > 1:
        names = f"{{{first}..{last}}}.tar" if int(last) - int(first) + 1 == len(tars) else f"{{{','.join(tars)}}}"
    folder = re.sub(r"([\\{},])", r"\\\1", str(shards.resolve()))
    return [
        f"python -m open_clip_train.main --dataset-type webdataset --train-data {shlex.quote(f'{folder}/{names}')}"
        f" --workers {min(4, len(tars))} --model $MODEL --logs $OUTPUT"
    ]


def _numbering(tars: list[Path]) -> str:
    """What resharder.py must be told where tars are not numbered from 0 in eight digits without a gap."""
    first, last, width = int(tars[0].stem), int(tars[-1].stem), len(tars[0].stem)
    options = []
    if width != 8:
        name = f"{{:0{width}d}}"
        options += ["--shard-format", f"{name}.tar", "--shard-stats-format", f"{name}_stats.json"]
    if first:
        options += ["--first-shard", str(first)]
    if last - first + 1 != len(tars):
        options += ["--num-shards", str(last - first + 1)]
    return "".join(f" {shlex.quote(option)}" for option in options)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path.resolve()))
