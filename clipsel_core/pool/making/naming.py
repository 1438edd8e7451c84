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


class Namer:
    """Names a shard's records as they come. taken: (T,) UID_DTYPE, sorted: the uids of the shards before it.

    The first of several pairs with one uid keeps it; each further one gets a derived uid, decided by the order alone.
    """

    def __init__(self, taken: np.ndarray) -> None:
        # Searching in a field of pairs would copy the field each time.
        self._high, self._low = (np.ascontiguousarray(taken[half]) for half in ("f0", "f1"))
        # In the order of the records: dicts keep it.
        self._here: dict[str, None] = {}
        self._repeated: list[tuple[int, str]] = []

    def name(self, record: Record) -> str:
        """The uid of the next record, 32 hex digits."""
        wanted = new = record.uid or derive_uid(record.key, record.caption)
        turn = 0
        while new in self._here or self._is_taken(new):
            turn += 1
            new = derive_uid(record.key, record.caption, turn)
        if turn:
            self._repeated.append((len(self._here), wanted))
        self._here[new] = None
        return new

    def _is_taken(self, name: str) -> bool:
        high, low = (np.uint64(int(half, 16)) for half in (name[:16], name[16:]))
        first, last = (np.searchsorted(self._high, high, side) for side in ("left", "right"))
        return bool((self._low[first:last] == low).any())

    def names(self) -> Names:
        """Those of all records so far."""
        return Names(uids.from_hex(list(self._here)), self._repeated)
