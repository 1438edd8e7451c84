"""The reductions over X Y^T against their float64 formulas, at awkward sizes and values."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
import torch

from clipsel_core import tasks
from clipsel_core.errors import ScoringError
from clipsel_core.scoring import threads, tiled
from clipsel_core.scoring.reductions import log_sum_exp, max_abs, p_norm
from clipsel_core.scoring.tiled import Tiling
from tests import reference
from tests.waiting import PATIENCE_S, join

SIZES = [(1, 1), (1, 507), (2, 3), (252, 507), (1023, 1025), (2049, 130), (129, 2049)]
DTYPES = [np.float32, np.float16]


def both_log_sums(x, y, temperature, **options):
    found = log_sum_exp(torch.from_numpy(x), torch.from_numpy(y), temperature=temperature, **options)
    products = x.astype(np.float64) @ y.astype(np.float64).T / temperature
    return [part.numpy() for part in found], [reference.log_sum_exp(products, axis) for axis in (1, 0)]


def assert_normalizer_close(found, expected, temperature, tolerance=5e-7):
    for part, truth in zip(found, expected, strict=True):
        assert part.shape == truth.shape
        assert np.abs(part - truth).max() * temperature / 2 < tolerance


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_log_sum_exp__ragged_sizes(rows, n, m, dtype):
    found, expected = both_log_sums(rows(n, 48, 1, dtype, 0.4), rows(m, 48, 2, dtype, 0.2), 0.01)
    assert_normalizer_close(found, expected, 0.01)


@pytest.mark.parametrize("temperature", [0.001, 0.003, 0.005, 0.01, 0.012, 0.0143, 0.07, 1.0, 10.0])
def test_log_sum_exp__every_temperature(rows, temperature):
    found, expected = both_log_sums(rows(300, 32, 1, centre=0.3), rows(200, 32, 2, centre=0.3), temperature)
    assert_normalizer_close(found, expected, temperature, tolerance=3e-7 * max(1.0, temperature))


@pytest.mark.parametrize("temperature", [0.001, 0.01, 0.07])
def test_log_sum_exp__cosines_of_one_and_minus_one(rows, temperature):
    x = rows(150, 16, 3)
    x[10:20] = x[0]
    y = x.copy()
    y[40:80] = -x[0]
    found, expected = both_log_sums(x, y, temperature)
    assert_normalizer_close(found, expected, temperature)


@pytest.mark.parametrize("temperature", [0.001, 0.005, 0.01])
def test_log_sum_exp__rows_that_underflow_are_redone(rows, temperature):
    x = rows(300, 16, 4, centre=3.0)
    y = rows(1500, 16, 5, centre=3.0)
    x[7], x[299] = -np.ones(16) / 4, -np.ones(16) / 4
    x[8] = 0.0
    found, expected = both_log_sums(x, y, temperature)
    assert expected[0][7] * temperature < -0.5
    assert_normalizer_close(found, expected, temperature)


def test_log_sum_exp__columns_that_underflow_are_redone(rows):
    x = rows(300, 16, 4, centre=3.0)
    y = rows(70, 16, 5, centre=3.0)
    y[5] = -np.ones(16) / 4
    found, expected = both_log_sums(x, y, 0.01)
    assert expected[1][5] * 0.01 < -0.5
    assert_normalizer_close(found, expected, 0.01)


def test_log_sum_exp__rows_longer_than_one_overflow_and_are_redone(rows):
    x = rows(140, 16, 4)
    x[3] *= 2.5
    found, expected = both_log_sums(x, x.copy(), 0.01)
    assert expected[0][3] * 0.01 > 6
    assert_normalizer_close(found, expected, 0.01, tolerance=3e-6)


@pytest.mark.parametrize("temperature", [0.001, 0.003, 0.0065, 0.007])
def test_log_sum_exp__usual_cosines_need_one_sweep_at_any_temperature(rows, temperature, monkeypatch):
    products, real = [], torch.mm

    def counted(a, b, *, out):
        products.append(out.shape)
        return real(a, b, out=out)

    monkeypatch.setattr(torch, "mm", counted)
    x, y = rows(1100, 64, 1, np.float16, 0.4), rows(1300, 64, 2, np.float16, 0.4)
    found, expected = both_log_sums(x, y, temperature)
    assert 0.1 < x[0] @ y[0] < 0.35
    assert_normalizer_close(found, expected, temperature, tolerance=2e-7)
    assert sum(shape.numel() for shape in products) == 1100 * 1300


@pytest.mark.parametrize("temperature", [0.001, 0.0065])
def test_log_sum_exp__a_row_that_is_far_from_all_others_is_right(rows, temperature):
    x, y = rows(1100, 16, 4, np.float16, 3.0), rows(1300, 16, 5, np.float16, 3.0)
    x[7], y[1290] = -0.25, -0.25
    found, expected = both_log_sums(x, y, temperature)
    assert_normalizer_close(found, expected, temperature, tolerance=2e-7)


def test_log_sum_exp__identical_rows_need_no_second_sweep(rows, monkeypatch):
    """The constant shift leaves room for whole tiles of cosines of 1."""

    def refuse(*arguments):
        raise AssertionError("swept again")

    monkeypatch.setattr(tiled, "_running_log2_sum", refuse)
    x = np.repeat(rows(1, 16, 1), 2049, 0)
    found, expected = both_log_sums(x, x.copy(), 0.01)
    assert_normalizer_close(found, expected, 0.01)


def test_log_sum_exp__sums_at_the_limit_hold_what_they_promise():
    """Rows whose largest cosine sinks from 0.2 to -0.6 pass the limit of the constant shift on the way."""
    angles = np.arccos(np.linspace(0.2, -0.6, 400))
    x = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    y = np.tile(np.float32([1.0, 0.0]), (3000, 1))
    found, expected = both_log_sums(x, y, 0.01)
    assert_normalizer_close(found, expected, 0.01, tolerance=1e-7)


def test_log_sum_exp__does_not_change_its_inputs(rows):
    x, y = torch.from_numpy(rows(200, 16, 1)), torch.from_numpy(rows(200, 16, 2))
    before = x.clone(), y.clone()
    log_sum_exp(x, y, temperature=0.01)
    max_abs(x, y)
    p_norm(x, y, p=3)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@pytest.mark.parametrize("cut", [(64, 64), (100, 37), (4096, 4096)])
def test_tiled__chunked_equals_whole(rows, cut):
    x, y = (torch.from_numpy(rows(n, 24, n, centre=0.3)) for n in (300, 500))
    tiling = Tiling(strip=cut[0], tile=cut[1], workers=2)
    for part, whole in zip(
        tiled.log_sum_exp(x, y, temperature=0.01, tiling=tiling), log_sum_exp(x, y, temperature=0.01), strict=True
    ):
        assert torch.allclose(part, whole, rtol=0, atol=2e-5)
    assert torch.allclose(tiled.max_abs(x, y, tiling=tiling), max_abs(x, y), rtol=1e-6)
    assert torch.allclose(tiled.p_norm(x, y, p=3.0, tiling=tiling), p_norm(x, y, p=3), rtol=2e-6)


def test_tiled__same_bits_on_any_number_of_workers(rows):
    x, y = (torch.from_numpy(rows(n, 40, n, np.float16, 0.1)) for n in (2049, 1500))
    x[5], y[9] = -x[6], -y[10]
    cut = tiled.tiling_for(len(x), x.device)
    results = []
    for count in (1, 2, 3, 7):
        tiling = Tiling(cut.strip, cut.tile, count)
        sums = tiled.log_sum_exp(x, y, temperature=0.004, tiling=tiling)
        results.append((*sums, tiled.max_abs(x, y, tiling=tiling), tiled.p_norm(x, y, p=4.0, tiling=tiling)))
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], others, strict=True))


def test_tiled__the_cut_does_not_depend_on_the_cores(monkeypatch):
    device = torch.device("cpu")
    before = tiled.tiling_for(5000, device)
    monkeypatch.setattr(tiled, "thread_count", lambda: 64, raising=False)
    after = tiled.tiling_for(5000, device)
    assert (before.strip, before.tile) == (after.strip, after.tile)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_max_abs__ragged_sizes(rows, n, m, dtype):
    x, t = rows(n, 48, 1, dtype), rows(m, 48, 2, dtype)
    found = max_abs(torch.from_numpy(x), torch.from_numpy(t)).numpy()
    np.testing.assert_allclose(found, reference.normsim(x, t, np.inf), rtol=2e-6, atol=1e-7)


def test_max_abs__takes_the_negative_side():
    x = torch.eye(3)
    assert max_abs(x, -0.75 * torch.eye(3)[:2]).tolist() == [0.75, 0.75, 0.0]


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, 7.0, 64.0, 1000.0])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 2), (252, 1507)])
def test_p_norm__every_p(rows, n, m, p):
    x, t = rows(n, 32, 1, np.float16), rows(m, 32, 2, np.float16)
    found = p_norm(torch.from_numpy(x), torch.from_numpy(t), p=p).numpy()
    products = np.abs(x.astype(np.float64) @ t.astype(np.float64).T)
    top = products.max(1)
    np.testing.assert_allclose(found, top * ((products / top[:, None]) ** p).sum(1) ** (1 / p), rtol=2e-6)


def test_p_norm__tiny_products_do_not_underflow():
    x = torch.tensor([[1e-3, 0.0], [0.0, 0.0]])
    t = torch.tensor([[1e-3, 0.0]] * 16)
    assert p_norm(x, t, p=40).tolist() == pytest.approx([1e-6 * 16 ** (1 / 40), 0.0], rel=2e-6)


def test_reductions__refuse_what_does_not_fit():
    x = torch.ones(3, 4)
    with pytest.raises(ScoringError, match=r"x.shape\[1\] == 4, y.shape\[1\] == 5"):
        log_sum_exp(x, torch.ones(3, 5), temperature=0.01)
    with pytest.raises(ScoringError, match="float64"):
        max_abs(x, x.double())
    with pytest.raises(ScoringError, match="at least one row"):
        max_abs(x[:0], x)
    with pytest.raises(ScoringError, match=r"\(4,\)"):
        max_abs(x[0], x)
    with pytest.raises(ScoringError, match="tiled"):
        max_abs(x, x, impl="abacus")
    for p in (0.5, float("inf"), float("nan")):
        with pytest.raises(ScoringError, match="p: expected"):
            p_norm(x, x, p=p)
    for temperature in (0.0, -0.01, 1e-4, 11.0, float("nan"), float("inf")):
        with pytest.raises(ScoringError, match=r"temperature: expected 0\.001 to 10"):
            log_sum_exp(x, x, temperature=temperature)


def test_out_of_memory__halves_the_tile_and_goes_on(rows, monkeypatch, caplog):
    x = torch.from_numpy(rows(600, 16, 1, centre=0.3))
    whole, exact_mm, shapes = max_abs(x, x), torch.mm, []

    def small_device(a, b, *, out):
        shapes.append(out.shape)
        if out.numel() > 300 * 300:
            raise torch.OutOfMemoryError("no room")
        return exact_mm(a, b, out=out)

    monkeypatch.setattr(torch, "mm", small_device)
    tiled._warn_of_smaller_tiles.cache_clear()
    cut = Tiling(strip=600, tile=600, workers=2)
    with caplog.at_level(logging.WARNING):
        first, second = (tiled.max_abs(x, x, tiling=cut) for _ in range(2))
    assert torch.allclose(first, whole, rtol=1e-6)
    assert torch.equal(first, second)
    assert max(shape[0] for shape in shapes if shape.numel() <= 300 * 300) == 300
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_out_of_memory__is_raised_when_no_tile_is_small_enough(rows, monkeypatch):
    def full_device(a, b, *, out):
        raise torch.OutOfMemoryError("no room")

    x = torch.from_numpy(rows(100, 16, 1))
    monkeypatch.setattr(torch, "mm", full_device)
    with pytest.raises(torch.OutOfMemoryError):
        max_abs(x, x)


def test_settings__are_restored(rows):
    x = torch.from_numpy(rows(300, 16, 1))
    threads, backend = torch.get_num_threads(), torch.backends.mkldnn.matmul
    precision = backend.fp32_precision
    try:
        torch.set_num_threads(3)
        backend.fp32_precision = "ieee"
        log_sum_exp(x, x, temperature=0.01)
        assert torch.get_num_threads() == 3
        assert backend.fp32_precision == "ieee"
    finally:
        torch.set_num_threads(threads)
        backend.fp32_precision = precision


def test_settings__are_restored_after_a_failure(rows, monkeypatch):
    x = torch.from_numpy(rows(300, 16, 1))
    before = torch.get_num_threads(), torch.backends.mkldnn.matmul.fp32_precision

    def broken(a, b, *, out):
        raise ValueError("broken product")

    monkeypatch.setattr(torch, "mm", broken)
    with pytest.raises(ValueError, match="broken product"):
        max_abs(x, x)
    assert (torch.get_num_threads(), torch.backends.mkldnn.matmul.fp32_precision) == before


def test_settings__survive_computations_that_overlap(rows):
    x = torch.from_numpy(rows(1500, 64, 1))
    before = torch.get_num_threads(), torch.backends.mkldnn.matmul.fp32_precision
    seen = []

    def compute():
        for _ in range(5):
            max_abs(x, x)
        seen.append(threads.thread_count())

    callers = [threading.Thread(target=compute) for _ in range(4)]
    for thread in callers:
        thread.start()
    join(callers)
    assert (torch.get_num_threads(), torch.backends.mkldnn.matmul.fp32_precision) == before
    assert seen == [threads.thread_count()] * 4


def test_fastest_cpu_precision__refuses_a_mode_that_rounds_to_bfloat16(monkeypatch):
    exact_mm = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b: exact_mm(a.bfloat16().float(), b.bfloat16().float()))
    assert threads.fastest_cpu_precision.__wrapped__() == "ieee"


def test_for_each__stops_the_others_after_a_failure():
    done, failing = [], threading.Event()

    def work(i, buffer):
        if i == 3:
            failing.set()
            raise RuntimeError("strip 3")
        if i > 3:
            failing.wait(PATIENCE_S)
        done.append(i)

    with pytest.raises(RuntimeError, match="strip 3"):
        threads.for_each(work, 100_000, device=torch.device("cpu"), workers=2)
    assert len(done) < 99_999


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_for_each__stops_with_its_task(device):
    done = []
    with tasks.stoppable(lambda: len(done) > 3), pytest.raises(tasks.Stopped):
        threads.for_each(lambda i, buffer: done.append(i), 100_000, device=torch.device(device), workers=2)
    assert len(done) < 10


def test_for_each__elsewhere_goes_in_order():
    seen, device = [], torch.device("meta")
    threads.for_each(lambda i, buffer: seen.append((i, buffer.shape, buffer.device)), 3, device=device, scratch=5)
    assert seen == [(i, (5,), device) for i in range(3)]
