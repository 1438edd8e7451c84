"""Which uid does a pair get? Its own where it has one, else one of its key and caption; never one twice in a pool."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from clipsel_core import uids
from clipsel_core.pool.sources.record import Record


@dataclass(frozen=True)
class Names:
    """uids: (M,) UID_DTYPE in the records' order. repeated: rows whose first name was taken, with that name (hex)."""

    uids: np.ndarray
    repeated: list[tuple[int, str]]


def derive_uid(key: str, caption: str, turn: int = 0) -> str:
    """128 bits of BLAKE2b over key and caption as 32 hex digits: the same on every machine.

    turn: for pairs whose uid is taken already, 1, 2, ... until one is free.

    >>> derive_uid("000000012", "a red boat")
    '5b83b73440f95326b5d715b98ad9bd18'
    """
    parts = [key.encode(), caption.encode(), str(turn).encode() if turn else b""]
    framed = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    return hashlib.blake2b(framed, digest_size=16).hexdigest()


def name_records(records: list[Record], taken: np.ndarray) -> Names:
    """Names a shard's records. taken: (T,) UID_DTYPE, the uids of the shards before it.

    The first of several pairs with one uid keeps it; each further one gets a derived uid, decided by the order alone.
    """
    wanted = [record.uid or derive_uid(record.key, record.caption) for record in records]
    found = uids.from_hex(wanted)
    before = uids.contains(taken, found) if len(taken) and len(found) else np.zeros(len(found), bool)
    here: set[str] = set()
    repeated: list[tuple[int, str]] = []
    for row, name in enumerate(wanted):
        if not before[row] and name not in here:
            here.add(name)
            continue
        repeated.append((row, name))
        turn = 1
        while (new := derive_uid(records[row].key, records[row].caption, turn)) in here or _is_in(taken, new):
            turn += 1
        wanted[row] = new
        here.add(new)
    return Names(uids.from_hex(wanted), repeated)


def _is_in(taken: np.ndarray, name: str) -> bool:
    """Whether a sorted array has this uid."""
    wanted = uids.from_hex([name])[0]
    first, last = np.searchsorted(taken["f0"], wanted["f0"]), np.searchsorted(taken["f0"], wanted["f0"], "right")
    return bool((taken["f1"][first:last] == wanted["f1"]).any())
