"""Where is a uid's image? Looked up in a file, so that a pool of any size costs no memory.

    entries   56 bytes an image, in the order of their buckets
    starts    8 bytes a bucket: the entry that it begins with; one more at the end
    names     the files' names, one behind the other
    about     JSON: the stamp, how many of each, what the names are relative to, and which files are damaged
    tail      16 bytes: where `about` begins, and how long it is

A uid's bucket is the top bits of a hash of it, so that buckets hold some 32 entries however the uids were made. Finding
one reads two numbers, a bucket and a name. The file is put together in pieces that fit into memory.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa

from clipsel_core.files import held, remove_abandoned, write_atomically

ENTRY = np.dtype(
    {
        "names": ["high", "low", "offset", "name", "length", "chars", "kind", "json_offset", "json_length"],
        "formats": ["<u8", "<u8", "<i8", "<u8", "<i4", "<u2", "<u2", "<i8", "<i8"],
    }
)
JSON_PLACE = ("json_offset", "json_length")
_VERSION = 2
_IN_BUCKET = 32
_PIECES = 256
_HELD_BYTES = 128 << 20
_LONGEST_NAME, _LONGEST_IMAGE = 0xFFFF, 0x7FFFFFFF


@dataclass(frozen=True)
class Kind:
    """What names are relative to, "" for nothing, and the column with the images where the files are parquet."""

    base: str
    image_column: str = ""


@dataclass(frozen=True)
class Block:
    """Some images. names: the files they lie in. table: uid_hi, uid_lo, place (in names), offset, length.

    It may say where the json lies that describes the image, in the same file: json_offset, json_length.
    damage: what is wrong with the one file they lie in, if anything.
    """

    kind: Kind
    names: pa.Array
    table: pa.Table
    damage: str = ""


class Damaged(NamedTuple):
    """A file that could not be read to its end. found: images that were found in it all the same."""

    file: str
    reason: str
    found: int


@dataclass(frozen=True)
class Found:
    """Where one image is: the file's name and kind; offset and length as in images.py.

    json_offset, json_length: of the json that describes it; 0 where the file has none.
    """

    kind: Kind
    name: str
    offset: int
    length: int
    json_offset: int = 0
    json_length: int = 0


class Lookup:
    """A file of this kind, open. Any thread may ask; memory: none to speak of.

    bases: of its kinds. damaged: the files that are.
    """

    def __init__(self, file: BinaryIO, about: dict) -> None:
        self._file, self._pairs, self._bits = file, about["pairs"], about["bits"]
        self._kinds = [Kind(*kind) for kind in about["kinds"]]
        self.bases = sorted({kind.base for kind in self._kinds})
        self.damaged = [Damaged(*file) for file in about["damaged"]]
        self._starts = self._pairs * ENTRY.itemsize
        self._names = self._starts + 8 * (2**self._bits + 1)

    @classmethod
    def open(cls, path: Path, stamp: str) -> Lookup | None:
        """The lookup in a file; None where there is none, or with another stamp, or not whole."""
        try:
            file = open(path, "rb")  # noqa: SIM115 - it stays open as long as the lookup lives.
            try:
                size = os.fstat(file.fileno()).st_size
                begin, length = np.frombuffer(os.pread(file.fileno(), 16, size - 16), "<u8").tolist()
                if begin + length + 16 == size:
                    about = json.loads(os.pread(file.fileno(), length, begin))
                    if about["stamp"] == stamp and about["version"] == _VERSION:
                        return cls(file, about)
            except (OSError, ValueError, KeyError, TypeError, OverflowError):
                pass
            file.close()
        except OSError:
            pass
        return None

    def __len__(self) -> int:
        return self._pairs

    def find(self, uid: np.void) -> Found | None:
        """Where a uid's image is, of several the first that was given; None where there is none. uid: of UID_DTYPE."""
        high, low = np.uint64(uid["f0"]), np.uint64(uid["f1"])
        bucket = int(_hashes(np.array([high]), np.array([low]))[0]) >> (64 - self._bits) if self._bits else 0
        start, stop = np.frombuffer(self._read(self._starts + 8 * bucket, 16), "<u8").tolist()
        entries = np.frombuffer(self._read(start * ENTRY.itemsize, (stop - start) * ENTRY.itemsize), ENTRY)
        hits = np.flatnonzero((entries["high"] == high) & (entries["low"] == low))
        if not len(hits):
            return None
        entry = entries[hits[0]]
        name = self._read(self._names + int(entry["name"]), int(entry["chars"])).decode()
        places = (int(entry[field]) for field in ("offset", "length", *JSON_PLACE))
        return Found(self._kinds[entry["kind"]], name, *places)

    def _read(self, offset: int, length: int) -> bytes:
        return os.pread(self._file.fileno(), length, offset)


