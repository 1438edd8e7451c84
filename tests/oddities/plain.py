"""What does an odd input hold? Read slowly, with Python's own modules: what clipsel reads is compared with this."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
import string
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zlib import crc32

PICTURES = ("jpg", "jpeg", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Row(NamedTuple):
    """A row of a source. rejected: then nothing else counts. uid: 32 digits, or nothing for a derived one.

    image: its bytes, None where it has none.
    """

    rejected: bool = False
    key: str = ""
    caption: str = ""
    uid: str = ""
    image: bytes | None = None

    def __str__(self) -> str:
        image = "none" if self.image is None else f"{len(self.image)} bytes, {crc32(self.image):08x}"
        return (
            "rejected" if self.rejected else f"{self.key!r}, {self.caption!r}, {self.uid or 'derived'}, image {image}"
        )


REJECTED = Row(rejected=True)


def decoded(data: bytes) -> str:
    """Text by its byte order mark; bytes that mean nothing are lone halves of characters."""
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    return data.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "replace")


def is_broken(text: str) -> bool:
    """Whether text has bytes in it that could not be decoded."""
    return any("\udc80" <= letter <= "\udcff" for letter in text)


def said(value: Any) -> str:
    """A value as a caption: of a list the first that says something."""
    if isinstance(value, bytes):
        return decoded(value)
    if isinstance(value, list):
        return next((text for text in map(said, value) if text.strip()), "")
    if value is None or isinstance(value, dict) or value != value:
        return ""
    return str(value)


def whole(text: str) -> str:
    """Text as a file can hold it: JSON may speak of halves of characters, bytes may mean nothing."""
    return re.sub("[\ud800-\udfff]", "?", shown(text))


def uid_of(value: Any, *, short: bool = False) -> str:
    """32 digits of a uid, nothing where it is none. short: fewer digits are filled up with zeros."""
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, bytes):
        is_text = len(value) != 16 or all(32 <= byte < 127 for byte in value)
        return uid_of(decoded(value), short=short) if is_text else value.hex()
    if not isinstance(value, str):
        return ""
    parts = value.split("-")
    digits = "".join(parts)
    if not digits or set(digits) - set(string.hexdigits):
        return ""
    if len(parts) == 1 and (len(digits) == 32 or (short and len(digits) < 32)):
        return digits.lower().zfill(32)
    return digits.lower() if [len(part) for part in parts] == [8, 4, 4, 4, 12] else ""


def read_fields(text: str, *, mark: str, quoted: bool, end: str) -> list[list[str]]:
    """The fields of each line of a csv or tsv that is not blank."""
    if quoted:
        return [fields for fields in csv.reader(io.StringIO(text, newline=""), delimiter=mark) if fields]
    return [line.split(mark) for line in text.split(end) if line]


def read_table(path: Path, columns: dict[str, str], **form: Any) -> list[Row]:
    """The rows of a csv or tsv. columns: names by what they hold. form: as read_fields takes it."""
    head, *lines = read_fields(decoded(path.read_bytes()), **form)
    rows = []
    for fields in lines:
        if len(fields) < len(head) or any(fields[len(head) :]):
            rows.append(REJECTED)
        else:
            rows.append(row_of(path.parent, dict(zip(head, fields, strict=False)), columns))
    return rows


def read_json_lines(path: Path, columns: dict[str, str], end: str) -> list[Row]:
    """The rows of a .jsonl."""
    rows = []
    for line in decoded(path.read_bytes()).split(end):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        rows.append(row_of(path.parent, values, columns) if isinstance(values, dict) else REJECTED)
    return rows


def row_of(folder: Path, values: dict[str, Any], columns: dict[str, str]) -> Row:
    """A row of a table of paths."""
    path, caption = said(values.get(columns["image"])).strip(), said(values.get(columns["text"]))
    if not path or is_broken(path) or is_broken(caption):
        return REJECTED
    file = folder / path
    key = said(values.get(columns.get("key", "\0"))) or path
    uid = uid_of(values.get(columns.get("uid", "\0")))
    return Row(False, whole(key), whole(caption), uid, file.read_bytes() if file.is_file() else None)


def is_hidden(name: str) -> bool:
    return any(part[0] == "." for part in name.split("/") if part not in ("", ".", ".."))


def read_folder(folder: Path) -> list[Row]:
    """The pairs of a folder of images with a .txt or .json beside each."""
    files = []
    for inner, _, names in os.walk(folder):
        files += [os.path.relpath(os.path.join(inner, name), folder) for name in names]
    beside = {}
    for name in files:
        stem, ending = os.path.splitext(name)
        if not is_hidden(name) and ending.lower() in (".txt", ".json"):
            beside[stem, ending.lower()] = name
    rows, taken = [], set()
    for name in sorted(files):
        stem, ending = os.path.splitext(name)
        if is_hidden(name) or ending[1:].lower() not in PICTURES:
            continue
        taken.add(stem)
        text, facts = (
            (folder / beside[stem, kind]).read_bytes() if (stem, kind) in beside else b"" for kind in (".txt", ".json")
        )
        caption, uid = described(text, facts)
        broken = is_broken(name) or is_broken(caption)
        row = Row(False, name, whole(caption.strip()), uid, (folder / name).read_bytes())
        rows.append(REJECTED if broken else row)
    return rows + [REJECTED for stem, kind in beside if kind == ".txt" and stem not in taken]


def described(text: bytes, facts: bytes, *, short: bool = False) -> tuple[str, str]:
    """The caption and uid of an image with this .txt and .json beside it."""
    try:
        known = json.loads(facts)
    except ValueError:
        known = {}
    known = known if isinstance(known, dict) else {}
    caption = decoded(text)
    if not caption.strip():
        caption = said(known.get("caption") or known.get("text"))
    return caption, uid_of(known.get("uid"), short=short)


@dataclass
class Sample:
    """Files of a tar that belong together, by what comes after the key."""

    key: str
    files: dict[str, bytes | None] = field(default_factory=dict)
    rejected: bool = False

    @property
    def image(self) -> bytes | None:
        return next((data for end, data in self.files.items() if end[1:] in PICTURES), None)

    def row(self, *, short: bool = False) -> Row:
        if self.rejected or self.image is None or None in self.files.values():
            return REJECTED
        caption, uid = described(self.files.get(".txt") or b"", self.files.get(".json") or b"", short=short)
        return REJECTED if is_broken(caption) else Row(False, shown(self.key), whole(caption), uid, self.image)


def shown(text: str) -> str:
    """Text with a sign in place of what could not be decoded."""
    return re.sub("[\udc80-\udcff]", "\ufffd", text)


def read_tar(path: Path, *, several: bool, captions: bool = True) -> list[Row]:
    """The pairs of a tar, and a rejected one where it is damaged. several: whether others may lie behind its end.

    captions: whether a pair is whole with these; else with its json, as for a pool, whose short uids count.
    """
    files, damaged = tar_files(path, several=several)
    rows = [REJECTED] * damaged
    apart: dict[str, Sample] = {}
    for run in same_keys(files):
        # What an image was lost to: the key ends at the first dot.
        for sample in run:
            rows += [REJECTED] * lost_in(sample)
        kept = [sample for sample in run if not only_inner(sample)]
        differ = False
        for sample, following in zip(kept, [*kept[1:], None][: len(kept)], strict=True):
            differ = differ or (following is not None and list(following.files) != list(sample.files))
            sample.rejected = differ
        for sample in kept:
            cut = None in sample.files.values()
            done = is_whole(sample, captions=captions)
            before = apart.get(sample.key)
            if not (done or cut or sample.rejected) and before and not (before.files.keys() & sample.files.keys()):
                before.files |= sample.files
            elif done or cut or sample.rejected or before:
                if before:
                    before.rejected = sample.rejected = True
                rows.append(sample.row(short=not captions))
            else:
                apart[sample.key] = sample
    return rows + [sample.row(short=not captions) for sample in apart.values()]


def tar_files(path: Path, *, several: bool) -> tuple[list[tuple[str, bytes | None]], bool]:
    """The files of a tar by name, None for the bytes of one that is cut off; and whether the tar is damaged."""
    data, files, end, tar = path.read_bytes(), [], 0, None
    try:
        with tarfile.open(path, "r:", ignore_zeros=several) as tar:
            while entry := tar.next():
                end = entry.offset_data + -(-entry.size // 512) * 512 * entry.isreg()
                if entry.isfile():
                    content = data[entry.offset_data : entry.offset_data + entry.size]
                    files.append((entry.name, content if len(content) == entry.size else None))
    except tarfile.TarError:
        return files, True
    return files, len(data) < end + 512 or any(data[end : end + 512])


def same_keys(files: list[tuple[str, bytes | None]]) -> Iterator[list[Sample]]:
    """Samples next to each other in a tar: several with one key where a file of it comes again."""
    run: list[Sample] = []
    for name, data in files:
        name = name.removeprefix("./")
        stem = name[name.rfind("/") + 1 :].split(".")[0]
        key = name[: name.rfind("/") + 1] + stem
        if not stem or is_hidden(name):
            continue
        if run and run[0].key != key:
            yield run
            run = []
        ending = name[len(key) :].lower()
        if not run or ending in run[-1].files:
            run.append(Sample(key))
        run[-1].files[ending] = data
    if run:
        yield run


def inner_stems(sample: Sample) -> dict[str, set[str]]:
    """In a.1.jpg a.1.txt: {.1: {jpg, txt}}."""
    found: dict[str, set[str]] = {}
    for ending in sample.files:
        stem, _, last = ending.rpartition(".")
        if stem and last in (*PICTURES, "txt", "json"):
            found.setdefault(stem, set()).add(last)
    return found


def lost_in(sample: Sample) -> int:
    """How many images are not their own key's, for a dot in their names."""
    stems = [kinds for kinds in inner_stems(sample).values() if kinds & set(PICTURES)]
    return sum(sample.image is None or len(kinds) > 1 for kinds in stems)


def only_inner(sample: Sample) -> bool:
    """Whether all files are an image's that was lost, or would be if it were there."""
    dotted = any(ending.count(".") > 1 for ending in sample.files)
    return dotted and not any(end[1:] in (*PICTURES, "txt", "json") for end in sample.files)


def is_whole(sample: Sample, *, captions: bool) -> bool:
    if sample.image is None:
        return False
    if not captions:
        return ".json" in sample.files
    return bool(described(sample.files.get(".txt") or b"", sample.files.get(".json") or b"")[0])
