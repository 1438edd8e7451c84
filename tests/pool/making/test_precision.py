"""Is bf16 taken where it pays, and is a pool gone on with as it was begun?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clipsel_core.pool.making import embedder
from clipsel_core.pool.making.embedder import Trial, choose_precision, try_bf16
from clipsel_core.pool.making.make import make_pool
from clipsel_core.pool.sources.look import open_source
from clipsel_core.pool.teachers import read_teachers
from tests.pool.pictures import caption, write_tar, write_tars


@pytest.fixture
def says(monkeypatch):
    """Sets what a trial finds, and returns how often one was held."""
    held = []

    def set_to(faster, furthest=0.0):
        monkeypatch.setattr(embedder.torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
        monkeypatch.setattr(
            embedder, "try_bf16", lambda _, pixels, captions: held.append(captions) or Trial(9, faster, furthest)
        )
        return held

    return set_to


@pytest.mark.parametrize(
    ("faster", "furthest", "wanted"),
    [(2.0, 1e-4, "bf16"), (1.4, 1e-4, "float32"), (2.0, 1.5e-3, "float32"), (2.0, float("inf"), "float32")],
)
def test_choose_precision__bf16_where_it_is_much_faster_and_nearly_the_same(
    tmp_path, teachers, says, faster, furthest, wanted
):
    held = says(faster, furthest)
    source = open_source(write_tars(tmp_path / "in"))
    teacher, trial = choose_precision(teachers[0], source, tmp_path / "pool", "l14")
    assert (teacher.precision, trial) == (wanted, Trial(9, faster, furthest))
    assert held == [[caption(number) for number in range(8)]]


def test_choose_precision__goes_on_as_the_pool_was_begun_whatever_the_clock_says(tmp_path, teachers, says):
    source = open_source(write_tars(tmp_path / "in"))
    for arch, first, then in (("a", 2.0, 1.0), ("b", 1.0, 2.0)):
        held = says(first)
        teacher, _ = choose_precision(teachers[0], source, tmp_path / "pool", arch)
        make_pool(source, tmp_path / "pool", teacher, arch=arch, workers=1)
        says(then)
        again, trial = choose_precision(teachers[0], source, tmp_path / "pool", arch)
        assert (again.precision, trial) == (teacher.precision, None)
        assert make_pool(source, tmp_path / "pool", again, arch=arch, workers=1).embedded == 0
    assert len(held) == 2
    noted = {arch: teacher.precision for arch, teacher in read_teachers(tmp_path / "pool").items()}
    assert noted == {"a": "bf16", "b": "float32"}


def test_choose_precision__nothing_to_try_it_on(tmp_path, teachers, says):
    held = says(2.0)
    write_tar(tmp_path / "in" / "0.tar", {"a.jpg": b"no", "a.txt": b"x"})
    teacher, trial = choose_precision(teachers[0], open_source(tmp_path / "in"), tmp_path / "pool", "l14")
    assert (teacher.precision, trial, held) == ("float32", None, [])


def test_choose_precision__a_cpu_that_cannot_is_not_tried(tmp_path, teachers, says, monkeypatch):
    held = says(2.0)
    monkeypatch.setattr(embedder.torch.cpu, "get_capabilities", dict)
    teacher, _ = choose_precision(teachers[0], open_source(write_tars(tmp_path / "in")), tmp_path / "pool", "l14")
    assert (teacher.precision, held) == ("float32", [])


def test_try_bf16__tells_time_and_distance(teachers):
    pixels = list(np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8))
    trial = try_bf16(replace(teachers[0], precision="bf16"), pixels, [caption(number) for number in range(8)])
    assert 0 < trial.furthest < 2e-3
    assert trial.faster > 0
    assert f"tried on {trial.pairs} pairs" in trial.said