def write_lookup(path: Path, stamp: str, blocks: Iterable[Block]) -> None:
    """Writes a lookup of these images, whole or not at all. What is too long for an entry is left out.

    Memory: a block, and some 200 MB at most. Raises: whatever `blocks` raises; OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent)
    with tempfile.TemporaryDirectory(prefix=".images-", dir=path.parent) as folder, held(Path(folder)):
        aside = Path(folder)
        kinds: dict[Kind, int] = {}
        damaged: list[Damaged] = []
        pieces = _Pieces(aside)
        with open(aside / "names", "wb") as names:
            for block in blocks:
                pieces.add(_entries(block, kinds.setdefault(block.kind, len(kinds)), names))
                if block.damage:
                    damaged.append(Damaged(block.names[0].as_py(), block.damage, block.table.num_rows))
        about = {"version": _VERSION, "stamp": stamp, "kinds": [[kind.base, kind.image_column] for kind in kinds]}
        about["damaged"] = damaged
        write_atomically(path, lambda file: _put_together(file, pieces, aside / "names", about))


def _put_together(path: Path, pieces: _Pieces, names: Path, about: dict) -> None:
    bits = max(0, (pieces.pairs // _IN_BUCKET).bit_length() - 1)
    counts = np.zeros(2**bits + 1, np.uint64)
    with open(path, "wb") as file:
        for entries in pieces.in_turn():
            hashes = _hashes(entries["high"], entries["low"])
            order = np.argsort(hashes, kind="stable")
            file.write(entries[order].tobytes())
            buckets = hashes >> np.uint64(64 - bits) if bits else np.zeros(len(hashes), np.uint64)
            found, pairs = np.unique(buckets, return_counts=True)
            counts[found + np.uint64(1)] += pairs.astype(np.uint64)
        file.write(np.cumsum(counts, dtype=np.uint64).tobytes())
        with open(names, "rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)
        text = json.dumps({**about, "pairs": pieces.pairs, "bits": bits}).encode()
        begin = file.tell()
        file.write(text + np.array([begin, len(text)], "<u8").tobytes())


def _entries(block: Block, kind: int, names: BinaryIO) -> np.ndarray:
    """The entries of a block, (M,) ENTRY, and its files' names behind the others."""
    encoded = [name.encode() for name in block.names.to_pylist()]
    chars = np.array([len(name) for name in encoded], np.int64)
    begins = names.tell() + np.concatenate([[0], np.cumsum(chars)[:-1]]).astype(np.int64)
    names.write(b"".join(encoded))
    table = {name: block.table[name].to_numpy() for name in block.table.column_names}
    out = np.empty(len(table["place"]), ENTRY)
    fits = np.ones(len(out), bool)
    if len(out):
        place = table["place"]
        fits = (chars[place] <= _LONGEST_NAME) & (table["length"] <= _LONGEST_IMAGE)
        out["high"], out["low"], out["offset"] = table["uid_hi"], table["uid_lo"], table["offset"]
        out["name"], out["chars"], out["kind"] = begins[place], np.minimum(chars[place], _LONGEST_NAME), kind
        out["length"] = np.minimum(table["length"], _LONGEST_IMAGE)
        for field in JSON_PLACE:
            out[field] = table.get(field, 0)
    return out[fits]


class _Pieces:
    """Entries by the top bits of their hash, in memory as long as they are few, then in files."""

    def __init__(self, folder: Path) -> None:
        self.pairs = 0
        self._folder, self._held = folder, 0
        self._parts: list[list[np.ndarray]] = [[] for _ in range(_PIECES)]

    def add(self, entries: np.ndarray) -> None:
        piece = (_hashes(entries["high"], entries["low"]) >> np.uint64(56)).astype(np.uint8)
        ordered = entries[np.argsort(piece, kind="stable")]
        ends = np.cumsum(np.bincount(piece, minlength=_PIECES))
        for parts, part in zip(self._parts, np.split(ordered, ends[:-1]), strict=True):
            if len(part):
                parts.append(part)
        self.pairs += len(entries)
        self._held += entries.nbytes
        if self._held > _HELD_BYTES:
            self._flush()

    def in_turn(self) -> Iterator[np.ndarray]:
        """Each piece's entries, in the order in which they came."""
        for number, parts in enumerate(self._parts):
            path = self._folder / str(number)
            kept = np.fromfile(path, ENTRY) if path.exists() else np.empty(0, ENTRY)
            yield np.concatenate([kept, *parts])

    def _flush(self) -> None:
        for number, parts in enumerate(self._parts):
            if parts:
                with open(self._folder / str(number), "ab") as file:
                    file.write(b"".join(part.tobytes() for part in parts))
                parts.clear()
        self._held = 0


def _hashes(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """64 bits that look random however uids were counted: (M,) uint64. The mixing is that of SplitMix64."""
    mixed = high * np.uint64(0x9E3779B97F4A7C15) + low
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
