"""Uids against Python's own integers and sets."""

from __future__ import annotations

import uuid

import numpy as np
import pyarrow as pa
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


@pytest.mark.parametrize("form", [str, lambda value: str(value).upper(), lambda value: value.hex])
@pytest.mark.parametrize(
    "kind",
    [
        *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()),
        *(pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int8(), pa.large_string())),
    ],
    ids=str,
)
def test_from_hex__reads_uuids_from_columns_of_every_type_of_text(form, kind):
    wanted = [uuid.UUID(int=n * 0x1234567890ABCDEF1357924680ACE1) for n in range(1, 6)]
    column = pa.array([form(value) for value in wanted])
    dictionary = pa.types.is_dictionary(kind)
    column = column.cast(kind.value_type).dictionary_encode() if dictionary else column.cast(kind)
    for array in (column, pa.chunked_array([column[:2], column[2:]]), column[1:]):
        assert numbers_of(uids.from_hex(array)) == [value.int for value in wanted[-len(array) :]]


def test_from_hex__reads_uuids_as_bytes():
    wanted = [uuid.UUID(int=n * 0x1234567890ABCDEF1357924680ACE1) for n in range(1, 6)]
    raw = pa.array([value.bytes for value in wanted], pa.binary(16))
    typed = pa.ExtensionArray.from_storage(pa.uuid(), raw)
    for array in (raw, typed, pa.chunked_array([typed[:1], typed[1:]]), raw[2:]):
        assert numbers_of(uids.from_hex(array)) == [value.int for value in wanted[-len(array) :]]
    with pytest.raises(UidError, match="row 1: expected a uid"):
        uids.from_hex(pa.array([b"x" * 16, None], pa.binary(16)))


def test_from_hex__sixteen_letters_are_text():
    """No UUID is of ASCII alone: a byte in the middle is 128 or more."""
    for kind in (pa.binary(16), pa.dictionary(pa.int32(), pa.binary(16))):
        column = pa.array([b"%016x" % number for number in range(5)], pa.binary(16))
        column = column.dictionary_encode() if pa.types.is_dictionary(kind) else column
        assert uids.from_hex(column).tolist() == [(0, number) for number in range(5)]
    with pytest.raises(UidError, match=r"row 1: expected a uid of 1 to 32 hex digits, found .*photo_0000000001"):
        uids.from_hex(pa.array([b"0123456789abcdef", b"photo_0000000001"], pa.binary(16)))


def test_from_hex__dashed_and_plain_ones_in_one_column():
    value = uuid.UUID(int=2**127 + 5)
    assert numbers_of(uids.from_hex(["1", str(value), value.hex])) == [1, value.int, value.int]


@pytest.mark.parametrize("column", [[1, 2], [1.5], [["a"]], [b"\xff"], [True]])
def test_from_hex__refuses_what_is_no_text(column):
    with pytest.raises(UidError, match="expected text"):
        uids.from_hex(pa.array(column))


DASHES = ["0123456-789ab-cdef-0123-456789abcdef", "-" * 36, "01234567-89ab-cdef-0123-456789abcdeg"]


@pytest.mark.parametrize("bad", [*DASHES, "", "g", "1" * 33, "0x12", " 1", "é", None])
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


def test_sort__of_uids_that_begin_alike():
    draw = np.random.default_rng(3)
    numbers = [int(high) << 96 | int(low) << 40 for high, low in draw.integers(0, (40, 9000), (2000, 2))]
    assert numbers_of(uids.sort(of(numbers))) == sorted(numbers)


@given(NUMBERS, NUMBERS)
def test_unique_and_union__agree_with_sets(a, b):
    x, y = of(a), of(b)
    assert numbers_of(uids.unique(x)) == sorted(set(a))
    assert numbers_of(uids.union(x, y)) == sorted(set(a) | set(b))


@given(NUMBERS, NUMBERS)
def test_contains__agrees_with_in(haystack, needles):
    assert uids.contains(of(haystack), of(needles)).tolist() == [n in haystack for n in needles]


@given(st.lists(NUMBERS, max_size=8), NUMBERS)
def test_growing__agrees_with_in(parts, needles):
    known, listed = uids.Growing(), list[int]()
    for part in parts:
        known.add(of(part))
        listed += part
        assert known.contains(of(needles)).tolist() == [needle in listed for needle in needles]
    assert [f"{needle:032x}" in known for needle in needles] == [needle in listed for needle in needles]


@given(NUMBERS, NUMBERS)
def test_find_in_sorted__the_first_of_several_as_index_has_it(haystack, needles):
    ordered = uids.sort(of(haystack))
    found = uids.find_in_sorted(*(np.ascontiguousarray(ordered[half]) for half in ("f0", "f1")), of(needles))
    listed = sorted(haystack)
    assert found.tolist() == [listed.index(needle) if needle in listed else -1 for needle in needles]


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
def test_write_subset__unsorted_or_repeated_is_refused(tmp_path, numbers, found):
    with pytest.raises(UidError, match=found):
        uids.write_subset(tmp_path / "out.npy", of(numbers))
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize(
    "stored",
    [
        lambda array: array,
        lambda array: array.astype(">u8,>u8"),
        lambda array: array.astype([("hi", "<u8"), ("lo", ">u8")]),
        lambda array: np.array([f"{n:x}" for n in numbers_of(array)]),
        lambda array: np.array([str(uuid.UUID(int=n)) for n in numbers_of(array)], "S36"),
        lambda array: np.stack([array["f0"], array["f1"]], axis=1),
        lambda array: np.array([list(uuid.UUID(int=n).bytes) for n in numbers_of(array)], np.uint8),
        lambda array: np.array([uuid.UUID(int=n).bytes for n in numbers_of(array)], "V16"),
    ],
    ids=["as ours", "big-endian", "named", "text", "bytes", "halves", "octets", "void"],
)
def test_read_subset__takes_any_order_and_counts_repeats(tmp_path, stored, caplog):
    np.save(tmp_path / "list.npy", stored(of([2**100, 1, 7, 1, 1])))
    assert numbers_of(uids.read_subset(tmp_path / "list.npy")) == [1, 7, 2**100]
    said = f"{tmp_path / 'list.npy'}: 2 of 5 uids repeat others and count once"
    assert [record.message for record in caplog.records] == [said]


@pytest.mark.parametrize(
    "array",
    [
        *(np.zeros(3), np.zeros((3, 3), "u8"), np.zeros(3, "i8,i8"), np.zeros(3, "u8,u8,u8"), np.zeros(3, "V15")),
        *(np.zeros((3, 15), np.uint8), np.zeros((2, 2, 2), "u8")),
        *(np.zeros(3, "M8[s]"), np.zeros(3, np.longdouble), np.array("1"), np.array(["not-a-uid"])),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_read_subset__refuses_other_arrays(tmp_path, array):
    np.save(tmp_path / "other.npy", array)
    with pytest.raises(UidError, match=r"other\.npy.*: expected") as caught:
        uids.read_subset(tmp_path / "other.npy")
    assert "\n" not in str(caught.value)


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
