"""The Triton kernels against the float64 formulas: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clipsel_core.errors import ScoringError
from clipsel_core.scoring import reductions, tiled
from clipsel_core.scoring.tiled import Tiling
from tests import reference
from tests.waiting import PATIENCE_S

triton = pytest.importorskip("triton")
kernels = pytest.importorskip("clipsel_core.scoring.kernels")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ROOT = Path(__file__).parent.parent.parent
SIZES = [(1, 1), (1, 507), (130, 1), (33, 65), (252, 507)]
log_sum_exp, max_abs, p_norm = (
    functools.partial(reduction, impl="triton")
    for reduction in (reductions.log_sum_exp, reductions.max_abs, reductions.p_norm)
)


def there(rows):
    return torch.from_numpy(rows).to(DEVICE)


def assert_log_sums(x, y, temperature, tolerance=5e-7, **options):
    """Both halves of what r sums up are within the tolerance of the truth, in units of r."""
    found = log_sum_exp(there(x), there(y), temperature=temperature, **options)
    products = x.astype(np.float64) @ y.astype(np.float64).T / temperature
    for part, axis in zip(found, (1, 0), strict=True):
        truth = reference.log_sum_exp(products, axis)
        assert part.dtype == torch.float64
        assert part.shape == truth.shape
        assert np.abs(part.cpu().numpy() - truth).max() * temperature / 2 < tolerance


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_log_sum_exp__ragged_sizes(rows, n, m):
    assert_log_sums(rows(n, 48, 1, np.float16, 0.4), rows(m, 48, 2, np.float16, 0.2), 0.01)


@pytest.mark.parametrize(("n", "m"), [(700, 30), (30, 1200)])
def test_log_sum_exp__more_blocks_than_are_added_at_a_time(rows, n, m):
    assert_log_sums(rows(n, 16, 1, np.float16, 0.4), rows(m, 16, 2, np.float16, 0.2), 0.01)


@pytest.mark.parametrize("width", [1, 7, 64, 507, 512, 640, 768, 1024, 1152, 1280])
def test_kernels__every_width(rows, width):
    x, y = rows(41, width, 1, np.float16, 0.4), rows(71, width, 2, np.float16, 0.2)
    assert_log_sums(x, y, 0.01)
    found = max_abs(there(x), there(y)).cpu().numpy()
    np.testing.assert_allclose(found, reference.normsim(x, y, np.inf), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("temperature", [0.001, 0.0065, 0.0067, 0.01, 0.0143, 0.07, 1.0])
def test_log_sum_exp__every_temperature(rows, temperature):
    x, y = rows(60, 32, 1, np.float16, 0.3), rows(50, 32, 2, np.float16, 0.3)
    assert_log_sums(x, y, temperature, tolerance=3e-7 * max(1.0, temperature))


@pytest.mark.parametrize("temperature", [0.001, 0.01, 0.07])
def test_log_sum_exp__cosines_of_one_and_minus_one(rows, temperature):
    x = rows(100, 16, 3, np.float16)
    x[10:20] = x[0]
    y = x.copy()
    y[40:80] = -x[0]
    assert_log_sums(x, y, temperature)


def test_log_sum_exp__identical_rows_need_no_second_sweep(rows, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("swept again")

    monkeypatch.setattr(tiled, "_running_log2_sum", refuse)
    x = np.repeat(rows(1, 16, 1, np.float16), 200, 0)
    assert_log_sums(x, x.copy(), 0.01)


@pytest.mark.parametrize("temperature", [0.001, 0.01])
def test_log_sum_exp__rows_and_columns_that_underflow_are_redone(rows, temperature):
    x, y = rows(90, 16, 4, np.float16, 3.0), rows(150, 16, 5, np.float16, 3.0)
    x[7], x[89], y[5] = -0.25, -0.25, -0.25
    x[8] = 0.0
    assert_log_sums(x, y, temperature)


def test_log_sum_exp__rows_longer_than_one_overflow_and_are_redone(rows):
    x = rows(70, 16, 4, np.float16)
    x[3] *= np.float16(2.5)
    assert_log_sums(x, x.copy(), 0.01, tolerance=3e-6)


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_max_abs__ragged_sizes(rows, n, m):
    x, t = rows(n, 48, 1, np.float16), rows(m, 48, 2, np.float16)
    found = max_abs(there(x), there(t)).cpu().numpy()
    np.testing.assert_allclose(found, reference.normsim(x, t, np.inf), rtol=2e-6, atol=1e-7)


def test_max_abs__takes_the_negative_side():
    x = torch.eye(3, dtype=torch.float16, device=DEVICE)
    assert max_abs(x, -0.75 * x[:2]).tolist() == [0.75, 0.75, 0.0]


@pytest.mark.parametrize("piece", [(64, 128), (100, 37)])
def test_kernels__pieces_equal_the_whole(rows, piece):
    """Sets that need several launches, at sizes that fit no block."""
    x, y = (there(rows(n, 24, n, np.float16, 0.3)) for n in (170, 230))
    pieces = Tiling(strip=piece[0], tile=piece[1], workers=1)
    # A row has another place in its block, and the BLAS behind the interpreter may add it up in another order: as far
    # apart as either may be from the truth, in units of r and of a cosine.
    for temperature in (0.01, 0.003):
        cut, whole = (kernels.log_sum_exp(x, y, temperature=temperature, pieces=p) for p in (pieces, None))
        for part, expected in zip(cut, whole, strict=True):
            assert torch.allclose(part, expected, rtol=0, atol=2 * 5e-7 / temperature)
    assert torch.allclose(kernels.max_abs(x, y, pieces=pieces), kernels.max_abs(x, y), rtol=0, atol=1e-6)


@pytest.mark.skipif(kernels.INTERPRETED, reason="the interpreter has no bfloat16 products")
def test_kernels__bfloat16(rows):
    x, y = (torch.from_numpy(rows(n, 32, n, centre=0.3)).bfloat16() for n in (60, 70))
    products = x.double().numpy() @ y.double().numpy().T
    row, _ = log_sum_exp(x.to(DEVICE), y.to(DEVICE), temperature=0.01)
    assert np.abs(row.cpu().numpy() - reference.log_sum_exp(products / 0.01, 1)).max() * 0.005 < 5e-7
    np.testing.assert_allclose(max_abs(x.to(DEVICE), y.to(DEVICE)).cpu(), np.abs(products).max(1), rtol=2e-6)


def test_kernels__same_bits_every_time(rows):
    x, y = (there(rows(n, 40, n, np.float16, 0.1)) for n in (260, 190))
    x[5], y[9] = -x[6], -y[10]
    first, *others = ((*log_sum_exp(x, y, temperature=0.004), max_abs(x, y)) for _ in range(3))
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_kernels__read_and_write_nothing_beyond_the_edges(rows):
    """Poisoned neighbours: rows before and after a slice, which one block too many would take in."""
    base = np.full((150, 64), np.nan, np.float16)
    base[40:90] = rows(50, 64, 1, np.float16, 0.3)
    held = there(base)
    x = held[40:90]
    expected = reference.log_sum_exp(base[40:90].astype(float) @ base[40:90].astype(float).T / 0.01, 1)
    row, column = log_sum_exp(x, x, temperature=0.01)
    assert np.abs(row.cpu().numpy() - expected).max() * 0.005 < 5e-7
    assert torch.isfinite(column).all()
    assert torch.isfinite(max_abs(x, x)).all()
    assert torch.equal(held.isnan(), there(base).isnan())


def test_kernels__take_rows_that_are_not_contiguous(rows):
    x = there(rows(80, 128, 1, np.float16, 0.3))
    spread = x[::2, :64]
    for part, expected in zip(
        log_sum_exp(spread, spread, temperature=0.01),
        log_sum_exp(spread.contiguous(), spread.contiguous(), temperature=0.01),
        strict=True,
    ):
        assert torch.equal(part, expected)


def test_p_norm__is_the_tiled_one(rows):
    x, t = (there(rows(n, 32, n, np.float16)) for n in (50, 60))
    assert torch.equal(p_norm(x, t, p=3), reductions.p_norm(x, t, p=3, impl="tiled"))


def test_kernels__refuse_rows_that_tensor_cores_would_round(rows):
    x = there(rows(5, 8, 1, np.float16))
    with pytest.raises(ScoringError, match="found float32 and float32"):
        log_sum_exp(x.float(), x.float(), temperature=0.01)
    with pytest.raises(ScoringError, match="found float16 and bfloat16; use impl 'tiled'"):
        max_abs(x, x.bfloat16())


def test_out_of_memory__halves_the_pieces_and_goes_on(rows, monkeypatch, caplog):
    x = there(rows(150, 16, 1, np.float16, 0.3))
    whole, real, sizes = max_abs(x, x), kernels._buffer, []

    def small_device(n, m, side, device):
        sizes.append((n, m))
        if n > 80:
            raise torch.OutOfMemoryError("no room")
        return real(n, m, side, device)

    monkeypatch.setattr(kernels, "_buffer", small_device)
    tiled._warn_of_smaller_tiles.cache_clear()
    pieces = Tiling(strip=150, tile=150, workers=1)
    with caplog.at_level(logging.WARNING):
        # A row has another place in its block; the BLAS behind the interpreter may add it up in another order.
        assert torch.allclose(kernels.max_abs(x, x, pieces=pieces), whole, rtol=0, atol=1e-6)
    assert sizes == [(150, 150), (75, 75)]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_choose__tiled_wherever_the_kernels_would_not_do(rows):
    x = there(rows(5, 8, 1, np.float16))
    assert reductions._choose(None, x.float(), x.float()) is tiled
    assert reductions._choose(None, x, x.float()) is tiled
    assert reductions._choose(None, x, x) is (kernels if DEVICE.type == "cuda" else tiled)
    assert reductions._choose("triton", x, x) is kernels


@pytest.fixture
def as_on_a_gpu(tmp_path, monkeypatch):
    """Where the kernels run, with nothing remembered of them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(reductions, "_has_tensor_cores", lambda device: True)
    reductions._are_kernels_right.cache_clear()
    yield tmp_path / "clipsel" / "tiles.json"
    reductions._are_kernels_right.cache_clear()


