"""Which rows are scored as they are, which are mended, which are refused."""

from __future__ import annotations

import numpy as np
import pytest

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.embeddings import read_embeddings, read_pairs, row_lengths, row_scale
from clipsel_core.pool.layout import open_pool
from tests.conftest import rewrite_npz, unit_rows, write_shard


def opened(root):
    pool = open_pool(root)
    return pool.shards[0], pool.arch("l14")


def with_image(root, change):
    """A pool of one shard of 10 rows, its images changed in place by `change`."""
    _, npz = write_shard(root, "0", 10)
    with np.load(npz) as archive:
        image = archive["l14_img"]
    rewrite_npz(npz, l14_img=change(image))
    return opened(root)


def set_row(value):
    def change(image):
        image[3] = value
        return image

    return change


def test_read_pairs__unit_rows_come_as_they_are(pool):
    shard, arch = opened(pool)
    pairs = read_pairs(shard, arch)
    with np.load(shard.npz.path) as archive:
        np.testing.assert_array_equal(pairs.image, archive["l14_img"])
        np.testing.assert_array_equal(pairs.text, archive["l14_txt"])
    assert (pairs.image.dtype, pairs.usable.all(), pairs.renormalised) == (np.float16, True, 0)


def test_read_pairs__fills_the_memory_it_is_given(pool):
    """Such as memory that a GPU copies from by itself: nothing is copied once more."""
    shard, arch = opened(pool)
    given = []

    def room(shape, dtype):
        given.append(np.zeros(shape, dtype))
        return given[-1]

    pairs = read_pairs(shard, arch, room=room)
    assert {id(pairs.image), id(pairs.text)} == {id(array) for array in given}
    np.testing.assert_array_equal(pairs.image, read_pairs(shard, arch).image)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        *((0.0, "only zeros; set"), (np.nan, "NaN; set"), (np.inf, "infinite values; set")),
        (65504.0, r"length 2.62e\+05; scale"),
    ],
)
def test_read_pairs__bad_rows_are_named_or_set_aside(tmp_path, value, found):
    shard, arch = with_image(tmp_path, set_row(value))
    with pytest.raises(PoolFormatError, match=f"shard 0, row 3: expected a unit row in l14_img, found {found} such"):
        read_pairs(shard, arch)
    pairs = read_pairs(shard, arch, on_bad_rows="skip")
    assert np.flatnonzero(~pairs.usable).tolist() == [3]


def test_read_pairs__caption_rows_are_looked_at_too(tmp_path):
    _, npz = write_shard(tmp_path, "0", 10)
    text = unit_rows(10, 16)
    text[7] = 0
    rewrite_npz(npz, l14_txt=text)
    shard, arch = opened(tmp_path)
    with pytest.raises(PoolFormatError, match="row 7: expected a unit row in l14_txt, found only zeros"):
        read_pairs(shard, arch)
    assert np.flatnonzero(~read_pairs(shard, arch, on_bad_rows="skip").usable).tolist() == [7]


def test_read_pairs__rows_within_a_hundredth_are_scaled(tmp_path):
    shard, arch = with_image(tmp_path, lambda image: image * np.float16(1.008))
    pairs = read_pairs(shard, arch)
    assert pairs.renormalised == 10
    np.testing.assert_allclose(np.linalg.norm(pairs.image.astype("f8"), axis=1), 1, atol=1e-6)


def test_read_pairs__rows_farther_off_are_bad(tmp_path):
    shard, arch = with_image(tmp_path, lambda image: image * np.float16(1.02))
    with pytest.raises(PoolFormatError, match=r"row 0: expected a unit row in l14_img, found length 1\.0"):
        read_pairs(shard, arch)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("length", [11, 0.02, 1.02])
def test_read_pairs__rows_of_any_length_are_scaled_on_request(tmp_path, dtype, length):
    _, npz = write_shard(tmp_path, "0", 600)
    exact = unit_rows(600, 16).astype("f8") * length
    image = exact.astype(dtype)
    image[[3, 300]] = [[0], [np.nan]]
    image[4] = np.inf
    rewrite_npz(npz, l14_img=image)
    shard, arch = opened(tmp_path)
    with pytest.raises(PoolFormatError, match=r"shard 0, row 0: .*; scale such rows to unit length with --on-bad-rows"):
        read_pairs(shard, arch)
    pairs = read_pairs(shard, arch, on_bad_rows="scale")
    assert np.flatnonzero(~pairs.usable).tolist() == [3, 4, 300]
    assert pairs.renormalised == 597
    expected = image[pairs.usable].astype("f8")
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(pairs.image[pairs.usable], expected, atol=1e-6)


