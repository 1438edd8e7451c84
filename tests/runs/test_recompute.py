"""What is computed again agrees with the scores of a sound run, however it was scored, and with nothing else."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.layout import open_pool, read_uids
from clipsel_core.runs.added import add_target
from clipsel_core.runs.local import score
from clipsel_core.runs.recompute import recompute
from clipsel_core.runs.store import Run, digest_of, sealed
from tests.conftest import rewrite_npz, unit_rows, write_shard

OPTIONS = {"temperature": 0.02, "batch_size": 16, "divisions": 3}


def scored(pool, folder, **options) -> Run:
    """A run with targets of every kind of file, one of them added later."""
    opened = open_pool(pool)
    keys = read_uids(opened.shards[1])[9:18]
    np.save(folder / "task.npy", unit_rows(70, 16, 70))
    np.save(folder / "uids.npy", np.sort(keys))
    torch.save({"image_features": torch.from_numpy(unit_rows(6, 16, 6))}, folder / "torch.pt")
    np.savez(folder / "more.npz", rows=unit_rows(5, 16, 5))
    files = {"task": "task.npy", "own": "uids.npy", "torch": "torch.pt"}
    targets = {name: folder / file for name, file in files.items()}
    score(pool, folder / "run", targets=targets, norms=("inf", "2", "3"), **OPTIONS | options)
    return add_target(folder / "run", "more", folder / "more.npz", norms=["2"])


@pytest.mark.parametrize(
    "options", [{}, {"batch_size": 1_000}, {"mix_shards": 2}, {"mix_shards": 5, "divisions": 1}, {"seed": 3}], ids=str
)
def test_recompute__agrees_with_a_sound_run(pool, tmp_path, options):
    told = []
    run = scored(pool, tmp_path, **options)
    found = recompute(run, 1_000, report=lambda done, total, _unit: told.append((done, total)))
    assert found == ([], [])
    assert told[-1] == (126, 126)


@pytest.mark.parametrize("how", ["skip", "scale"])
def test_recompute__agrees_where_rows_are_set_aside_or_scaled(pool, tmp_path, how):
    npz = pool / "metadata" / "00000001.npz"
    with np.load(npz) as archive:
        image = archive["l14_img"].copy()
    image[3], image[5], image[7] = 0, image[5] * 1.5, image[7] * 1.005
    rewrite_npz(npz, l14_img=image)
    assert recompute(scored(pool, tmp_path, on_bad_rows=how), 1_000) == ([], [])


METRICS = ("clip_score", "r_image", "r_text", "normalizer_se", "s_cliploss")


@pytest.mark.parametrize("metric", [*METRICS, "normsim_inf_task", "normsim_3_own", "normsim_2_torch", "normsim_2_more"])
def test_recompute__names_pairs_whose_scores_are_not_those_of_the_pool(pool, tmp_path, metric):
    """A file that is as it was written may still have been written wrongly."""
    run = scored(pool, tmp_path, mix_shards=2)
    file = run.file_with(metric, run.config.shards[1].name)
    table = pq.read_table(file)
    values = table[metric].to_numpy().copy()
    values[4] += 1e-3
    changed = table.set_column(table.column_names.index(metric), metric, pa.array(values))
    kept = {key: value for key, value in table.schema.metadata.items() if key == b"clipsel_counts"}
    made_by = run.added_with(metric) or run.config
    pq.write_table(sealed(changed.replace_schema_metadata(kept or None), file.stem, digest_of(made_by)), file)
    (problem,), _ = recompute(run, 1_000)
    assert problem.startswith(f"{file}, row 4: expected {metric} ")


def test_recompute__names_a_pool_that_is_another(pool, tmp_path):
    run, npz = scored(pool, tmp_path), pool / "metadata" / "00000002.npz"
    with np.load(npz) as archive:
        image = archive["l14_img"].copy()
    rewrite_npz(npz, l14_img=image[::-1])
    assert any("00000002.parquet, row" in line and "clip_score" in line for line in recompute(run, 1_000)[0])
    write_shard(pool, "00000002", 61, seed=9)
    assert any("expected the pool's uid" in line for line in recompute(run, 1_000)[0])
    shutil.rmtree(pool)
    with pytest.raises(PoolFormatError, match="parquet"):
        recompute(run, 10)


def test_recompute__names_a_target_that_is_another_file(pool, tmp_path):
    run = scored(pool, tmp_path)
    np.save(tmp_path / "task.npy", unit_rows(70, 16, 71))
    (problem,), _ = recompute(run, 5)
    assert "task.npy: expected the target task as it was scored with, found another file" in problem


def test_recompute__takes_the_pairs_that_the_seed_says(pool, tmp_path):
    run, told = scored(pool, tmp_path), []
    recompute(run, 7, seed=1, report=lambda done, total, _unit: told.append((done, total)))
    assert told[-1] == (7, 7)
