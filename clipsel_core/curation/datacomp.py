"""What does one type to go on with DataComp's own tools?

Their options as of https://github.com/mlfoundations/datacomp, quoted, ready to paste; what stands in capitals after a $
is the reader's to fill in.
"""

from __future__ import annotations

import shlex
from pathlib import Path

_SCALES = ((12_800_000, "small"), (128_000_000, "medium"), (1_280_000_000, "large"))


def reshard_command(pool: Path, subset: Path) -> str:
    """The command that writes a subset's pairs as training shards, from the tars of its pool."""
    return f"python resharder.py -i {_quoted(pool / 'shards')} -o $SHARDS -s {_quoted(subset)}"


def train_command(shards: Path | None, pool_pairs: int) -> str:
    """The command that trains on shards; those of reshard_command where None. pool_pairs: decide the scale."""
    scale = next((name for most, name in _SCALES if pool_pairs <= most), "xlarge")
    folder = _quoted(shards) if shards else "$SHARDS"
    return (
        f"torchrun --nproc_per_node $GPUS train.py --scale {scale} --data_dir {folder}"
        " --output_dir $OUTPUT --exp_name $NAME"
    )


def _quoted(path: Path) -> str:
    return shlex.quote(str(path.resolve()))
