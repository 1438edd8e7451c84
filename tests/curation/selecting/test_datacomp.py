"""Are the lines that go on with DataComp's tools those that its resharder.py and train.py take?"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from braceexpand import braceexpand

from clipsel_core.curation.selecting.datacomp import open_clip_commands, reshard_commands, train_commands


def pool_of(root, *names, stats=True):
    (root / "shards").mkdir(parents=True)
    for name in names:
        (root / "shards" / f"{name}.tar").touch()
        if stats:
            (root / "shards" / f"{name}_stats.json").touch()
    return root


def options_after(line):
    """The options that a line gives beyond input, output and subset."""
    words = shlex.split(line)
    assert words[:3] == ["python", "resharder.py", "-i"]
    assert words[4:7] == ["-o", "$SHARDS", "-s"]
    return words[8:]


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (["00000000", "00000001"], []),
        (["00000000", "00000003"], ["--num-shards", "4"]),
        (["00000002", "00000003"], ["--first-shard", "2"]),
        (["00000", "00001"], ["--shard-format", "{:05d}.tar", "--shard-stats-format", "{:05d}_stats.json"]),
    ],
)
def test_reshard_commands__say_how_the_tars_are_numbered(tmp_path, names, options):
    *before, line = reshard_commands(pool_of(tmp_path / "a pool", *names), Path("/s.npy"))
    assert before == ["mkdir -p $SHARDS"]
    assert f"-i '{tmp_path}/a pool/shards' -o $SHARDS -s /s.npy" in line
    assert options_after(line) == options


@pytest.mark.parametrize(
    ("names", "stats", "says"),
    [
        ([], True, "# no tars in the pool"),
        (["part-0"], True, "# resharder.py takes tars that are numbered, not part-0.tar"),
        (["00000000", "00000001"], False, "# 2 of 2 tars have no _stats.json"),
    ],
)
def test_reshard_commands__say_what_resharder_would_not_find(tmp_path, names, stats, says):
    assert reshard_commands(pool_of(tmp_path / "pool", *names, stats=stats), Path("/s.npy"))[0].startswith(says)


@pytest.mark.parametrize(("numbers", "workers"), [([0], 1), ([0, 1, 2, 3, 4], 4), ([1, 3], 2)])
def test_open_clip_commands__name_each_tar_as_open_clip_expands_it(numbers, workers):
    folder, tars = Path("/a {b,c} 'd'/e"), [f"{number:08d}.tar" for number in numbers]
    (line,) = open_clip_commands(folder, tars)
    words = shlex.split(line)
    assert list(braceexpand(words[words.index("--train-data") + 1])) == [f"{folder}/{tar}" for tar in tars]
    assert words[words.index("--workers") + 1] == str(workers)


def test_train_commands__quoted_and_scaled():
    said, line = train_commands(Path("/a b"), 100_000_000)
    assert line.startswith("torchrun --nproc_per_node $GPUS train.py --scale medium --data_dir '/a b' ")
    assert line.endswith(" --output_dir $OUTPUT --exp_name $NAME")
    assert "128,000,000 samples" in said
    scales = [train_commands(None, pairs)[1].split()[5] for pairs in (5, 128_001, 1_000_000_000, 2_000_000_000)]
    assert scales == ["debug", "small", "large", "xlarge"]
    assert "--data_dir $SHARDS " in train_commands(None, 5)[1]
