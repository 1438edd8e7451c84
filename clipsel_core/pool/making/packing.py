"""How do pairs become a webdataset tar? As img2dataset lays them out, and DataComp's resharder takes them."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from clipsel_core.files import write_json

_ENDINGS = ((b"\xff\xd8", "jpg"), (b"\x89PNG", "png"), (b"GIF8", "gif"), (b"BM", "bmp"))


class TarPacker:
    """Adds pairs to a tar: <key>.<image ending>, <key>.txt, <key>.json. The same pairs give the same bytes."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self.count = 0

    @property
    def offset(self) -> int:
        """Bytes written so far."""
        return int(self._archive.offset)

    def add(self, key: str, image: bytes, caption: str, facts: Mapping[str, Any]) -> int:
        """Adds a pair, the image's bytes as they are; returns where they begin in the tar.

        key: without a dot. facts: for the json, after uid and whatever else describes the pair.
        """
        offset = self.offset + tarfile.BLOCKSIZE
        self._add(f"{key}.{image_ending(image)}", image)
        self._add(f"{key}.txt", caption.encode())
        self._add(f"{key}.json", json.dumps(facts).encode())
        self.count += 1
        return offset

    def _add(self, name: str, content: bytes) -> None:
        """A file without an owner and with the date 0."""
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        self._archive.addfile(entry, BytesIO(content))


@contextmanager
def new_tar(path: Path) -> Iterator[TarPacker]:
    """A tar to add pairs to. Write it under another name and rename it when it is whole."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        yield TarPacker(archive)


def write_stats(tar: Path, count: int, **more: object) -> None:
    """Writes <tar>_stats.json beside a tar, where DataComp's resharder reads its number of pairs. more: of its own."""
    path = tar.with_name(f"{tar.stem}_stats.json")
    write_json(path, {"count": count, "successes": count, "failed_to_download": 0, "failed_to_resize": 0, **more})


def image_ending(data: bytes) -> str:
    """The ending of an encoded image's name, by its first bytes; jpg where they tell nothing.

    >>> image_ending(b"RIFF....WEBPVP8 ")
    'webp'
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((ending for magic, ending in _ENDINGS if data.startswith(magic)), "jpg")
