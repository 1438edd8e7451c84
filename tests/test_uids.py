"""Uids against Python's own integers and sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsel_core import uids
from clipsel_core.errors import UidError

# Few values, so that sets meet; short ones share their high half, and so take the other way through `contains`.
SMALL = st.lists(st.integers(0, 40), max_size=60)
WIDE = st.lists(st.sampled_from([n * 0x1234567890ABCDEF1357924680ACE1 for n in range(30)]), max_size=60)
NUMBERS = st.one_of(SMALL, WIDE, st.lists(st.integers(0, 2**128 - 1), max_size=20))


def of(numbers: list[int]) -> np.ndarray:
    return uids.from_hex([f"{n:032x}" for n in numbers])


def numbers_of(array: np.ndarray) -> list[int]:
    return [int(high) << 64 | int(low) for high, low in array.tolist()]


@given(NUMBERS)
def test_from_hex__agrees_with_int(numbers):
    assert numbers_of(of(numbers)) == numbers


@given(NUMBERS)
def test_to_hex__gives_32_lower_case_digits(numbers):
    assert uids.to_hex(of(numbers)).to_pylist() == [f"{n:032x}" for n in numbers]


def test_from_hex__pads_short_ones_and_takes_upper_case():
    assert numbers_of(uids.from_hex(["1", "aB", "F" * 32])) == [1, 0xAB, 2**128 - 1]


def test_from_hex__keeps_rows_apart_across_blocks(monkeypatch):
    monkeypatch.setattr(uids, "_BLOCK", 3)
    numbers = list(range(0, 10**30, 10**29))
    assert numbers_of(of(numbers)) == numbers
    assert uids.to_hex(of(numbers)).to_pylist() == [f"{n:032x}" for n in numbers]


@pytest.mark.parametrize("bad", ["", "g", "1" * 33, "0x12", " 1", "é", None])
def test_from_hex__refuses_what_is_no_uid_and_names_its_row(bad):
    with pytest.raises(UidError, match=r"row 2: expected a uid of 1 to 32 hex digits"):
        uids.from_hex(["1", "2", bad, "3"])


def test_from_hex__cuts_a_long_value_in_its_message():
    with pytest.raises(UidError) as caught:
        uids.from_hex(["x" * 100_000])
    assert len(str(caught.value)) < 200


@given(NUMBERS)
def test_sort__agrees_with_sorted(numbers):
    assert numbers_of(uids.sort(of(numbers))) == sorted(numbers)


@given(NUMBERS, NUMBERS)
def test_unique_and_union__agree_with_sets(a, b):
    x, y = of(a), of(b)
    assert numbers_of(uids.unique(x)) == sorted(set(a))
    assert numbers_of(uids.union(x, y)) == sorted(set(a) | set(b))


@given(NUMBERS, NUMBERS)
def test_contains__agrees_with_in(haystack, needles):
    assert uids.contains(of(haystack), of(needles)).tolist() == [n in haystack for n in needles]


def test_write_subset__is_read_back_and_is_what_numpy_writes(tmp_path):
    kept = uids.unique(of([5, 3, 2**100]))
    uids.write_subset(tmp_path / "a.npy", kept)
    np.save(tmp_path / "b.npy", kept)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert (uids.read_subset(tmp_path / "a.npy") == kept).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "b.npy"]


@pytest.mark.parametrize(
    ("numbers", "found"), [([2, 1], "a smaller uid at row 1"), ([1, 1], "a repeated uid at row 1")]
)
def test_subset__unsorted_or_repeated_is_refused_both_ways(tmp_path, numbers, found):
    np.save(tmp_path / "bad.npy", of(numbers))
    with pytest.raises(UidError, match=found):
        uids.read_subset(tmp_path / "bad.npy")
    with pytest.raises(UidError, match=found):
        uids.write_subset(tmp_path / "out.npy", of(numbers))
    assert not (tmp_path / "out.npy").exists()


def test_read_subset__refuses_other_arrays(tmp_path):
    np.save(tmp_path / "floats.npy", np.zeros(3))
    with pytest.raises(
        UidError, match=r"floats.npy: expected shape \(N,\), dtype u8,u8, found shape \(3,\), dtype float64"
    ):
        uids.read_subset(tmp_path / "floats.npy")


def test_read_subset__never_unpickles(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(UidError, match=r"objects\.npy"):
        uids.read_subset(tmp_path / "objects.npy")


def test_write_subset__failure_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npy"
    uids.write_subset(path, of([1]))
    before = path.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space"):
        uids.write_subset(path, of([2]))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.npy"]
