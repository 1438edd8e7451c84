"""What pairs do files named alike make: <key>.jpg, <key>.txt, <key>.json? In webdataset tars, or in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from clipsel_core.errors import PoolFormatError, counted, reason_of
from clipsel_core.pool.conventions import (
    IMAGE_ENDINGS,
    IMAGES_END,
    LARGEST_JSON,
    LONGEST_CAPTION,
    caption_in,
    clean_text,
    facts_in,
    is_hidden,
    split_key,
)
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.members import DAMAGE, Member, Members
from clipsel_core.pool.sources.record import Record, Source, fields_of_json, source_of_files
from clipsel_core.tasks import in_order

_KINDS = {**dict.fromkeys(IMAGE_ENDINGS, "image"), ".txt": "txt", ".json": "json"}
# Bytes of samples whose files do not lie next to each other, while the rest of them is awaited.
_HELD_BYTES = 256 << 20
_BYTES_OF_A_SAMPLE = 1024
# Files of one key that are held: where keys have dots, all files may have the same.
_MOST_FILES = 1 << 16
# Keys of pairs without a json that are remembered, in case one comes later.
_MOST_BARE = 1 << 20
_CAPTIONS_AT_ONCE = 32
_APART = "no image or no caption next to it: files of a key that lie further apart in the tar are not joined"
_LATE_JSON = "a json that lies apart from its image: the pair was made without the uid and the rest that it says"
_TWICE = "its key is repeated in the tar, and which of its files belong together cannot be told"


@dataclass(slots=True)
class Sample:
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

    def join(self, other: Sample) -> None:
        """Takes the files of another that it has not."""
        for name in ("place", "caption", "facts", "dotted", "json_place"):
            setattr(self, name, getattr(self, name) or getattr(other, name))
        self.endings |= other.endings

    def merged(self) -> Iterator[Sample]:
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
                yield Sample(self.key + stem, fault=fault, position=self.position)


class Samples:
    """The samples of a tar, in the order in which they are complete, and what is wrong with the tar as a last one.

    Whose files lie apart, as where all images come first and all captions after, are put together where the tar ends. A
    key that is repeated is another sample, and a fault where what belongs to which cannot be told.

    keep: also the images' bytes, of samples whose files lie together. captions: also those; else a sample is complete
    with its json. Raises: OSError.
    """

    def __init__(self, tar: Members, size: int, *, keep: bool = False, captions: bool = True) -> None:
        self._tar, self._size, self._keep, self._captions = tar, size, keep, captions
        self._apart: dict[str, Sample] = {}
        self._bare = set[str]()
        self._held = self._position = 0
        # The last of several samples in a row with the same key, and whether they differ in their files.
        self._twin: Sample | None = None
        self._differ = False

    def __iter__(self) -> Iterator[Sample]:
        sample: Sample | None = None
        tar = self._tar
        try:
            for member in tar:
                key, ending = split_key(member.name)
                if sample is None or key != sample.key or ending in sample.endings or len(sample.endings) > _MOST_FILES:
                    if not key or key[-1] == "/" or (("/." in key or key[0] == ".") and is_hidden(key)):
                        if member.fault:
                            lost = f"{member.fault} at byte {member.offset:,}"
                            lost += ", and the file that it describes is not read"
                            yield Sample("", fault=lost, position=self._position)
                        continue
                    odd = sample is None or sample.dotted or sample.fault or self._twin or self._apart
                    if sample and not odd and key != sample.key and self._is_complete(sample):
                        # As in nearly all tars: nothing else has to be looked at.
                        yield self._noted(sample)
                    elif sample:
                        yield from self._closed(sample, again=key == sample.key)
                    sample = Sample(key)
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
            yield Sample("", fault=fault, position=self._position)

    def _take(self, sample: Sample, member: Member, ending: str) -> None:
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

    def _is_complete(self, sample: Sample) -> bool:
        if not self._captions:
            return ".json" in sample.endings and sample.place is not None
        return sample.place is not None and bool(sample.caption or caption_in(sample.facts))

    def _closed(self, sample: Sample, *, again: bool) -> Iterator[Sample]:
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

    def _settled(self, sample: Sample) -> Iterator[Sample]:
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

    def _noted(self, sample: Sample) -> Sample:
        """The sample; its key is remembered where a json of it may come yet."""
        if ".json" not in sample.endings and len(self._bare) < _MOST_BARE:
            self._bare.add(sample.key)
        return sample

    def _let_go(self, fault: str) -> Iterator[Sample]:
        """The samples whose files lie apart, as far as they have come by. fault: of those that are not complete."""
        for sample in self._apart.values():
            sample.position = self._position
            if sample.place is None and ".json" in sample.endings and sample.key in self._bare:
                sample.fault = sample.fault or _LATE_JSON
            if self._captions and not self._is_complete(sample):
                sample.fault = sample.fault or fault
            yield sample
        self._apart, self._held = {}, 0


def open_tars(base: Place, names: tuple[str, ...]) -> Source:
    """The pairs of these tars, which lie below `base`. A remote tar is read once from end to end, images and all.

    Raises: PoolFormatError where not one of them is a tar; OSError where one cannot be read.
    """
    found = ""
    for name in names:
        # One that begins as a tar is enough: a damaged one is its own fault, not the source's.
        try:
            with (base / name).open() as raw:
                next(iter(Members(raw, (base / name).size())), None)
            break
        except DAMAGE as error:
            found = found or str(error)
    else:
        remedy = "give tars that are not compressed, or another --format"
        raise PoolFormatError(base / names[0], expected="a tar", found=found, remedy=remedy)
    read, glance = (partial(_read_tar, base, names, names_only=only) for only in (False, True))
    return source_of_files("webdataset", base, names, read, f"webdataset, {counted(len(names), 'tars')}", glance=glance)


def _read_tar(base: Place, names: tuple[str, ...], part: int, *, names_only: bool) -> Iterator[Record]:
    name = names[part]
    try:
        size = (base / name).size()
        with (base / name).open() as raw:
            keep = base.remote and not names_only
            for sample in Samples(Members(raw, size), size, keep=keep, captions=not names_only):
                if sample.fault or sample.place is None:
                    files = " and ".join(f"{sample.key}{ending}" for ending in list(sample.endings)[:3])
                    fault = sample.fault or f"a key without an image: {files}; {IMAGES_END}"
                    yield Record(sample.key, name, fault=fault, position=sample.position)
                    continue
                yield Record(
                    key=sample.key,
                    file=name,
                    caption=sample.caption or caption_in(sample.facts),
                    offset=sample.place[0],
                    length=sample.place[1],
                    data=sample.data,
                    position=sample.position,
                    **fields_of_json(sample.facts),
                )
    except OSError as error:
        # A tar that comes to an end is damage, and listed; a store or a disk that fails is not the tar's fault.
        remedy = "start again when it can be: finished shards are kept"
        found = reason_of(error)
        raise PoolFormatError(base / name, expected="a tar that can be read", found=found, remedy=remedy) from error


def open_folder(base: Place) -> Source:
    """The images below `base`, at any depth, in the order of their names; a pair's key is its path. A .txt beside no
    image comes after them, as a fault.

    A .json beside an image, as img2dataset writes them, is read too: uid, url and caption.
    Raises: PoolFormatError where none has either.
    """
    files = base.files(*IMAGE_ENDINGS)
    names, sizes = [name for name, _ in files], [size for _, size in files]
    # By the name with its ending in lower case, how it is spelt; a name spelt so comes last, and goes before others.
    texts = {_with_ending(name, name[name.rindex(".") :].lower()): name for name, _ in base.files(".txt", ".json")}
    facts = sum(_with_ending(name, ".json") in texts for name in names)
    taken = {_with_ending(name, ".txt") for name in names}
    if not facts and texts.keys().isdisjoint(taken):
        expected, found = "a .txt or .json beside each image", ", ".join(sorted(texts.values())[:3]) or "none"
        remedy = "give the table of captions instead of the folder"
        raise PoolFormatError(base, expected=expected, found=found, remedy=remedy)
    said = f"a folder of {counted(len(names), 'images')}, captions from the .txt beside each"
    said += f" and uids from the .json of {f'{facts:,}' if facts < len(names) else 'each'}" * (facts > 0)
    lone = sorted(name for text, name in texts.items() if text.endswith(".txt") and text not in taken)
    read, rows = partial(_read_folder, base, names, texts, lone), (len(names) + len(lone),)
    return source_of_files("folder", base, names, read, said, lengths=sizes, parts=("",), sizes=rows)


def _read_folder(base: Place, names: list[str], texts: dict[str, str], lone: list[str], _: int) -> Iterator[Record]:
    def beside(name: str, ending: str, most: int) -> bytes:
        try:
            file = texts.get(_with_ending(name, ending))
            return (base / file).read(0, most) if file else b""
        except FileNotFoundError:
            return b""

    def described(name: str) -> Record:
        """An image with what lies beside it, or what is wrong with that."""
        key = clean_text(os.fsencode(name))
        try:
            said = facts_in(beside(name, ".json", LARGEST_JSON))
            caption = clean_text(beside(name, ".txt", LONGEST_CAPTION)).strip()
        except OSError as error:
            return Record(key, key, fault=f"its caption cannot be read: {error.strerror or error}")
        return Record(key, key, caption=caption or caption_in(said).strip(), **fields_of_json(said))

    with ThreadPoolExecutor(_CAPTIONS_AT_ONCE if base.remote else 1) as threads:
        found = in_order(names, lambda name: threads.submit(described, name), 2 * _CAPTIONS_AT_ONCE)
        for number, (name, record) in enumerate(found):
            fault = record.fault or ("" if record.key == name else "its name is not UTF-8")
            yield replace(record, fault=fault, position=number)
    for number, name in enumerate(lone, len(names)):
        key = clean_text(os.fsencode(name))
        yield Record(key, key, fault=f"a caption without an image: {key}; {IMAGES_END}", position=number)


def _with_ending(name: str, ending: str) -> str:
    return name[: name.rindex(".")] + ending
