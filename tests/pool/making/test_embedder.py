"""Do batches come back whole and in order, near float32 in bf16, and is bf16 taken only where it pays?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clipsel_core.pool.layout import read_teachers
from clipsel_core.pool.making import embedder
from clipsel_core.pool.making.decode import Framing, Tokens
from clipsel_core.pool.making.embed import embed_captions, embed_images
from clipsel_core.pool.making.embedder import Lanes, Trial, choose_precision, lane_batch_size, round_weights, try_bf16
from clipsel_core.pool.making.make import make_pool
from clipsel_core.pool.sources.look import open_source
from tests.pool.pictures import caption, drawn, write_tar, write_tars
from tests.waiting import PATIENCE_S


def embedded(teacher, threads=2, batches=6, size=4):
    framing = Framing(16, 16, squash=False, resample=3)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with Lanes(teacher) as lanes:
            waiting = []
            for start in range(0, batches * size, size):
                numbers = range(start, start + size)
                pixels = [framing(drawn(number)) for number in numbers]
                waiting.append(lanes.embed(pixels, [caption(number) for number in numbers]))
            rows = [future.result(PATIENCE_S) for future in waiting]
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    return [np.concatenate(side) for side in zip(*rows, strict=True)]


def test_lanes__each_batch_gets_its_own_rows(teachers):
    image, text = embedded(teachers[0])
    assert image.dtype == text.dtype == np.float16
    wanted = embed_images(teachers[0], map(drawn, range(24))), embed_captions(teachers[0], map(caption, range(24)))
    for found, rows in zip((image, text), wanted, strict=True):
        np.testing.assert_allclose(found.astype(np.float32), rows.astype(np.float32), atol=1e-3)


@pytest.mark.parametrize("threads", [1, 3])
def test_lanes__the_same_bytes_on_any_number_of_cores(teachers, threads):
    for found, rows in zip(embedded(teachers[0], threads), embedded(teachers[0]), strict=True):
        assert np.array_equal(found, rows)


def test_lanes__take_tokens_for_captions(teachers):
    pixels, captions = [np.full((16, 16, 3), 9, np.uint8)] * 3, [caption(number) for number in range(3)]
    tokens = Tokens(teachers[0].tokenizer)(captions)
    assert (tokens.shape, tokens.dtype) == ((3, 12), np.int32)
    with Lanes(teachers[0]) as lanes:
        one, other = (lanes.embed(pixels, words).result(PATIENCE_S) for words in (captions, tokens))
    assert all(np.array_equal(*sides) for sides in zip(one, other, strict=True))


def test_lanes__an_error_reaches_whoever_waits(teachers):
    with Lanes(teachers[0]) as lanes, pytest.raises(ValueError, match="same shape"):
        lanes.embed([np.zeros((16, 16, 3), np.uint8), np.zeros((9, 9, 3), np.uint8)], ["a", "b"]).result(PATIENCE_S)


def test_round_weights__weights_are_rounded_in_a_copy_alone(teachers):
    exact = replace(teachers[0], precision="bf16")
    rounded = round_weights(exact)
    kinds = {name: weights.dtype for name, weights in rounded.model.named_parameters()}
    assert kinds["transformer.resblocks.0.mlp.c_fc.weight"] == torch.bfloat16
    assert kinds["transformer.resblocks.0.attn.in_proj_weight"] == torch.bfloat16
    assert kinds["transformer.resblocks.0.ln_1.weight"] == kinds["token_embedding.weight"] == torch.float32
    assert {weights.dtype for weights in exact.model.parameters()} == {torch.float32}
    assert rounded.model.token_embedding.weight is exact.model.token_embedding.weight
    assert round_weights(teachers[0]) is teachers[0]


def test_round_weights__embeds_nearly_as_float32(teachers):
    exact, rounded = embedded(teachers[0]), embedded(replace(teachers[0], precision="bf16"))
    for one, other in zip(exact, rounded, strict=True):
        cosines = (one.astype(np.float64) * other.astype(np.float64)).sum(1)
        assert not np.array_equal(one, other)
        assert cosines.min() > 1 - 2e-3


def test_lane_batch_size__a_large_teacher_gets_fewer(teachers):
    assert lane_batch_size(teachers[0], 64) == 64
    large = replace(teachers[0], model=torch.nn.Linear(8000, 8000, device="meta"))
    assert (lane_batch_size(large, 64), lane_batch_size(large, 5)) == (16, 5)
    assert lane_batch_size(replace(large, device=torch.device("cuda")), 64) == 64


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
