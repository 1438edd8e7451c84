"""How do pairs become a webdataset tar? As img2dataset lays them out, and DataComp and open_clip read them."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from clipsel_core.places import Place
from clipsel_core.pool.making.decode import Unusable, decode

_BLOCK = tarfile.BLOCKSIZE
_HEADER = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
# TIFF's and BigTIFF's, in either byte order; AVIF has the size of its first box before the b"ftyp".
_OTHERS = (b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Where a whole file says that it ends. JPEGs may have something behind it.
_ENDS = {"jpg": (b"\xff\xd9", 1024), "png": (b"IEND", 64)}


class TarPacker:
    """Adds pairs to a tar: <key>.<image ending>, <key>.txt, <key>.json. The same pairs give the same bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.count = self.offset = 0

    def add(self, key: str, image: bytes, caption: str, facts: Mapping[str, Any]) -> int:
        """Adds a pair, the image's bytes as they are; returns where they begin in the tar.

        key: without a dot, 90 letters of ASCII at most. facts: for the json, after uid and whatever else describes the
        pair.
        """
        offset = self.offset + _BLOCK
        self._add(f"{key}.{image_ending(image) or 'jpg'}", image)
        self._add(f"{key}.txt", caption.encode())
        self._add(f"{key}.json", json.dumps(facts).encode())
        self.count += 1
        return offset

    def _add(self, name: str, content: bytes) -> None:
        """Adds a file without an owner and with the date 0, as tarfile writes it, in a tenth of the time."""
        header = bytearray(_HEADER)
        header[: len(name)] = name.encode("ascii")
        header[124:136] = b"%011o\0" % len(content)
        header[148:156] = b" " * 8
        header[148:155] = b"%06o\0" % sum(header)
        self._write(header + content + b"\0" * (-len(content) % _BLOCK))

    def close(self) -> None:
        """Writes the end mark."""
        ends = self.offset + 2 * _BLOCK
        self._write(b"\0" * (2 * _BLOCK + -ends % tarfile.RECORDSIZE))

    def _write(self, data: bytes | bytearray) -> None:
        self.offset += self._file.write(data)


@contextmanager
def new_tar(path: Path) -> Iterator[TarPacker]:
    """A tar to add pairs to. Write it under another name and rename it when it is whole."""
    with open(path, "wb") as file:
        packer = TarPacker(file)
        yield packer
        packer.close()


def stats_file(tar: str | os.PathLike[str]) -> Place:
    """<tar>_stats.json beside a tar."""
    tar = Place.of_named(tar)
    return tar.with_name(f"{tar.stem}_stats.json")


def write_stats(tar: str | os.PathLike[str], count: int, **more: object) -> None:
    """Writes stats_file, where DataComp's resharder reads a tar's number of pairs. more: of its own."""
    counts = {"count": count, "successes": count, "failed_to_download": 0, "failed_to_resize": 0}
    stats_file(tar).write_json({**counts, **more})


def image_ending(data: bytes) -> str:
    """The ending of an encoded image's name by its first bytes: jpg, png or webp; nothing where it is none of these.

    >>> image_ending(b"RIFF....WEBPVP8 "), image_ending(b"GIF89a")
    ('webp', '')
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return "jpg" if data.startswith(b"\xff\xd8") else "png" if data.startswith(b"\x89PNG") else ""


def for_loaders(data: bytes) -> bytes:
    """An image as training loaders read it: a JPEG, PNG or WebP as it is, else the same picture as a PNG.

    data: one of these, or a GIF, BMP, TIFF or AVIF. The PNG is what the teacher saw: upright, in RGB, over white.
    Raises: Unusable on anything else, and on what is broken.
    """
    if image_ending(data):
        return data
    if not (data.startswith(_OTHERS) or data[4:8] == b"ftyp"):
        raise Unusable("not an image" if data else "empty file")
    file = BytesIO()
    decode(data).save(file, "PNG")
    return file.getvalue()


def check_whole(data: bytes) -> None:
    """Makes sure that loaders can read a JPEG, PNG or WebP. It is decoded only where its end is not where it should be.

    Raises: Unusable.
    """
    ending = image_ending(data)
    if ending == "webp":
        whole = int.from_bytes(data[4:8], "little") + 8 <= len(data)
    else:
        mark, most = _ENDS[ending]
        whole = data.rfind(mark, max(0, len(data) - most)) >= 0
    if not whole:
        decode(data)
