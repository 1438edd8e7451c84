"""Where do the files of a tar lie, and which of them belong together: <key>.jpg, <key>.txt, <key>.json?

Its headers are read in a tenth of tarfile's time; what is unusual is tarfile's.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

from clipsel_core.errors import reason_of
from clipsel_core.files import is_hidden
from clipsel_core.places import Place
from clipsel_core.pool.conventions import (
    IMAGE_ENDINGS,
    LARGEST_JSON,
    LONGEST_CAPTION,
    caption_in,
    clean_text,
    facts_in,
    split_key,
)

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

_KINDS = {**dict.fromkeys(IMAGE_ENDINGS, "image"), ".txt": "txt", ".json": "json"}
# Bytes of samples whose files do not lie next to each other, while the rest of them is awaited.
_HELD_BYTES = 256 << 20
_BYTES_OF_A_SAMPLE = 1024
# Files of one key that are held: where keys have dots, all files may have the same.
_MOST_FILES = 1 << 16
# Keys of pairs without a json that are remembered, in case one comes later.
_MOST_BARE = 1 << 20
_APART = "no image or no caption next to it: files of a key that lie further apart in the tar are not joined"
_LATE_JSON = "a json that lies apart from its image: the pair was made without the uid and the rest that it says"
_TWICE = "its key is repeated in the tar, and which of its files belong together cannot be told"


class TarMember(NamedTuple):
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

    def __iter__(self) -> Iterator[TarMember]:
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
                yield TarMember("", self.end, 0, f"a header of {size:,} bytes")
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

    def read(self, member: TarMember, most: int = -1) -> bytes:
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

    def _unusual(self) -> Iterator[tuple[TarMember | None, int]]:
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
                    yield TarMember(entry.name, entry.offset_data, entry.size) if entry.isfile() else None, end
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


def damage_at_a_glance(tar: Place) -> str:
    """What is wrong with a tar that is empty, cut off or none, as its first header and its end tell; else nothing."""
    try:
        with tar.open(in_places=True) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            next(iter(Members(file, size)), None)
            file.seek(max(0, size - tarfile.BLOCKSIZE))
            return "" if not file.read().strip(b"\0") else "it has no end mark: it may be cut off"
    except (*DAMAGE, OSError) as error:
        return f"it cannot be read: {reason_of(error)}"


@dataclass(slots=True)
class TarSample:
    """The files of a tar that belong together. place, json_place: offset and length of the image, and of the json.

    data: the image's bytes, where kept. caption: of the .txt. endings: of all its files, in their order.
    fault: why it is no pair. position: how far the tar has been read. held: about how many bytes of memory it takes.
    """

    key: str
    place: tuple[int, int] | None = None
    json_place: tuple[int, int] | None = None
    data: bytes | None = None
    caption: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    endings: dict[str, None] = field(default_factory=dict)
    dotted: bool = False
    fault: str = ""
    position: int = 0
    held: int = _BYTES_OF_A_SAMPLE

    def join(self, other: TarSample) -> None:
        """Takes the files of another that it has not."""
        for name in ("place", "caption", "facts", "dotted", "json_place"):
            setattr(self, name, getattr(self, name) or getattr(other, name))
        self.endings |= other.endings

    def merged(self) -> Iterator[TarSample]:
        """The pairs that were lost in this one: as a key ends at the first dot, a.1.jpg and a.2.jpg have the same."""
        stems: dict[str, set[str]] = {}
        for ending in self.endings:
            stem, dot, last = ending.rpartition(".")
            if stem and dot + last in _KINDS:
                stems.setdefault(stem, set()).add(dot + last)
        for stem, lasts in stems.items():
            image = next((last for last in IMAGE_ENDINGS if last in lasts), "")
            # Beside an image of the key's own, one such as .seg.png alone is no pair, but says more of this one.
            if image and (self.place is None or len(lasts) > 1):
                name = self.key + stem + image
                fault = f"its name has another dot: {name} is the file {stem}{image} of {self.key}, no image of its own"
                yield TarSample(self.key + stem, fault=fault, position=self.position)


class TarSamples:
    """The samples of a tar, in the order in which they are complete, and what is wrong with the tar as a last one.

    Whose files lie apart, as where all images come first and all captions after, are put together where the tar ends. A
    key that is repeated is another sample, and a fault where what belongs to which cannot be told.

    keep: also the images' bytes, of samples whose files lie together. captions: also those; else a sample is complete
    with its json. Raises: OSError.
    """

    def __init__(self, tar: Members, size: int, *, keep: bool = False, captions: bool = True) -> None:
        self._tar, self._size, self._keep, self._captions = tar, size, keep, captions
        self._apart: dict[str, TarSample] = {}
        self._bare = set[str]()
        self._held = self._position = 0
        # The last of several samples in a row with the same key, and whether they differ in their files.
        self._twin: TarSample | None = None
        self._differ = False

    def __iter__(self) -> Iterator[TarSample]:
        sample: TarSample | None = None
        tar = self._tar
        try:
            for member in tar:
                key, ending = split_key(member.name)
                if sample is None or key != sample.key or ending in sample.endings or len(sample.endings) > _MOST_FILES:
                    if not key or key[-1] == "/" or (("/." in key or key[0] == ".") and is_hidden(key)):
                        if member.fault:
                            lost = f"{member.fault} at byte {member.offset:,}"
                            lost += ", and the file that it describes is not read"
                            yield TarSample("", fault=lost, position=self._position)
                        continue
                    odd = sample is None or sample.dotted or sample.fault or self._twin or self._apart
                    if sample and not odd and key != sample.key and self._is_complete(sample):
                        # As in nearly all tars: nothing else has to be looked at.
                        yield self._noted(sample)
                    elif sample:
                        yield from self._closed(sample, again=key == sample.key)
                    sample = TarSample(key)
                self._position = sample.position = member.offset
                self._take(sample, member, ending)
            fault = tar.end_fault()
        except DAMAGE as error:
            on = f"on at byte {min(tar.end, self._size):,}" if self._position else "at all"
            fault = f"the tar cannot be read {on}: {error}"
        if sample:
            yield from self._closed(sample, again=False)
        yield from self._let_go("")
        if fault:
            yield TarSample("", fault=fault, position=self._position)

    def _take(self, sample: TarSample, member: TarMember, ending: str) -> None:
        """Notes one more file of a sample."""
        sample.endings[ending] = None
        kind = _KINDS.get(ending)
        if member.offset + member.size > self._size:
            sample.fault = "the tar is cut off within it"
        elif kind == "image":
            if sample.place is None:
                sample.place = member.offset, member.size
                sample.data = self._tar.read(member) if self._keep else None
        elif kind == "txt":
            if self._captions:
                text = clean_text(self._tar.read(member, LONGEST_CAPTION))
                sample.held += 4 * len(text)
                sample.caption = text if text.strip() else ""
        elif kind == "json":
            if member.size <= LARGEST_JSON:
                sample.held += 8 * member.size
                sample.facts = facts_in(self._tar.read(member))
                sample.json_place = member.offset, member.size
        elif ending.count(".") > 1:
            sample.dotted = True

    def _is_complete(self, sample: TarSample) -> bool:
        if not self._captions:
            return ".json" in sample.endings and sample.place is not None
        return sample.place is not None and bool(sample.caption or caption_in(sample.facts))

    def _closed(self, sample: TarSample, *, again: bool) -> Iterator[TarSample]:
        """What can be told once a key's files have come by. again: whether more files of its key follow."""
        if sample.dotted:
            yield from sample.merged()
            if sample.place is None and _KINDS.keys().isdisjoint(sample.endings):
                return
        before, self._twin = self._twin, sample if again else None
        if before:
            # a.jpg a.txt a.json a.jpg a.txt a.json are two pairs; in a.jpg a.txt a.json a.jpg a.txt the json may be
            # either's.
            self._differ = self._differ or list(before.endings) != list(sample.endings)
            before.fault = before.fault or _TWICE * self._differ
            yield from self._settled(before)
        if not again:
            sample.fault = sample.fault or _TWICE * self._differ
            self._differ = False
            yield from self._settled(sample)

    def _settled(self, sample: TarSample) -> Iterator[TarSample]:
        complete = self._is_complete(sample)
        before = self._apart.get(sample.key) if self._apart else None
        if before and not complete and not sample.fault and before.endings.keys().isdisjoint(sample.endings):
            before.join(sample)
            self._held += sample.held
        elif complete or sample.fault or before:
            if before:
                # In a.jpg b.jpg a.jpg a.txt b.txt a.txt the second image is not the first caption's.
                before.fault, sample.fault = before.fault or _TWICE, sample.fault or _TWICE
            yield self._noted(sample)
        else:
            sample.data = None
            self._apart[sample.key] = sample
            self._held += sample.held
            if self._held > _HELD_BYTES:
                yield from self._let_go(_APART)

    def _noted(self, sample: TarSample) -> TarSample:
        """The sample; its key is remembered where a json of it may come yet."""
        if ".json" not in sample.endings and len(self._bare) < _MOST_BARE:
            self._bare.add(sample.key)
        return sample

    def _let_go(self, fault: str) -> Iterator[TarSample]:
        """The samples whose files lie apart, as far as they have come by. fault: of those that are not complete."""
        for sample in self._apart.values():
            sample.position = self._position
            if sample.place is None and ".json" in sample.endings and sample.key in self._bare:
                sample.fault = sample.fault or _LATE_JSON
            if self._captions and not self._is_complete(sample):
                sample.fault = sample.fault or fault
            yield sample
        self._apart, self._held = {}, 0


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


def _plain(file: BinaryIO, begin: int) -> TarMember | None:
    """The file whose header `file` stands at, `begin`; None where tarfile has to look."""
    block = file.read(_BLOCK)
    if block[156:157] == _PAX:
        length = _sound(block)
        if length is None or length > _MOST_OF_A_PAX_HEADER:
            return None
        filled = -(-length // _BLOCK) * _BLOCK
        said, at = file.read(filled)[:length], 0
        # Lines of "LENGTH KEY=VALUE" that tell nothing of its file's name, place or size.
        while at < len(said):
            digits, _, rest = said[at : at + 64].partition(b" ")
            key, equals, _ = rest.partition(b"=")
            if not (digits.isdigit() and equals and key in _HARMLESS and 0 < int(digits) <= len(said) - at):
                return None
            at += int(digits)
            # Newer Pythons refuse a line that does not end where it says.
            if said[at - 1] != ord("\n"):
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
    return TarMember(name.decode(tarfile.ENCODING, "surrogateescape"), begin + _BLOCK, size)


def is_header(block: bytes) -> bool:
    """Whether a block is a header of a tar as most are: its checksum and its size are written in digits, and hold."""
    return _sound(block) is not None


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
