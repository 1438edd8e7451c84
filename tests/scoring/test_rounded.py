"""The rounded log-sum-exp stays near the exact one, and is refused where it cannot be computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipsel_core.errors import ScoringError
from clipsel_core.scoring import reductions, tiled
from clipsel_core.scoring.checks import check_precision
from clipsel_core.scoring.s_cliploss import normalizer
from tests import reference

OPTIONS = {"batch_size": 100, "divisions": 2, "seed": 0, "name": "a"}
DTYPES = [np.float32, np.float16]


def why_not() -> str:
    try:
        check_precision("bf16", "cpu")
    except ScoringError as error:
        return str(error)
    return ""


computes = pytest.mark.skipif(bool(why_not()), reason=why_not())


def log_sums_and_truth(x, y, temperature, **options):
    found = tiled.rounded_log_sum_exp(torch.from_numpy(x), torch.from_numpy(y), temperature=temperature, **options)
    products = x.astype(np.float64) @ y.astype(np.float64).T / temperature
    return [part.numpy() for part in found], [reference.log_sum_exp(products, axis) for axis in (1, 0)]


def assert_near(x, y, temperature, tolerance):
    for part, truth in zip(*log_sums_and_truth(x, y, temperature), strict=True):
        assert part.dtype == np.float64
        assert part.shape == truth.shape
        assert np.abs(part - truth).max() * temperature / 2 < tolerance


@computes
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "width"), [(1, 1), (5, 48), (6, 31), (64, 32), (130, 7), (1100, 64), (2049, 40)])
def test_log_sum_exp__ragged_sizes(rows, n, width, dtype):
    assert_near(rows(n, width, 1, dtype, 0.4), rows(n, width, 2, dtype, 0.2), 0.01, 3e-3)


@computes
@pytest.mark.parametrize("temperature", [0.001, 0.0065, 0.0067, 0.01, 0.0143, 0.07, 1.0])
def test_log_sum_exp__every_temperature(rows, temperature):
    assert_near(rows(300, 64, 1, centre=0.3), rows(300, 64, 2, centre=0.3), temperature, 3e-3)


@computes
def test_log_sum_exp__opposite_and_equal_rows(rows):
    x = rows(150, 32, 3)
    y = x.copy()
    y[40:80] = -x[0]
    assert_near(x, y, 0.01, 3e-3)


@computes
def test_log_sum_exp__own_pairs_are_exact(rows):
    """Where a pair's own cosine makes up its sum, there is nothing left to round."""
    x = rows(200, 256, 1)
    for part, truth in zip(*log_sums_and_truth(x, x.copy(), 0.01), strict=True):
        assert np.abs(part - truth).max() * 0.005 < 1e-7


@computes
def test_log_sum_exp__rows_out_of_range_are_redone_exactly(rows):
    x, y = rows(150, 16, 4, centre=3.0), rows(150, 16, 5, centre=3.0)
    x[7] = -0.25
    (found, _), (truth, _) = log_sums_and_truth(x, y, 0.01)
    assert abs(found[7] - truth[7]) * 0.005 < 5e-7


@computes
def test_log_sum_exp__taking_out_the_means_is_worth_it(rows):
    x, y = (rows(400, 256, seed, np.float16, 0.7) for seed in (1, 2))
    (found, _), (truth, _) = log_sums_and_truth(x, y, 0.01)
    plain = (torch.from_numpy(x).bfloat16() @ torch.from_numpy(y).bfloat16().T).double()
    by_plain_rounding = np.abs(reference.log_sum_exp(plain.numpy() / 0.01, 1) - truth).mean()
    assert np.abs(found - truth).mean() < 0.5 * by_plain_rounding


@computes
def test_log_sum_exp__same_bits_on_any_number_of_workers_and_inputs_unchanged(rows):
    x, y = (torch.from_numpy(rows(1300, 40, n, centre=0.1)) for n in (1, 2))
    before, threads = (x.clone(), y.clone()), torch.get_num_threads()
    first, *others = (tiled.rounded_log_sum_exp(x, y, temperature=0.01, workers=count) for count in (1, 2, 5))
    try:
        torch.set_num_threads(1)
        others.append(tiled.rounded_log_sum_exp(x, y, temperature=0.01))
    finally:
        torch.set_num_threads(threads)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@computes
def test_normalizer__bf16_is_near_and_only_on_request(rows):
    x, y = (torch.from_numpy(rows(180, 64, seed, np.float16, 0.3)) for seed in (1, 2))
    exact, half = (normalizer(x, y, temperature=0.01, precision=p, **OPTIONS) for p in ("exact", "bf16"))
    assert torch.equal(exact.r_image, normalizer(x, y, temperature=0.01, **OPTIONS).r_image)
    assert not torch.equal(exact.r_image, half.r_image)
    assert float((exact.r_image - half.r_image).abs().max()) < 5e-4


def test_check_precision__refuses_other_cpus_devices_and_names(monkeypatch):
    check_precision("exact", "cuda")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True})
    with pytest.raises(ScoringError, match=r"expected a CPU that multiplies bfloat16 .*; use exact"):
        check_precision("bf16", "cpu")
    with pytest.raises(ScoringError, match="found cuda; use exact"):
        check_precision("bf16", "cuda")
    with pytest.raises(ScoringError, match="expected one of exact, bf16, found 'half'"):
        check_precision("half", "cpu")


def test_log_sum_exp__is_no_implementation_of_the_exact_reductions():
    assert "bf16" not in reductions.IMPLEMENTATIONS