def test_choose__the_kernels_for_halves_on_a_gpu(rows, as_on_a_gpu):
    x = there(rows(5, 8, 1, np.float16))
    assert reductions._choose(None, x, x) is kernels
    assert reductions._choose(None, x.float(), x.float()) is tiled
    assert reductions._choose("tiled", x, x) is tiled


def test_choose__tiled_where_no_tile_fits_the_gpu(rows, as_on_a_gpu, monkeypatch, caplog):
    """Too little shared memory, or a compiler that fails at every size: slower, but it goes on; said once."""
    monkeypatch.setattr(kernels, "sizes_for", lambda device, width: kernels.tiles.fastest("drawn", lambda s: math.inf))
    x = there(rows(70, 40, 1, np.float16))
    with caplog.at_level(logging.WARNING):
        found = [max_abs.func(x, x, impl=None) for _ in range(2)]
    assert torch.equal(found[0], tiled.max_abs(x, x))
    assert ["none of the sizes fits" in record.getMessage() for record in caplog.records] == [True]
    assert reductions.tile_sizes(DEVICE, 40) is None


def test_seconds__a_size_that_cannot_be_launched_is_no_candidate(monkeypatch):
    errors = [triton.runtime.errors.OutOfResources(200, 100, "shared"), RuntimeError("PassManager::run failed")]
    errors.append(torch.OutOfMemoryError("others hold it"))

    def fail(*arguments):
        raise errors.pop(0)

    monkeypatch.setattr(kernels, "_sum_exp2", fail)
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: SimpleNamespace(record=lambda: None))
    for _ in range(2):
        assert kernels._seconds(DEVICE, 64, kernels.tiles.CANDIDATES[0]) == math.inf
    with pytest.raises(torch.OutOfMemoryError):
        kernels._seconds(DEVICE, 64, kernels.tiles.CANDIDATES[0])


