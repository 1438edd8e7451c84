"""A .npy's header is believed only as far as its file bears it out."""

from __future__ import annotations

import os

import numpy as np
import pytest

from clipsel_core.npy import map_npy


def with_header(path, header: str, values: bytes = b"\0" * 64):
    text = header.encode("latin1")
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + values)
    return path


@pytest.mark.parametrize(
    "array",
    [
        *(np.arange(12.0).reshape(3, 4), np.asfortranarray(np.arange(12.0).reshape(3, 4)), np.arange(3, dtype=">u8")),
        *(np.zeros((0, 5), "f2"), np.zeros(2, "u8,u8"), np.array(7)),
    ],
    ids=str,
)
def test_map_npy__agrees_with_numpy(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    found = map_npy(tmp_path / "a.npy")
    assert (found.dtype, found.flags.writeable and found.size > 0) == (array.dtype, False)
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 16)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -16)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 16)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1.0, 2)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (98765432109876, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 9)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': " + repr((0,) * 70) + "}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': ['<f4'], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': 3, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 1",
        "(" * 3000,
        "\xff\x00",
    ],
)
def test_map_npy__a_header_that_cannot_be_true_is_refused(tmp_path, header):
    with pytest.raises(ValueError, match=r"shape|header|objects|bytes|dimension"):
        map_npy(with_header(tmp_path / "a.npy", header))


def test_map_npy__flipped_bits_are_read_or_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(16.0))
    whole = (tmp_path / "a.npy").read_bytes()
    refused = 0
    for place in range(100):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            (tmp_path / "a.npy").write_bytes(damaged)
            try:
                map_npy(tmp_path / "a.npy")
            except ValueError:
                refused += 1
    assert refused > 300


def test_map_npy__what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(OSError, match="a pipe, a socket or a device"):
        map_npy(tmp_path / "pipe.npy")
    with pytest.raises(OSError, match="a pipe, a socket or a device"):
        map_npy("/dev/zero")
    with pytest.raises(OSError, match="a folder"):
        map_npy(tmp_path)
