"""NormSim_2-D of a finished run is that of its pool's images, however these are stored."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from clipsel_core.errors import RunError, ScoringError
from clipsel_core.pool.layout import open_pool, read_uids
from clipsel_core.runs.local import score
from clipsel_core.runs.store import Run
from clipsel_core.runs.whole_pool import normsim_2d_of_run
from tests import reference
from tests.conftest import rewrite_npz, unit_rows, write_shard

OPTIONS = {"temperature": 0.02, "batch_size": 16, "divisions": 1}


def images_of(root) -> np.ndarray:
    """All images of a pool, (N, 16) float64, scaled to unit length where float16 is not what moved them off it."""
    stored = [np.load(npz)["l14_img"].astype(np.float64) for npz in sorted((root / "metadata").glob("*.npz"))]
    rows = np.concatenate(stored)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.abs(length - 1) <= 1e-3, rows, (rows * (1 / length).astype(np.float32)).astype(np.float32))


def expected_of(root, start: np.ndarray, *, keep: int, rounds: int, usable: np.ndarray | None = None) -> np.ndarray:
    """The column by the reference: (N,) float64, NaN outside of start."""
    image, opened = images_of(root), open_pool(root)
    keys = np.concatenate([read_uids(shard) for shard in opened.shards])
    rank = np.lexsort((keys["f1"], keys["f0"])).argsort()
    pool = image if usable is None else image[usable]
    place = reference.normsim_2d(image[start], pool, keep=keep, rounds=rounds, order=rank[start])
    column, per_round = np.full(len(image), np.nan), -(-(len(start) - keep) // rounds)
    column[start] = np.where(place == len(start) - keep, 1, place / max(1, per_round * rounds))
    return column


def check(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected.astype(np.float32))


@pytest.fixture
def run(pool, tmp_path) -> Run:
    return score(pool, tmp_path / "run", **OPTIONS)


@pytest.mark.parametrize("rounds", [1, 6, 500])
def test_normsim_2d_of_run__equals_the_reference(pool, run, rounds):
    start, told = np.sort(np.random.default_rng(1).permutation(126)[:90]), []

    def tell(done, total, *_):
        told.append(done / total)

    found = normsim_2d_of_run(run, start, keep=0.2, rounds=rounds, report=tell)
    check(found, expected_of(pool, start, keep=25, rounds=rounds))
    assert told[-1] == 1
    assert told == sorted(told)


def test_normsim_2d_of_run__a_mask_is_as_good_as_row_numbers(run):
    start = np.array([100, 3, 77, 3, 41, 40, 39, 12])
    mask = np.zeros(126, bool)
    mask[start] = True
    by_mask, by_rows = (normsim_2d_of_run(run, which, keep=2, rounds=3) for which in (mask, start))
    np.testing.assert_array_equal(by_mask, by_rows)


@pytest.mark.parametrize("keep", [0.3, Decimal("0.3"), Fraction(3, 10), 37])
def test_normsim_2d_of_run__a_share_is_one_of_the_whole_pool_rounded_down(run, keep):
    found = normsim_2d_of_run(run, np.arange(20, 120), keep=keep, rounds=10)
    assert np.count_nonzero(found == 1) == 37  # of 126 * 0.3 = 37.8
    assert np.count_nonzero(np.isnan(found)) == 26


def test_normsim_2d_of_run__of_equal_images_the_larger_uid_falls_out_first(tmp_path):
    root = tmp_path / "pool"
    for seed, rows in enumerate((40, 30)):
        _, npz = write_shard(root, f"{seed:08d}", rows, seed=seed)
        rewrite_npz(npz, l14_img=unit_rows(9, 16, 3)[np.arange(rows) % 9])
    run = score(root, tmp_path / "run", **OPTIONS)
    check(normsim_2d_of_run(run, np.arange(70), keep=5, rounds=8), expected_of(root, np.arange(70), keep=5, rounds=8))


def test_normsim_2d_of_run__compressed_and_wider_files(pool, run, tmp_path):
    """What cannot be mapped, and what is stored in another type, in Fortran's order or slightly off unit length."""
    folder, start = pool / "metadata", np.arange(0, 126, 2)
    rewrite_npz(folder / "00000000.npz", compressed=True)
    with np.load(folder / "00000001.npz") as archive:
        image = archive["l14_img"].astype(np.float64)
    rewrite_npz(folder / "00000001.npz", l14_img=np.asfortranarray(image))
    with np.load(folder / "00000002.npz") as archive:
        image = archive["l14_img"].astype(np.float32)
    image[::3] *= 1.004
    rewrite_npz(folder / "00000002.npz", l14_img=image)
    other = score(pool, tmp_path / "other", **OPTIONS)
    check(normsim_2d_of_run(other, start, keep=20, rounds=7), expected_of(pool, start, keep=20, rounds=7))


@pytest.mark.parametrize("how", ["skip", "scale"])
def test_normsim_2d_of_run__rows_set_aside_count_nowhere(pool, tmp_path, how):
    npz = pool / "metadata" / "00000001.npz"
    with np.load(npz) as archive:
        image = archive["l14_img"].copy()
    image[3], image[5], image[7] = 0, image[5] * 1.5, np.nan
    rewrite_npz(npz, l14_img=image)
    run = score(pool, tmp_path / "run", on_bad_rows=how, **OPTIONS)
    usable = np.ones(126, bool)
    usable[[43, 47] if how == "scale" else [43, 45, 47]] = False
    start = np.flatnonzero(usable)[::2]
    expected = expected_of(pool, start, keep=30, rounds=5, usable=usable)
    check(normsim_2d_of_run(run, start, keep=30, rounds=5), expected)
    with pytest.raises(ScoringError, match="start: expected scored pairs, found 2 that were set aside"):
        normsim_2d_of_run(run, np.array([42, 43, 44, 47]), keep=1, rounds=5)


@pytest.mark.parametrize(
    ("start", "keep", "where"),
    [
        (np.ones(125, bool), 5, "start: expected a mask of 126 pairs"),
        (np.zeros(126, bool), 0, "start: expected at least one pair"),
        (np.array([3, 126]), 1, "start: expected row numbers from 0 to 125, found 126"),
        (np.array([-1, 3]), 1, "start: expected row numbers from 0 to 125, found -1"),
        (np.array([0.5]), 1, "start: expected a mask"),
        (np.arange(30), 31, "keep: expected 0 to 30 pairs"),
        (np.arange(30), 0.5, "keep: expected 0 to 30 pairs.*found 63"),
        (np.arange(30), 1.5, "keep: expected a share from 0 to 1"),
        (np.arange(30), float("nan"), "keep: expected a share from 0 to 1"),
    ],
)
def test_normsim_2d_of_run__names_what_does_not_fit(run, start, keep, where):
    with pytest.raises(ScoringError, match=where):
        normsim_2d_of_run(run, start, keep=keep, rounds=5)


def test_normsim_2d_of_run__needs_the_pool_that_was_scored(pool, run):
    rewrite_npz(pool / "metadata" / "00000001.npz", l14_img=unit_rows(25, 16, 99))
    with pytest.raises(RunError, match="shard 00000001: expected the uids and embeddings that were scored"):
        normsim_2d_of_run(run, np.arange(30), keep=5, rounds=5)
