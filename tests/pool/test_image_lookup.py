"""The file that images are looked up in answers as a dictionary does, whatever the uids are like and however many."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from clipsel_core import uids
from clipsel_core.pool import image_lookup
from clipsel_core.pool.image_lookup import Block, Kind, Lookup, write_lookup

PAIRS = 3_000


def block(keys, number: int, files: int = 7) -> Block:
    """Images of these uids in some files; what each entry says follows from its place."""
    places = np.arange(len(keys))
    columns = {
        "uid_hi": keys["f0"].copy(),
        "uid_lo": keys["f1"].copy(),
        "place": (places % files).astype(np.int32),
        "offset": places + 10**10 * number,
        "length": places % 99,
    }
    names = pa.array([f"{number}/pictures é {name}.jpg" for name in range(files)])
    return Block(Kind("base", "image" if number % 2 else ""), names, pa.table(columns))


def answer(lookup: Lookup, key) -> tuple | None:
    found = lookup.find(key)
    return (found.kind, found.name, found.offset, found.length) if found else None


def make_keys(kind: str) -> np.ndarray:
    draw = np.random.default_rng(1)
    high, low = {
        "random": draw.integers(0, 2**64, (2, PAIRS), dtype=np.uint64),
        "counted": (np.zeros(PAIRS, np.uint64), np.arange(PAIRS, dtype=np.uint64)),
        "counted above": (np.arange(PAIRS, dtype=np.uint64), np.zeros(PAIRS, np.uint64)),
    }[kind]
    return uids.from_halves(high, low)


@pytest.mark.parametrize("held", [1, 10**9])
@pytest.mark.parametrize("kind", ["random", "counted", "counted above"])
def test_lookup__answers_as_a_dictionary_does(tmp_path, monkeypatch, kind, held):
    monkeypatch.setattr(image_lookup, "_HELD_BYTES", held)
    keys = make_keys(kind)
    blocks = [block(part, number) for number, part in enumerate(np.split(keys, [700, 701, 2_000]))]
    write_lookup(tmp_path / "index", "stamp", blocks)
    lookup = Lookup.open(tmp_path / "index", "stamp")
    known = {}
    for given in blocks:
        rows = given.table.to_pylist()
        for row in rows:
            key = row["uid_hi"], row["uid_lo"]
            known[key] = given.kind, given.names[row["place"]].as_py(), row["offset"], row["length"]
    assert len(lookup) == len(known) == PAIRS
    assert [answer(lookup, key) for key in keys] == [known[key] for key in keys.tolist()]
    strange = uids.from_halves(np.arange(5, dtype=np.uint64) + 10**6, np.full(5, 10**6, np.uint64))
    assert [answer(lookup, key) for key in strange] == [None] * 5
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_lookup__of_repeated_uids_the_first(tmp_path):
    keys = make_keys("random")[:3]
    write_lookup(tmp_path / "index", "", [block(keys, 1), block(keys[::-1], 2)])
    assert answer(Lookup.open(tmp_path / "index", ""), keys[0])[2] == 10**10


def test_lookup__what_does_not_fit_an_entry_is_left_out(tmp_path):
    keys = make_keys("random")[:2]
    columns = {"uid_hi": keys["f0"].copy(), "uid_lo": keys["f1"].copy(), "place": [0, 1], "offset": [0, 0]}
    table = pa.table({**columns, "length": [5, 2**31]})
    write_lookup(tmp_path / "index", "", [Block(Kind(""), pa.array(["a" * 70_000, "b"]), table)])
    assert len(Lookup.open(tmp_path / "index", "")) == 0


def test_open__not_whole_or_of_something_else_is_none(tmp_path):
    path = tmp_path / "index"
    write_lookup(path, "now", [block(make_keys("random"), 0)])
    whole = path.read_bytes()
    assert Lookup.open(path, "now") is not None
    assert Lookup.open(path, "then") is None
    assert Lookup.open(tmp_path / "nothing", "now") is None
    for damaged in (b"", b"x" * 15, whole[:-1], whole[:100], whole[:-16] + b"\xff" * 16, b"\0" * 100):
        path.write_bytes(damaged)
        assert Lookup.open(path, "now") is None


def test_write__a_block_that_fails_leaves_the_older_file(tmp_path):
    path = tmp_path / "index"
    write_lookup(path, "now", [block(make_keys("random"), 0)])

    def failing():
        yield block(make_keys("counted"), 0)
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        write_lookup(path, "later", failing())
    assert len(Lookup.open(path, "now")) == PAIRS
    assert [found.name for found in tmp_path.iterdir()] == ["index"]
