"""Are pictures cut and scaled as the teacher's own preprocessing does it, and nearly so by torch? Do tokens travel?"""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from clipsel_core.pool.making.decode import Framing, Preparer, Tokens, Wanted
from clipsel_core.pool.making.decoders import Decoders
from clipsel_core.pool.making.embed import embed_images, embed_pixels, framing_of
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.record import Record
from tests.pool.pictures import drawn

SIZES = [(500, 400), (333, 500), (64, 64), (48, 48), (47, 200), (20, 31), (130, 90), (1, 7)]
FRAMINGS = [
    Framing(width, height, squash, resample)
    for width, height, squash in ((48, 48, False), (48, 64, True))
    for resample in (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.NEAREST)
]


def noisy(size):
    """A picture whose pixels all differ: a shift by a part of one would show."""
    values = np.random.default_rng(0).integers(0, 256, (size[1] // 2 + 1, size[0] // 2 + 1, 3), np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BILINEAR)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("framing", FRAMINGS)
def test_framing__quick_is_within_two_levels_of_pillow(size, framing):
    picture = noisy(size)
    pixels, expected = replace(framing, quick=True)(picture), framing(picture)
    assert pixels.shape == expected.shape
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    apart = np.abs(pixels.astype(int) - expected.astype(int))
    assert apart.max() <= (0 if framing.resample == Image.Resampling.NEAREST else 2)
    assert apart.mean() < 0.3


def test_framing__quick_leaves_parts_of_a_pixel_to_pillow():
    framing, picture, box = FRAMINGS[0], noisy((90, 70)), (0, 0, 89.5, 69.25)
    assert np.array_equal(replace(framing, quick=True)(picture, box), framing(picture, box))


def test_decoders__quick_ones_give_the_same(tmp_path):
    records, framing = [], FRAMINGS[0]
    for number, size in enumerate(SIZES):
        file = io.BytesIO()
        noisy(size).save(file, "JPEG")
        (tmp_path / str(number)).write_bytes(file.getvalue())
        records.append(Record(str(number), str(number), "x"))
    plain = Preparer(Place.of(tmp_path), framing, framing.enough, 10**6)
    quick, held = replace(plain, frame=replace(framing, quick=True)), len(records)
    with Decoders(quick, 2, framing.shape, ahead=8, held=held) as workers:
        found = [outcome for _, outcome in workers.prepare(records)]
    for outcome, record in zip(found, records, strict=True):
        expected = plain(Wanted(record.file, 0, None, None))
        assert (outcome.ready.sha256, outcome.ready.width) == (expected.sha256, expected.width)
        assert np.abs(outcome.pixels.astype(int) - expected.pixels.astype(int)).max() <= 2


def test_tokens__travel_unless_their_tokenizer_cannot(teachers):
    assert Tokens(teachers[0].tokenizer).travels
    assert not Tokens(lambda captions: captions).travels


def test_framing__is_what_the_teachers_own_preprocessing_does(teachers):
    framing = framing_of(teachers[0])
    pictures = [drawn(number, size) for number, size in enumerate([(24, 20), (16, 16), (101, 33), (33, 101), (16, 40)])]
    pixels = torch.from_numpy(np.stack([framing(picture) for picture in pictures]))
    own = torch.stack([teachers[0].preprocess(picture) for picture in pictures])
    normalize = teachers[0].preprocess.transforms[-1]
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (normalize.mean, normalize.std))
    assert torch.equal(pixels.permute(0, 3, 1, 2).float().div(255).sub(mean).div(std), own)
    assert np.array_equal(embed_pixels(teachers[0], pixels), embed_images(teachers[0], pictures))


@pytest.mark.parametrize("kind", ["squash", "longest"])
def test_framing__other_ways_of_resizing(teachers, kind):
    own = open_clip.image_transform((16, 16), is_train=False, resize_mode=kind)
    framing = framing_of(type(teachers[0])(teachers[0].model, own, teachers[0].tokenizer, teachers[0].device))
    if kind == "longest":
        assert framing is None
    else:
        picture = drawn(3, (50, 30))
        pixels = torch.from_numpy(framing(picture)).permute(2, 0, 1).float().div(255)
        assert torch.equal(own.transforms[-1](pixels), own(picture))
