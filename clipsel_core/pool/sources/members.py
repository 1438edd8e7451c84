"""Where do the files of a tar lie? Its headers read in a tenth of tarfile's time; what is unusual is tarfile's."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from clipsel_core.errors import reason_of
from clipsel_core.files import expect_regular

DAMAGE = (tarfile.TarError, EOFError, ValueError)
"""What reading a damaged tar raises."""

_BLOCK, _RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE
_NUL = bytes(_BLOCK)
_FILES, _PAX = (b"0", b"\0"), b"x"
# Headers that describe the next file: its long name, the name it links to, or lines of KEY=VALUE; b"g" all that follow.
_DESCRIBE_NEXT, _DESCRIBE_ALL = (b"L", b"K", b"x", b"X"), b"g"
# What a pax header may say without changing a file's name, place or size. webdataset's writer gives one to each file.
_HARMLESS = {b"mtime", b"atime", b"ctime", b"uid", b"gid", b"uname", b"gname"}
_MOST_OF_A_PAX_HEADER = 1 << 16
# Bytes that all headers of one file may have together: tarfile believes what a header says of its size.
_MOST_OF_HEADERS = 1 << 20
_MOST_WORDS_ON_ALL = 100
_READ_AT_ONCE = 1 << 20
_NONSENSE = "a header that makes no sense"
_ADLER = 65521


class Member(NamedTuple):
    """A file in a tar. offset, size: where its bytes lie. fault: why its headers were not read; then it has no name."""

    name: str
    offset: int
    size: int
    fault: str = ""


class Members:
    """The files of a tar, in order; folders, links and the like are passed over. Also of tars one behind the other.

    file: at its beginning, of `size` bytes. end: where the next header is expected, as far as the tar was gone through.
    Names, places, and what counts as damage are tarfile's. As there, damage after the first header ends the tar as
    quietly as its end mark does; `end_fault` tells. Memory: a megabyte, whatever the headers say.
    Raises: one of DAMAGE where it cannot be read at all, or ends within a file; what `file` raises.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self.end = file, size, 0
        self._stray = 0

    def __iter__(self) -> Iterator[Member]:
        nameless = False
        while True:
            if self.end > self._size:
                raise tarfile.ReadError("unexpected end of data")
            self._file.seek(self.end)
            if found := _plain(self._file, self.end):
                self.end = found.offset + -(-found.size // _BLOCK) * _BLOCK
                if not nameless:
                    yield found
                nameless = False
                continue
            self._file.seek(self.end)
            block = self._file.read(_BLOCK)
            if block == _NUL:
                if not self._passed_end_mark():
                    return
                continue
            kind, size = block[156:157], _size_of(block)
            if (kind in _DESCRIBE_NEXT or kind == _DESCRIBE_ALL) and size is not None and size > _MOST_OF_HEADERS:
                yield Member("", self.end, 0, f"a header of {size:,} bytes")
                self.end += _BLOCK + -(-size // _BLOCK) * _BLOCK
                nameless = nameless or kind != _DESCRIBE_ALL
                continue
            begin = self.end
            for found, end in self._unusual():
                self.end = end
                if found and not nameless:
                    yield found
                nameless = False
            if self.end == begin:
                return

    def read(self, member: Member, most: int = -1) -> bytes:
        """A file's bytes, `most` of them."""
        self._file.seek(member.offset)
        return self._file.read(member.size if most < 0 else min(member.size, most))

    def end_fault(self) -> str:
        """What is wrong with the place where the tar was left, after all of it was gone through; else nothing."""
        if self._stray:
            return f"what lies behind the end of the tar at byte {self._stray:,} is none"
        self._file.seek(self.end)
        block = self._file.read(_BLOCK)
        if block == _NUL:
            return ""
        return f"the tar is {'damaged' if len(block) == _BLOCK else 'cut off'} at byte {self.end:,}"

    def _passed_end_mark(self) -> bool:
        """Whether another tar begins behind the end mark, where `end` is then."""
        at, chunk = self.end, b""
        self._file.seek(at)
        while not chunk:
            read = self._file.read(_READ_AT_ONCE)
            if not read:
                return False
            chunk = read.lstrip(b"\0")
            at += len(read) - len(chunk)
        at -= at % _BLOCK
        self._file.seek(at)
        if _size_of(self._file.read(_BLOCK)) is not None:
            self.end = at
            return True
        # What fills up the record in which the end mark lies may be anything.
        if self._size > -(-(self.end + 2 * _BLOCK) // _RECORD) * _RECORD:
            self._stray = at
        return False

    def _unusual(self) -> Iterator[tuple[Member | None, int]]:
        """What tarfile finds at `end`: one entry, or all that follow where a header speaks of them all.

        Each with where the next header is expected; None for what is no file.
        """
        self._file.seek(self.end)
        limited, end = _Limited(self._file, self._size), self.end
        try:
            with tarfile.open(fileobj=limited, mode="r:") as archive:  # type: ignore[call-overload]
                while True:
                    entry = archive.next()
                    if entry is None:
                        yield None, archive.offset
                        return
                    if entry.size < 0 or archive.offset <= end or len(archive.pax_headers) > _MOST_WORDS_ON_ALL:
                        raise tarfile.ReadError(_NONSENSE)
                    end = archive.offset
                    yield Member(entry.name, entry.offset_data, entry.size) if entry.isfile() else None, end
                    if not archive.pax_headers:
                        return
                    # tarfile remembers each.
                    archive.members.clear()
                    limited.left = _MOST_OF_HEADERS
        except (OSError, *DAMAGE):
            raise
        except Exception as error:
            # Numbers without end, headers nested without end: tarfile fails at them in many ways.
            raise tarfile.ReadError(_NONSENSE) from error


def damage_at_a_glance(tar: Path) -> str:
    """What is wrong with a tar that is empty, cut off or none, as its first header and its end tell; else nothing."""
    try:
        expect_regular(tar)
        size = tar.stat().st_size
        with open(tar, "rb") as file:
            next(iter(Members(file, size)), None)
            file.seek(max(0, size - tarfile.BLOCKSIZE))
            return "" if not file.read().strip(b"\0") else "it has no end mark: it may be cut off"
    except (*DAMAGE, OSError) as error:
        return f"it cannot be read: {reason_of(error)}"


class _Limited:
    """A file as tarfile reads headers in it. left: bytes that may still be read for the headers of one entry."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self.left = file, size, _MOST_OF_HEADERS
        self.tell = file.tell

    def read(self, length: int) -> bytes:
        self.left -= length
        if length < 0 or self.left < 0:
            raise tarfile.ReadError(f"headers of more than {_MOST_OF_HEADERS:,} bytes")
        return self._file.read(length)

    def seek(self, offset: int) -> int:
        if offset < 0:
            raise tarfile.ReadError(_NONSENSE)
        # No further than the end, where there is nothing to be read either: the system takes no number of any size.
        return self._file.seek(min(offset, self._size))


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
    size = block[124:136].partition(b"\0")[0].strip()
    checksum = block[148:156].partition(b"\0")[0].strip()
    if len(block) < _BLOCK or not (size.isdigit() and checksum.isdigit()):
        return None
    try:
        # The sum of all bytes, those of the sum itself as blanks. Adler-32 holds it modulo a prime; adding up 512
        # numbers would take longer than all else here.
        total = (zlib.adler32(block) & 0xFFFF) - 1 - sum(block[148:156]) + 8 * 32
        return int(size, 8) if (total - int(checksum, 8)) % _ADLER == 0 else None
    except ValueError:
        return None


def _size_of(block: bytes) -> int | None:
    """The size that a header gives, in whatever way, as _sound."""
    try:
        return tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape").size
    except tarfile.TarError:
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
