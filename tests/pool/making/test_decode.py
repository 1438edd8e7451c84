"""Are pictures decoded upright, cut and scaled as the teacher's own preprocessing does it? Do tokens travel?"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import EpsImagePlugin, Image

from clipsel_core.places import Place
from clipsel_core.pool.conventions import MEDIA_TYPES
from clipsel_core.pool.making.decode import Framing, Tokens, Unusable, decode, decode_with_size
from clipsel_core.pool.making.decoders import Decoders, Preparer, Wanted
from clipsel_core.pool.making.embed import embed_images, embed_pixels, framing_of
from clipsel_core.pool.sources.record import Record
from tests.pool.pictures import drawn, encoded, image


def corner(data: bytes) -> tuple[int, ...]:
    return decode(data).getpixel((0, 0))


def png_that_says(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes that claims a size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_decode__every_format_that_is_read_and_no_other(monkeypatch):
    """EPS above all: Pillow would start Ghostscript for it."""
    for kind in (*MEDIA_TYPES, "MPO"):
        assert np.abs(np.asarray(decode(image(1, kind)), int) - np.asarray(drawn(1), int)).mean() < 40
    for opener in ("EpsImageFile", "has_ghostscript"):
        monkeypatch.setattr(EpsImagePlugin, opener, lambda *_: pytest.fail("it was opened"))
    for kind in ("EPS", "PPM", "ICO", "TGA", "PCX"):
        with pytest.raises(Unusable, match=r"^not an image: none of JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF$"):
            decode(image(1, kind))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_decode__plain_pictures_as_pillow_has_them(kind):
    data = image(1, kind)
    picture = decode(data)
    assert (picture.mode, picture.size) == ("RGB", (24, 20))
    if kind == "PNG":
        assert picture.tobytes() == drawn(1).tobytes()


def test_decode__cmyk_keeps_its_colours():
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.allclose(corner(encoded(red)), (254, 0, 0), atol=8)


@pytest.mark.parametrize("level", [0, 100, 255])
def test_decode__sixteen_bits_become_eight(level):
    grey = Image.fromarray(np.full((4, 4), level * 257, np.uint16))
    assert corner(encoded(grey, "PNG")) == (level,) * 3


def test_decode__transparency_lies_over_white():
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([200, 0, 0, 0, 0, 200])
    assert corner(encoded(palette, "PNG", transparency=0)) == (255, 255, 255)
    assert corner(encoded(palette, "PNG")) == (200, 0, 0)
    assert corner(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "WEBP", lossless=True)) == (255, 255, 255)
    assert corner(encoded(Image.new("LA", (4, 4), (7, 255)), "PNG")) == (7, 7, 7)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_decode__animations_show_their_first_frame(kind):
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.allclose(corner(data), (255, 0, 0), atol=4)


def test_decode__exif_turns_it_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(drawn(2), exif=exif)).size == (20, 24)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_decode__broken_exif_is_ignored():
    data = encoded(drawn(2), exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 40)
    assert decode(data).size == (24, 20)


def test_decode__one_pixel():
    assert decode(encoded(Image.new("RGB", (1, 1), "red"), "PNG")).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html>not here</html>", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (encoded(Image.effect_noise((64, 64), 90))[:700], "broken image: .*truncated"),
        (encoded(Image.effect_noise((64, 64), 90), "PNG")[:700], "broken image: "),
        (encoded(Image.effect_noise((64, 64), 90), "WEBP")[:700], "not an image|broken image"),
        (png_that_says(10, 10), "broken image: "),
        (png_that_says(9_000, 9_000), "more than 64,000,000 pixels"),
        (png_that_says(60_000, 60_000), "more than 64,000,000 pixels"),
        (encoded(Image.new("L", (30_000, 1)), "PNG"), "more than 200 times as long as wide"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decode__says_why_it_is_none(data, reason):
    with pytest.raises(Unusable, match=f"^({reason})"):
        decode(data)


def test_decode__limit_is_exact():
    data = encoded(Image.new("L", (10, 10)), "PNG")
    assert decode(data, most_pixels=100).size == (10, 10)
    with pytest.raises(Unusable, match="more than 99 pixels"):
        decode(data, most_pixels=99)


def test_decode__30_000_pixels_wide_by_the_pixels_it_has():
    wide = encoded(Image.new("L", (30_000, 200)), "PNG")
    assert decode(wide).size == (30_000, 200)
    with pytest.raises(Unusable, match="more than 5,000,000 pixels"):
        decode(wide, most_pixels=5_000_000)


def test_decode_with_size__a_large_jpeg_at_a_part_of_its_size():
    picture, size, box = decode_with_size(encoded(drawn(1, (800, 600))), enough=140)
    assert (picture.size, size, box) == ((200, 150), (800, 600), (0, 0, 200, 150))
    whole = decode(encoded(drawn(1, (800, 600)))).resize(picture.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(picture, np.int16) - np.asarray(whole, np.int16)).mean() < 2
    assert decode_with_size(encoded(drawn(1, (800, 600))), enough=700).picture.size == (800, 600)


def test_decode_with_size__a_turned_jpeg_at_a_part_of_its_size():
    exif = Image.Exif()
    exif[0x0112] = 6
    picture, size, box = decode_with_size(encoded(drawn(1, (800, 600)), exif=exif), enough=140)
    assert (picture.size, size, box) == ((150, 200), (600, 800), (0, 0, 150, 200))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_with_size__a_part_of_a_size_that_does_not_divide_shows_the_same(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Thirteen eighths and one column, nine and one row: seven eighths of the last of each lie outside of the picture.
    data = encoded(drawn(1, (105, 73)), exif=exif, quality=95, subsampling=0)
    whole, part = decode_with_size(data), decode_with_size(data, enough=9)
    assert (part.size, max(part.picture.size)) == (whole.picture.size, 14)
    frame = Framing(4, 4, squash=True, resample=Image.Resampling.BICUBIC)
    wanted = frame(whole.picture).astype(np.int16)
    assert np.abs(frame(part.picture, part.box) - wanted).max() <= 8
    assert np.abs(frame(part.picture) - wanted).max() > 8


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