def test_self_check__is_passed_once_and_remembered(as_on_a_gpu, monkeypatch):
    assert reductions.tile_sizes(DEVICE, 40) == kernels.sizes_for(DEVICE, 40).as_dict()
    (kept,) = json.loads(as_on_a_gpu.read_text())["checks"].items()
    assert kept == (kernels.check_key(DEVICE, 40), "")
    reductions._are_kernels_right.cache_clear()
    monkeypatch.setattr(reductions, "why_wrong", None)
    assert reductions.tile_sizes(DEVICE, 40) is not None


def mistake_the_last_row(monkeypatch):
    real = kernels._launch
    monkeypatch.setattr(kernels, "_launch", lambda k, s, x, y, *rest: real(k, s, torch.cat([x[:-1], x[:1]]), y, *rest))


def leave_out_a_block(monkeypatch):
    real = kernels._add_parts
    monkeypatch.setattr(kernels, "_add_parts", lambda parts, out, count: real(parts, out, count - 1))


def leave_out_a_relative_block(monkeypatch):
    real = kernels._add_log_parts
    monkeypatch.setattr(kernels, "_add_log_parts", lambda out, count, *parts: real(out, max(1, count - 1), *parts))


def round_the_products(monkeypatch):
    real = kernels._ready
    monkeypatch.setattr(kernels, "_ready", lambda rows: real(rows.bfloat16().half()))


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (mistake_the_last_row, "in NormSim_inf"),
        (round_the_products, "in NormSim_inf"),
        (leave_out_a_block, "in the normalizer at temperature 0.01"),
        (leave_out_a_relative_block, "in the normalizer at temperature 0.004"),
    ],
)
def test_self_check__kernels_that_are_wrong_are_not_used(rows, as_on_a_gpu, monkeypatch, caplog, break_it, said):
    x = there(rows(70, 40, 1, np.float16, 0.3))
    expected = tiled.log_sum_exp(x, x, temperature=0.01)
    break_it(monkeypatch)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = reductions.log_sum_exp(x, x, temperature=0.01)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert reductions.tile_sizes(DEVICE, 40) is None
    (record,) = caplog.records
    assert said in record.getMessage()
    assert str(as_on_a_gpu) in record.getMessage()
    (kept,) = json.loads(as_on_a_gpu.read_text())["checks"].values()
    assert said in kept


