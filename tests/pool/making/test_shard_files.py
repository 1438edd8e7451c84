"""Does each pair get one uid, the same everywhere? Are shards written one at a time while their giver goes on?"""

from __future__ import annotations

import hashlib
from threading import Event
from uuid import UUID

import numpy as np
import pytest

from clipsel_core import uids
from clipsel_core.pool.conventions import padded_uid, usable_uid
from clipsel_core.pool.making.shard_files import Namer, ShardWriter, derive_uid
from clipsel_core.pool.sources.record import Record
from tests.waiting import PATIENCE_S

NONE = uids.from_hex([])


def named(records, taken):
    known = uids.Growing()
    known.add(taken)
    namer = Namer(known)
    for record in records:
        namer.name(record)
    return namer


def hexes(names) -> list[str]:
    return uids.to_hex(names.uids()).to_pylist()


def test_derive_uid__is_blake2b_over_framed_key_and_caption():
    framed = (9).to_bytes(8, "little") + b"000000012" + (10).to_bytes(8, "little") + b"a red boat" + bytes(8)
    assert derive_uid("000000012", "a red boat") == hashlib.blake2b(framed, digest_size=16).hexdigest()
    assert derive_uid("ab", "c") != derive_uid("a", "bc")


def test_namer__a_sources_uid_is_kept():
    assert hexes(named([Record("k", "f", uid="a" * 32)], NONE)) == ["a" * 32]


def test_namer__repeats_are_told_apart_in_order():
    same = [Record("k", "f", "text")] * 3
    names = named(same, NONE)
    first = derive_uid("k", "text")
    assert hexes(names) == [first, derive_uid("k", "text", 1), derive_uid("k", "text", 2)]
    assert names.repeated == [(1, first), (2, first)]


def test_namer__shards_before_count_too():
    record = Record("k", "f", "text", uid="b" * 32)
    taken = uids.from_hex(["b" * 32, derive_uid("k", "text", 1)])
    names = named([record, Record("l", "f", "text")], taken)
    assert hexes(names) == [derive_uid("k", "text", 2), derive_uid("l", "text")]
    assert names.repeated == [(0, "b" * 32)]


def test_namer__none():
    assert len(named([], NONE).uids()) == 0
    assert named([], NONE).uids().dtype == np.dtype("u8,u8")


def test_usable_uid__well_formed_or_nothing():
    dashed = "0E984725-c51c-4bf4-9960-e1c80e27aba0"
    plain = "0e984725c51c4bf49960e1c80e27aba0"
    assert [usable_uid(value) for value in (dashed, plain, plain.upper(), UUID(plain))] == [plain] * 4
    no_uids = (None, 7, "", "x", "7", "AB", "a" * 33, f"-{plain}", dashed[:-1], "\ud800", ["a"], "imgur_x1")
    assert [usable_uid(value) for value in no_uids] == [""] * len(no_uids)


def test_padded_uid__a_short_one_as_pools_have_them():
    assert [padded_uid(value) for value in ("AB", "a" * 32, "7")] == ["ab".zfill(32), "a" * 32, "7".zfill(32)]
    assert [padded_uid(value) for value in (None, 7, "", "x", "a" * 33)] == [""] * 5


def failing():
    raise OSError("no room")


def test_shard_writer__goes_on_while_a_piece_is_done_and_waits_before_the_next():
    allowed, done = Event(), []
    with ShardWriter() as writer:
        writer.begin(lambda: done.append(allowed.wait(PATIENCE_S)))
        writer.check()
        assert not done
        allowed.set()
        writer.begin(lambda: done.append("second"))
        assert done[0] is True
        writer.wait()
        assert done == [True, "second"]


@pytest.mark.parametrize("call", ["check", "wait", "begin"])
def test_shard_writer__what_fails_is_raised_by_the_next_call(call):
    with ShardWriter() as writer:
        writer.begin(failing)
        writer._thread.submit(int).result(PATIENCE_S)
        with pytest.raises(OSError, match="no room"):
            getattr(writer, call)(*[failing] * (call == "begin"))


def test_shard_writer__ends_a_piece_that_is_begun():
    done, allowed = [], Event()
    with ShardWriter() as writer:
        writer.begin(lambda: done.append(allowed.wait(PATIENCE_S)))
        allowed.set()
    assert done == [True]
