"""The rounded log-sum-exp stays near the exact one, and is refused where it would be of no use."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipsel_core.errors import ScoringError
from clipsel_core.scoring import reductions, rounded
from clipsel_core.scoring.rounded import check_precision
from clipsel_core.scoring.s_cliploss import normalizer
from clipsel_core.scoring.tiled import Tiling, tiling_for
from tests import reference

OPTIONS = {"batch_size": 100, "divisions": 2, "seed": 0, "name": "a"}
DTYPES = [np.float32, np.float16]


def assert_near(x, y, temperature, tolerance):
    found = rounded.log_sum_exp(torch.from_numpy(x), torch.from_numpy(y), temperature=temperature)
    products = x.astype(np.float64) @ y.astype(np.float64).T / temperature
    for part, axis in zip(found, (1, 0), strict=True):
        truth = reference.log_sum_exp(products, axis)
        assert part.dtype == torch.float64
        assert part.shape == truth.shape
        assert np.abs(part.numpy() - truth).max() * temperature / 2 < tolerance


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "m", "width"), [(1, 1, 1), (1, 507, 48), (252, 130, 31), (130, 1100, 32), (1100, 70, 64)]
)
def test_log_sum_exp__ragged_sizes(rows, n, m, width, dtype):
    assert_near(rows(n, width, 1, dtype, 0.4), rows(m, width, 2, dtype, 0.2), 0.01, 3e-3)


@pytest.mark.parametrize("temperature", [0.001, 0.01, 0.07, 1.0])
def test_log_sum_exp__every_temperature(rows, temperature):
    x, y = rows(300, 64, 1, centre=0.3), rows(200, 64, 2, centre=0.3)
    assert_near(x, y, temperature, 3e-3)


def test_log_sum_exp__opposite_and_equal_rows(rows):
    x = rows(150, 32, 3)
    y = x.copy()
    y[40:80] = -x[0]
    assert_near(x, y, 0.01, 3e-3)


def test_log_sum_exp__rows_out_of_range_are_redone_exactly(rows):
    x, y = rows(60, 16, 4, centre=3.0), rows(150, 16, 5, centre=3.0)
    x[7] = -0.25
    found = rounded.log_sum_exp(torch.from_numpy(x), torch.from_numpy(y), temperature=0.01)[0][7]
    truth = reference.log_sum_exp(x[7:8].astype(np.float64) @ y.astype(np.float64).T / 0.01, 1)
    assert abs(float(found) - truth[0]) * 0.005 < 5e-7


def test_log_sum_exp__usual_cosines_lose_less_than_by_plain_rounding(rows):
    """What the constant that is subtracted before the products are rounded is for."""
    x, y = (rows(400, 256, seed, np.float16, 0.7) for seed in (1, 2))
    products = x.astype(np.float64) @ y.astype(np.float64).T
    assert 0.2 < products.mean() < 0.4
    truth = reference.log_sum_exp(products / 0.01, 1)
    plain = torch.from_numpy(x).bfloat16() @ torch.from_numpy(y).bfloat16().T
    by_plain_rounding = np.abs(reference.log_sum_exp(plain.double().numpy() / 0.01, 1) - truth).mean()
    found = rounded.log_sum_exp(torch.from_numpy(x), torch.from_numpy(y), temperature=0.01)[0]
    assert np.abs(found.numpy() - truth).mean() < 0.7 * by_plain_rounding


def test_log_sum_exp__same_bits_on_any_number_of_workers(rows):
    x, y = (torch.from_numpy(rows(n, 40, n, np.float16, 0.1)) for n in (900, 1300))
    cut = tiling_for(len(x), x.device)
    first, *others = (
        rounded.log_sum_exp(x, y, temperature=0.01, tiling=Tiling(cut.strip, cut.tile, count)) for count in (1, 2, 5)
    )
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_normalizer__bf16_is_near_and_only_on_request(rows, monkeypatch):
    monkeypatch.setattr(rounded, "speed_up", lambda: 2.0)
    x, y = (torch.from_numpy(rows(180, 64, seed, np.float16, 0.3)) for seed in (1, 2))
    exact, half = (normalizer(x, y, temperature=0.01, precision=p, **OPTIONS) for p in ("exact", "bf16"))
    assert torch.equal(exact.r_image, normalizer(x, y, temperature=0.01, **OPTIONS).r_image)
    assert not torch.equal(exact.r_image, half.r_image)
    assert float((exact.r_image - half.r_image).abs().max()) < 2e-3


def test_check_precision__refuses_what_is_of_no_use(monkeypatch):
    check_precision("exact", "cuda")
    monkeypatch.setattr(rounded, "speed_up", lambda: 0.5)
    with pytest.raises(ScoringError, match=r"expected a CPU that multiplies bfloat16 natively .* found products 0\.50"):
        check_precision("bf16", "cpu")
    with pytest.raises(ScoringError, match="found cuda; use exact"):
        check_precision("bf16", "cuda")
    with pytest.raises(ScoringError, match="expected one of exact, bf16, found 'half'"):
        check_precision("half", "cpu")
    monkeypatch.setattr(rounded, "speed_up", lambda: 1.9)
    check_precision("bf16", torch.device("cpu"))


def test_speed_up__leaves_the_settings_as_they_were():
    before = torch.get_num_threads(), torch.backends.mkldnn.matmul.fp32_precision
    assert rounded.speed_up.__wrapped__() > 0
    assert (torch.get_num_threads(), torch.backends.mkldnn.matmul.fp32_precision) == before


def test_log_sum_exp__is_no_implementation_of_the_exact_reductions():
    assert "bf16" not in reductions.IMPLEMENTATIONS