def in_another_process(code: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    options = {"cwd": ROOT, "env": {**kept, **environment}, "capture_output": True, "text": True, "timeout": PATIENCE_S}
    shown = subprocess.run([sys.executable, "-c", code], **options)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout.strip()


def test_reductions__do_without_triton():
    code = """
import sys
sys.modules["triton"] = None
import torch
from clipsel_core.errors import ScoringError
from clipsel_core.scoring.reductions import max_abs, tile_sizes
x = torch.eye(2, dtype=torch.float16)
print(max_abs(x, x).tolist(), tile_sizes("cpu", 64))
try:
    max_abs(x, x, impl="triton")
except ScoringError as error:
    print(error)
"""
    said = in_another_process(code)
    assert said.startswith("[1.0, 1.0] None\nimpl 'triton': expected Triton installed, found")
    assert said.endswith("pip install triton, or use impl 'tiled'")


def test_kernels__refuse_a_cpu():
    code = """
import torch
from clipsel_core.errors import ScoringError
from clipsel_core.scoring.reductions import max_abs
from tests.waiting import PATIENCE_S
x = torch.eye(2, dtype=torch.float16)
try:
    max_abs(x, x, impl="triton")
except ScoringError as error:
    print(error)
"""
    said = in_another_process(code)
    assert said == "impl 'triton': expected a usable NVIDIA GPU, found cpu; use impl 'tiled'"


@pytest.mark.parametrize(
    ("capability", "dtype", "which", "ones", "shared"),
    [
        (80, "bf16", 1, False, 160),  # A100
        (90, "fp16", 0, False, 227),  # H100
        (90, "fp16", 5, True, 227),
        (89, "fp16", 4, False, 99),  # L40, RTX 4090: the largest candidate that is sure to fit
    ],
)
def test_kernels__compile_for_gpus(tmp_path, capability, dtype, which, ones, shared):
    """The compiler needs no GPU. No atomics, nothing spilled, shared memory, in KiB, within what such a GPU has."""
    code = f"from tests.scoring.compile_kernels import report; report({capability}, {dtype!r}, {which}, {ones})"
    found = json.loads(in_another_process(code, TRITON_CACHE_DIR=str(tmp_path)).splitlines()[-1])
    product = "wgmma.mma_async" if capability == 90 else "mma.sync"
    assert len(found) == 4
    for name, kernel in found.items():
        assert kernel["shared"] <= shared * 1024, name
        assert kernel["stack"] == 0, name
        assert not {"atom.", "red."} & set(kernel["instructions"]), name
        assert product in kernel["instructions"] or name == "add_parts_block"
