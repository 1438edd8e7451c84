"""Do batches come back whole and in order, the same on any number of cores, and near float32 in bf16?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clipsel_core.pool.making.decode import Framing, Tokens
from clipsel_core.pool.making.embed import embed_captions, embed_images
from clipsel_core.pool.making.embedder import Lanes, lane_batch_size, round_weights
from tests.pool.pictures import caption, drawn
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