def test_read_pairs__float64_is_read_as_float32(tmp_path):
    shard, arch = with_image(tmp_path, lambda image: image.astype("f8"))
    assert read_pairs(shard, arch).image.dtype == np.float32


@pytest.mark.parametrize("rows", [1, 255, 256, 257, 1300])
@pytest.mark.parametrize("dtype", ["f2", ">f2", "f4", "f8"])
def test_row_scale__agrees_with_float64_across_blocks(rows, dtype):
    x = (unit_rows(rows, 8).astype("f4") * np.linspace(0.985, 1.015, rows, dtype="f4")[:, None]).astype(dtype)
    length = np.linalg.norm(x.astype("f8"), axis=1)
    expected = np.where(abs(length - 1) <= 1e-3, 1, np.where(abs(length - 1) <= 1e-2, 1 / length, np.nan))
    near_a_limit = np.minimum(abs(abs(length - 1) - 1e-3), abs(abs(length - 1) - 1e-2)) < 1e-6
    np.testing.assert_allclose(row_scale(x)[~near_a_limit], expected[~near_a_limit], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["f2", ">f2", "f4", "f8"])
def test_row_lengths__are_those_of_float64_and_none_for_bad_rows(dtype):
    x = (unit_rows(700, 8).astype("f4") * np.linspace(0.985, 1.015, 700, dtype="f4")[:, None]).astype(dtype)
    x[300], x[301], x[302] = 0, np.nan, 65504.0
    length = np.linalg.norm(x.astype("f8"), axis=1)
    usable = np.abs(length - 1) <= 1e-2
    np.testing.assert_allclose(row_lengths(x), np.where(usable, length, np.nan), rtol=3e-7)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 65504.0, 0.0])
def test_row_scale__bad_float16_rows_have_none(value):
    x = unit_rows(300, 8)
    x[280] = value
    assert np.flatnonzero(np.isnan(row_scale(x))).tolist() == [280]


def test_row_scale__float16_numbers_too_small_to_be_normal_count():
    """2^22 components of 2^-15, which float16 holds as subnormal numbers, add 2^-8 to the square of a length of 1."""
    row = np.full((1, 2**22 + 1), 2.0**-15, np.float16)
    row[0, 0] = 1
    assert row_scale(row)[0] == pytest.approx((1 + 2.0**-8) ** -0.5, abs=1e-5)


def test_read_pairs__rows_are_its_own(tmp_path):
    """The pool's file may be written anew while a shard is scored."""
    shard, arch = with_image(tmp_path, lambda image: image)
    pairs = read_pairs(shard, arch)
    before = pairs.image.copy()
    with open(shard.npz.path, "r+b") as file:
        file.write(b"\0" * shard.npz.size())
    np.testing.assert_array_equal(pairs.image, before)


def test_read_embeddings__wrong_number_of_rows(tmp_path):
    _, npz = write_shard(tmp_path, "0", 10)
    rewrite_npz(npz, l14_img=unit_rows(9, 16))
    shard, _ = opened(tmp_path)
    match = "shard 0: expected 10 rows, as in the parquet, found 9 rows in l14_img; download 0.npz and 0.parquet again"
    with pytest.raises(PoolFormatError, match=match):
        read_embeddings(shard, "l14_img")


def test_read_embeddings__missing_npz_and_member(tmp_path):
    _, npz = write_shard(tmp_path, "0", 10)
    shard, _ = opened(tmp_path)
    with pytest.raises(PoolFormatError, match=r"expected an array b32_img, found l14_img, l14_txt"):
        read_embeddings(shard, "b32_img")
    npz.unlink()
    with pytest.raises(PoolFormatError, match=r"0\.npz: expected the embeddings of 0\.parquet, found no such file"):
        read_embeddings(open_pool(tmp_path).shards[0], "l14_img")


@pytest.mark.parametrize("image", [np.zeros(10, "f2"), np.zeros((10, 16), "i4"), np.zeros((10, 2, 8), "f2")])
def test_read_embeddings__not_a_float_matrix(tmp_path, image):
    _, npz = write_shard(tmp_path, "0", 10)
    shard, _ = opened(tmp_path)
    rewrite_npz(npz, l14_img=image)
    with pytest.raises(PoolFormatError, match=r"expected l14_img of shape \(N, D\), float16, found shape"):
        read_embeddings(shard, "l14_img")
