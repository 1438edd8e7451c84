"""Where do the files of a tar lie? Its headers read in a tenth of tarfile's time; what is unusual is tarfile's."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_BLOCK = tarfile.BLOCKSIZE
_FILES, _PAX = (b"0", b"\0"), b"x"
# What a pax header may say without changing a file's name, place or size. webdataset's writer gives one to each file.
_HARMLESS = {b"mtime", b"atime", b"ctime", b"uid", b"gid", b"uname", b"gname"}
_MOST_OF_A_PAX_HEADER = 1 << 16
_ADLER = 65521


class Member(NamedTuple):
    """A file in a tar. offset, size: where its bytes lie."""

    name: str
    offset: int
    size: int


class Members:
    """The files of a tar, in order; folders, links and the like are passed over.

    file: at its beginning, of `size` bytes. end: where the next header is expected, as far as the tar was gone through.
    Names, places, and what counts as damage are tarfile's. As there, damage after the first header ends the tar as
    quietly as its end mark does.
    Raises: tarfile.TarError where it cannot be read at all, or ends within a file; what `file` raises.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self.end = file, size, 0

    def __iter__(self) -> Iterator[Member]:
        while True:
            if self.end > self._size:
                raise tarfile.ReadError("unexpected end of data")
            self._file.seek(self.end)
            if found := _plain(self._file, self.end):
                self.end = found.offset + -(-found.size // _BLOCK) * _BLOCK
                yield found
                continue
            self._file.seek(self.end)
            with tarfile.open(fileobj=self._file, mode="r:") as archive:
                yield from self._unusual(archive)
                stands, self.end = archive.offset == self.end, archive.offset
                if stands or archive.pax_headers:
                    return

    def read(self, member: Member, most: int = -1) -> bytes:
        """A file's bytes, `most` of them."""
        self._file.seek(member.offset)
        return self._file.read(member.size if most < 0 else min(member.size, most))

    def _unusual(self, archive: tarfile.TarFile) -> Iterator[Member]:
        """What tarfile finds where it stands: one file, or all that follow where a header speaks of them all."""
        for entry in archive:
            if entry.isfile():
                yield Member(entry.name, entry.offset_data, entry.size)
            if not archive.pax_headers:
                return


def _plain(file: BinaryIO, begin: int) -> Member | None:
    """The file whose header `file` stands at, `begin`; None where tarfile has to look."""
    block = file.read(_BLOCK)
    if block[156:157] == _PAX:
        length = _sound(block)
        if length is None or length > _MOST_OF_A_PAX_HEADER:
            return None
        filled = -(-length // _BLOCK) * _BLOCK
        if not _harmless(file.read(filled)[:length]):
            return None
        begin, block = begin + _BLOCK + filled, file.read(_BLOCK)
    if block[156:157] not in _FILES:
        return None
    size = _sound(block)
    name = block[:100].partition(b"\0")[0]
    if size is None or name.endswith(b"/"):
        return None
    if block[345]:
        name = block[345:500].partition(b"\0")[0] + b"/" + name
    return Member(name.decode(tarfile.ENCODING, "surrogateescape"), begin + _BLOCK, size)


def _sound(block: bytes) -> int | None:
    """The size that a header gives in octal digits; None where it is not whole, or says it in another way."""
    size, checksum = (block[place].partition(b"\0")[0].strip() for place in (slice(124, 136), slice(148, 156)))
    if len(block) < _BLOCK or not (size.isdigit() and checksum.isdigit()):
        return None
    try:
        # The sum of all bytes, those of the sum itself as blanks. Adler-32 holds it modulo a prime; adding up 512
        # numbers would take longer than all else here.
        total = (zlib.adler32(block) & 0xFFFF) - 1 - sum(block[148:156]) + 8 * 32
        return int(size, 8) if (total - int(checksum, 8)) % _ADLER == 0 else None
    except ValueError:
        return None


def _harmless(said: bytes) -> bool:
    """Whether a pax header tells nothing of its file's name, place or size. Lines of "LENGTH KEY=VALUE"."""
    at = 0
    while at < len(said):
        length, _, rest = said[at : at + 64].partition(b" ")
        key, equals, _ = rest.partition(b"=")
        if not (length.isdigit() and equals and key in _HARMLESS and 0 < int(length) <= len(said) - at):
            return False
        # Newer Pythons refuse a line that does not end where it says.
        if said[at + int(length) - 1] != ord("\n"):
            return False
        at += int(length)
    return True
