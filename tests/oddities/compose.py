"""Which odd input does a seed stand for? Sources, pools, lists of uids and targets, of what real ones have.

Each is a file or a folder, and what the plain reader finds in it.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.oddities import plain
from tests.oddities.plain import REJECTED, Row
from tests.pool.pictures import drawn, encoded

STEMS = (
    "a",
    "a b",
    "a#1",
    "a[1]",
    "k=v",
    "caf\u00e9",
    "\u732b",
    "a,b",
    "a;b",
    "a'b",
    'a"b',
    "a%20b",
    "a+b",
    "-a",
    "\U0001f600",
)
FOLDERS = ("pics", "in[0]", "a#b", "part=1", "two words", "\u732b", "x.y", "100%", "a,b", "#", "~")
PIECES = (
    *(
        "a dog",
        "a dog, a ball",
        'a "big" dog',
        '"big" dog',
        'a 5" nail',
        '"',
        '""',
        "it's",
        "one\ttwo",
        "\ttwo",
        "one\n",
    ),
    *(
        "one\ntwo",
        "one\r\ntwo",
        "a;b|c",
        "caf\u00e9",
        "\u732b",
        "\U0001f600 \u00e9",
        "\u2028",
        "\x85",
        "\ufeff",
        " a ",
        "\u00a0",
    ),
    *(
        "#1",
        "=1+1",
        "{}",
        "[1]",
        "null",
        "NaN",
        "\\n",
        "\\",
        "\x0b",
        "\x0c",
        "\x1c",
        "0012",
        "a\u0301",
        "",
        " ",
        "one\rtwo",
    ),
)
IMAGE_COLUMNS = ("filepath", "image", "image_path", "File_Name", "IMAGE", "path", " path")
TEXT_COLUMNS = ("title", "caption", "TEXT", "Caption", "text", "alt_text", "sentence")
EXTRA_COLUMNS = ("", "Unnamed: 0", "width", "note", "sha256", "similarity", "lang")
UID_COLUMNS = ("uid", "UID", "Uid")
ENDINGS = ("jpg", "png", "webp", "JPG", "jpeg", "jfif", "gif", "bmp", "tif", "TIFF", "avif", "Png")
ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16": b"",
    "utf-32": b"",
    "utf-16-be": codecs.BOM_UTF16_BE,
    "cp1252": b"",
}
SHARD = "00000000"


@dataclass
class Case:
    """An odd input. path: what is opened. rows: of a source; uids: of a list; both what the plain reader finds.

    recipe: what it was made of. refusable: whether an error in one line is right as well.
    pool: of each shard its name, and of each of its rows uid, caption and image.
    """

    kind: str
    path: Path
    recipe: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    uids: list[str] = field(default_factory=list)
    embeddings: np.ndarray | None = None
    pool: dict[str, list[tuple[str, str, bytes | None]]] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    refusable: bool = False


@cache
def picture(number: int) -> bytes:
    """A picture of its own for each number, as small as its format allows."""
    kind = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG", "PNG")[number % 8]
    return encoded(drawn(number, (8, 8)), kind)


def compose(seed: int, root: Path) -> Case:
    """The input that a seed stands for, below an empty folder."""
    rng = Random(seed)
    makers: Sequence[Callable[[Random, Path], Case]] = (
        *(compose_table, compose_table, compose_table, compose_image_parquet, compose_folder),
        *(compose_tars, compose_tars, compose_pool, compose_uid_list, compose_target, compose_arrays),
    )
    return rng.choice(makers)(rng, root)


def caption_of(rng: Random, number: int) -> str:
    piece = rng.choice(PIECES)
    if not piece.strip() and rng.random() < 0.3:
        return piece
    return rng.choice((f"{piece}{number}", f"{number}{piece}", f"{number} {piece} {number}", f"{number}"))


def uid_text(rng: Random, number: int, form: str) -> str:
    """A uid in one of the forms that sources have. Its number is within it."""
    value = UUID(int=(number + 1) << 64 | Random(number).getrandbits(64))
    return {
        "hex": value.hex,
        "upper": value.hex.upper(),
        "dashed": str(value),
        "dashed upper": str(value).upper(),
        "short": f"{number:x}a",
        "integer": str(number),
        "named": f"imgur_{number}",
        "empty": "",
        "braced": f"{{{value}}}",
        "repeated": "ab" * 16,
    }[form]


UID_FORMS = (
    "hex",
    "hex",
    "upper",
    "dashed",
    "dashed upper",
    "short",
    "integer",
    "named",
    "empty",
    "braced",
    "repeated",
)


def place_pictures(rng: Random, folder: Path, count: int, recipe: dict[str, Any]) -> list[str]:
    """Pictures below a folder, by their names."""
    inner = recipe["folder"] = rng.choice(("", *FOLDERS))
    names = []
    for number in range(count):
        name = os.path.join(inner, f"{rng.choice(STEMS)}{number}.{rng.choice(ENDINGS)}")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number))
        names.append(name)
    return names


def laid_out_columns(rng: Random, *, uid: bool, key: bool) -> tuple[dict[str, str], list[str]]:
    """Names by what they hold, and all of them in order."""
    columns = {"image": rng.choice(IMAGE_COLUMNS), "text": rng.choice(TEXT_COLUMNS)}
    if uid:
        columns["uid"] = rng.choice(UID_COLUMNS)
    if key:
        columns["key"] = rng.choice(("key", "__key__", "KEY"))
    names = [*columns.values(), *rng.sample(EXTRA_COLUMNS, rng.randint(0, 2))]
    rng.shuffle(names)
    if "" in names:
        names.remove("")
        names.insert(0, "")
    return columns, names


def table_rows(
    rng: Random, folder: Path, recipe: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, str], list[str]]:
    """Rows of a table of paths as dicts, the columns by what they hold, and all their names."""
    count = rng.randint(1, 7)
    columns, names = laid_out_columns(rng, uid=rng.random() < 0.6, key=rng.random() < 0.3)
    forms = recipe["uids"] = rng.sample(UID_FORMS, rng.randint(1, 3))
    rows = []
    for number, path in enumerate(place_pictures(rng, folder, count, recipe)):
        row: dict[str, Any] = {name: str(rng.choice((number, "", "x"))) for name in names}
        row[columns["image"]] = (
            path if rng.random() < 0.95 else rng.choice(("", " ", f"nowhere{number}.jpg", f"./{path}"))
        )
        row[columns["text"]] = caption_of(rng, number)
        if "uid" in columns:
            row[columns["uid"]] = uid_text(rng, number, rng.choice(forms))
        if "key" in columns:
            row[columns["key"]] = rng.choice((f"{number:09d}", f"shot.{number}", "", f"caf\u00e9{number}"))
        rows.append(row)
    return rows, columns, names


def compose_table(rng: Random, root: Path) -> Case:
    """A csv, tsv, jsonl or parquet of paths."""
    recipe: dict[str, Any] = {}
    kind = rng.choice(("csv", "csv", "tsv", "tsv", "jsonl", "parquet"))
    folder = root / rng.choice(FOLDERS)
    folder.mkdir()
    path = folder / f"{rng.choice(('t', 'a b', 'metadata', 't[1]', 'a#b'))}.{kind}"
    rows, columns, names = table_rows(rng, folder, recipe)
    case = Case(kind, path, recipe, columns=columns)
    if kind == "parquet":
        write_parquet(rng, path, rows, columns, recipe)
        case.rows = [plain.row_of(folder, row, columns) for row in rows]
    elif kind == "jsonl":
        write_json_lines(rng, case, rows)
    else:
        write_delimited(rng, case, rows, names)
    return case


def in_encoding(rng: Random, text: str, recipe: dict[str, Any]) -> bytes:
    encoding = recipe["encoding"] = rng.choice(list(ENCODINGS) if rng.random() < 0.5 else ("utf-8", "utf-8-sig"))
    return ENCODINGS[encoding] + text.encode(encoding, "ignore")


def write_delimited(rng: Random, case: Case, rows: list[dict[str, Any]], names: list[str]) -> None:
    recipe = case.recipe
    raw = case.kind == "tsv" and rng.random() < 0.4
    mark = recipe["mark"] = "\t" if raw else rng.choice(("\t" if case.kind == "tsv" else ",", ",", "\t", ";", "|"))
    end = recipe["end"] = rng.choice(("\n", "\n", "\r\n", "\r"))
    recipe["quoting"] = "none" if raw else rng.choice(("minimal", "all", "nonnumeric"))
    if raw:
        # A field in quotes throughout, or with doubled ones, could be either.
        tidy = str.maketrans(dict.fromkeys("\t\r\n"))
        rows = [{name: value.translate(tidy).replace('""', '"') for name, value in row.items()} for row in rows]
        rows = [{name: value.rstrip('"') for name, value in row.items()} for row in rows]
        lines = [mark.join(names), *(mark.join(row[name] for name in names) for row in rows)]
    else:
        quoting = {"minimal": csv.QUOTE_MINIMAL, "all": csv.QUOTE_ALL, "nonnumeric": csv.QUOTE_NONNUMERIC}
        lines = []
        for fields in (names, *([row[name] for name in names] for row in rows)):
            text = io.StringIO()
            csv.writer(text, delimiter=mark, quoting=quoting[recipe["quoting"]]).writerow(fields)
            lines.append(text.getvalue().removesuffix("\r\n"))
    for number in range(len(lines) - 1, 0, -1):
        odd = rng.random()
        if odd < 0.04:
            lines[number] += mark + "more"
        elif odd < 0.07:
            lines[number] += mark
        elif odd < 0.09:
            lines.insert(number, "")
        elif odd < 0.11:
            lines.insert(number, "short")
    text = end.join(lines) + end * rng.randint(0, 2)
    case.path.write_bytes(in_encoding(rng, text, recipe))
    case.rows = plain.read_table(case.path, case.columns, mark=mark, quoted=not raw, end=end)


def write_json_lines(rng: Random, case: Case, rows: list[dict[str, Any]]) -> None:
    end = case.recipe["end"] = rng.choice(("\n", "\n", "\r\n", "\r"))
    lines = []
    for number, row in enumerate(rows):
        text, uid = case.columns["text"], case.columns.get("uid", "")
        odd = rng.random()
        if odd < 0.1:
            row[text] = rng.choice(
                ([row[text], "more"], ["", row[text]], [], None, 7, 1.5, float("nan"), "\ud83d half")
            )
        elif odd < 0.2:
            row.pop(rng.choice([name for name in row if name not in (case.columns["image"],)]))
        elif odd < 0.25 and uid in row:
            row[uid] = rng.choice((number, None, 1.5, True, [row[uid]]))
        lines.append(json.dumps(row, ensure_ascii=rng.random() < 0.5 or "\ud83d" in str(row.get(text))))
        odd = rng.random()
        if odd < 0.05:
            lines.append(rng.choice(("{", "[1]", "null", '"text"', "[" * 9999, "", " ")))
    case.refusable = not any(case.columns["text"] in row for row in rows)
    text = end.join(lines) + end * rng.randint(0, 2)
    case.path.write_bytes(in_encoding(rng, text, case.recipe))
    case.rows = plain.read_json_lines(case.path, case.columns, end)


TEXT_TYPES = (
    "string",
    "large_string",
    "string_view",
    "dictionary",
    "binary",
    "large_binary",
    "list",
    "large_list",
    "broken",
)


def typed(values: Sequence[str], kind: str) -> pa.Array:
    """Texts as a column of one of the types that writers use."""
    if kind == "dictionary":
        return pa.array(values, pa.string()).dictionary_encode()
    if kind == "list":
        return pa.array([[value, "more"] for value in values], pa.list_(pa.string()))
    if kind == "large_list":
        return pa.array([["", value] for value in values], pa.large_list(pa.large_string()))
    if kind in ("binary", "large_binary"):
        return pa.array([value.encode() for value in values], getattr(pa, kind)())
    if kind == "broken":
        # Bytes that are no text in a column of text, as some writers leave them.
        data = pa.array([value.encode("cp1252", "ignore") for value in values], pa.binary())
        return pa.Array.from_buffers(pa.string(), len(data), data.buffers())
    return pa.array(values, getattr(pa, kind)())


def read_back(values: Sequence[str], kind: str) -> list[str]:
    """What a column says for its rows."""
    if kind == "broken":
        return [value.encode("cp1252", "ignore").decode("utf-8", "surrogateescape") for value in values]
    if "list" in kind:
        return [value if value.strip() else "more" * (kind == "list") for value in values]
    return [plain.decoded(value.encode()) for value in values] if "binary" in kind else list(values)


UID_TYPES = ("string", "large_string", "string_view", "dictionary", "binary", "fixed", "uuid", "int")


def typed_uids(values: Sequence[str], kind: str) -> tuple[pa.Array, list[str]]:
    """Uids as a column, and what they are then as text: UUIDs have 32 digits all, integers are no uids."""
    if kind == "int":
        return pa.array(range(len(values)), pa.int64()), [str(number) for number in range(len(values))]
    if kind in ("fixed", "uuid"):
        known = [UUID(plain.uid_of(value, short=True) or f"{number:032x}") for number, value in enumerate(values)]
        array = pa.array([value.bytes for value in known], pa.binary(16))
        return array if kind == "fixed" else pa.ExtensionArray.from_storage(pa.uuid(), array), [v.hex for v in known]
    return typed(values, kind), list(values)


def write_parquet(
    rng: Random, path: Path, rows: list[dict[str, Any]], columns: dict[str, str], recipe: dict[str, Any]
) -> None:
    """Writes the rows, and makes them what is read then."""
    arrays: dict[str, pa.Array] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        kind = recipe[f"type of {name}"] = "string"
        if name == columns["text"]:
            kind = rng.choice(TEXT_TYPES)
        elif name == columns["image"]:
            kind = rng.choice(TEXT_TYPES[:6])
        elif name == columns.get("uid"):
            kind = rng.choice(UID_TYPES)
        recipe[f"type of {name}"] = kind
        if name == columns.get("uid"):
            arrays[name], values = typed_uids(values, kind)
        elif name in columns.values():
            arrays[name], values = typed(values, kind), read_back(values, kind)
        else:
            arrays[name] = pa.array(values)
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    pq.write_table(pa.table(arrays), path, row_group_size=rng.choice((1, 2, 100)))


def compose_image_parquet(rng: Random, root: Path) -> Case:
    """One parquet or more with images inside."""
    recipe: dict[str, Any] = {"files": rng.randint(1, 3)}
    case = Case("parquet", root, recipe)
    number, image_column = 0, rng.choice(("image", "jpg", "img", "Image"))
    for part in range(recipe["files"]):
        columns, names = laid_out_columns(rng, uid=rng.random() < 0.5, key=rng.random() < 0.3)
        columns["image"], names = (
            image_column,
            [name for name in names if name and name not in ("width", columns["image"])],
        )
        rows, images, paths = [], [], []
        for _ in range(rng.randint(1, 5)):
            images.append(
                picture(number) if rng.random() < 0.9 else rng.choice((None, b"no picture", picture(number)[:20]))
            )
            paths.append(rng.choice((f"{number}.jpg", None, f"a b/{number}.jpg")))
            row = {name: f"{name}{number}" for name in names} | {columns["text"]: caption_of(rng, number)}
            row[image_column] = ""
            if "uid" in columns:
                row[columns["uid"]] = uid_text(rng, number, rng.choice(UID_FORMS))
            rows.append(row)
            number += 1
        name = f"{rng.choice(('train', 'a#b', 'x[0]', 'p=1'))}-{part:05d}.parquet"
        described = {key: value for key, value in columns.items() if key != "image"}
        write_parquet(rng, root / name, rows, {"image": "\0", **described}, recipe)
        struct = recipe.setdefault("struct", rng.random() < 0.6)
        inside = [{"bytes": data, "path": path} for data, path in zip(images, paths, strict=True)]
        kind = pa.struct({"bytes": pa.binary(), "path": pa.string()}) if struct else pa.binary()
        table = pq.read_table(root / name, use_threads=False)
        table = table.drop_columns([image_column]).append_column(
            image_column, pa.array(inside if struct else images, kind)
        )
        if rng.random() < 0.3:
            table = table.add_column(0, "hash", pa.array([bytes([n] * 20) for n in range(len(rows))], pa.binary()))
        pq.write_table(table, root / name, row_group_size=rng.choice((1, 2, 100)))
        for at, (row, data, path) in enumerate(zip(rows, images, paths, strict=True)):
            caption, path = plain.said(row[columns["text"]]), (path or "") * struct
            key = plain.said(row.get(columns.get("key", "\0"))) or path or f"{name}:{at}"
            uid = plain.uid_of(row.get(columns.get("uid", "\0")))
            lost = plain.is_broken(caption) or (data is None and not path)
            case.rows.append(REJECTED if lost else Row(False, key, caption, uid, data))
    case.refusable = all(
        row.image is None or not any(row.image == picture(n) for n in range(number)) for row in case.rows
    )
    return case


def pair_files(rng: Random, number: int) -> dict[str, bytes]:
    """The files of a pair by ending, in order, some of them missing or odd."""
    caption, form = caption_of(rng, number), rng.choice(UID_FORMS)
    text = caption.encode()
    if rng.random() < 0.15:
        encoding = rng.choice(list(ENCODINGS))
        text = ENCODINGS[encoding] + caption.encode(encoding, "ignore")
    uid: Any = uid_text(rng, number, form)
    facts: Any = {"caption": f"{number} in the json", "uid": int(uid) if form == "integer" else uid, "sizes": [1, 2]}
    if rng.random() < 0.1:
        facts = rng.choice(
            (
                {"text": f"{number}"},
                [1],
                "x",
                {"uid": uid},
                {"caption": None, "uid": uid},
                {"caption": ["", f"{number}"]},
            )
        )
    data = json.dumps(facts).encode() if rng.random() < 0.95 else rng.choice((b"", b"{", b"\xff\xfe", b"null"))
    if rng.random() < 0.05:
        data = codecs.BOM_UTF8 + data
    files = {f".{rng.choice(ENDINGS)}": picture(number), ".txt": text, ".json": data}
    for ending, share in ((".txt", 0.1), (".json", 0.2), (next(iter(files)), 0.05)):
        if rng.random() < share:
            del files[ending]
    if rng.random() < 0.08:
        files[rng.choice((".cls", ".seg.png", ".npy", ".md5"))] = b"7"
    order = list(files)
    if rng.random() < 0.3:
        rng.shuffle(order)
    return {(ending.upper() if rng.random() < 0.05 else ending): files[ending] for ending in order}


def compose_folder(rng: Random, root: Path) -> Case:
    """A folder of images with what lies beside each."""
    recipe: dict[str, Any] = {}
    folder = root / rng.choice(FOLDERS)
    inner = folder / rng.choice(("", *FOLDERS))
    inner.mkdir(parents=True)
    for number in range(rng.randint(1, 6)):
        stem = f"{rng.choice((*STEMS, 'a.b', '._a', '.a'))}{number}"
        for ending, data in pair_files(rng, number).items():
            (inner / (stem + ending)).write_bytes(data)
        if rng.random() < 0.05:
            (inner / f"._{stem}.jpg").write_bytes(b"\0\5\x16\7")
    if rng.random() < 0.1:
        with open(os.fsencode(inner) + b"/b\xff.jpg", "wb") as file:
            file.write(picture(99))
        recipe["name"] = "not UTF-8"
    (inner / "first.jpg").write_bytes(picture(98))
    (inner / "first.txt").write_bytes(b"the first")
    for name in rng.sample(("Thumbs.db", ".DS_Store", "readme.md"), rng.randint(0, 2)):
        (inner / name).write_bytes(b"x")
    return Case("folder", folder, recipe, plain.read_folder(folder))


TAR_FORMS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def tar_members(rng: Random, numbers: Sequence[int], recipe: dict[str, Any]) -> list[tuple[str, bytes]]:
    """The files of a tar, some of them laid out oddly."""
    layout = recipe.setdefault("layout", [])
    order = rng.choice(("beside", "beside", "beside", "images first", "shuffled", "interleaved"))
    layout.append(order)
    before = rng.choice(("", "", "./", "part/", "./a.b/", "a b/"))
    keys, files = [], [pair_files(rng, number) for number in numbers]
    for number in numbers:
        usual = f"{number:09d}"
        key = before + rng.choice((usual, usual, f"{rng.choice(STEMS)}{number}", f"shot-2023.{number}.00"))
        if rng.random() < 0.05:
            key = before + rng.choice((f"._{number}", f".h{number}", f"b\udcff{number}", "long" * 30 + f"{number}"))
        keys.append(key)
    if len(keys) > 1 and rng.random() < 0.2:
        # The same key again, as where two shards were merged; at once or later.
        again = rng.randrange(1, len(keys))
        keys[again] = keys[0]
        layout.append(f"key of {again} is that of 0")
    pairs = [[(key + end, data) for end, data in some.items()] for key, some in zip(keys, files, strict=True)]
    if order == "images first":
        flat = [item for pair in pairs for item in pair]
        return [item for item in flat if is_picture(item[0])] + [item for item in flat if not is_picture(item[0])]
    if order == "shuffled":
        flat = [item for pair in pairs for item in pair]
        rng.shuffle(flat)
        return flat
    if order == "interleaved":
        return [pair[turn] for turn in range(4) for pair in pairs if turn < len(pair)]
    return [item for pair in pairs for item in pair]


def is_picture(name: str) -> bool:
    return name.rpartition(".")[2].lower() in plain.PICTURES


def tar_of(rng: Random, members: Sequence[tuple[str, bytes]], recipe: dict[str, Any]) -> bytes:
    form = rng.choice(list(TAR_FORMS))
    recipe.setdefault("format", []).append(form)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=TAR_FORMS[form]) as archive:
        for name, data in members:
            odd = rng.random()
            if odd < 0.03:
                folder = tarfile.TarInfo(f"folder{odd}")
                folder.type = rng.choice((tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE))
                folder.linkname = "elsewhere" if folder.type != tarfile.DIRTYPE else ""
                archive.addfile(folder)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = rng.choice((0, 1700000000, 1700000000.25))
            try:
                archive.addfile(info, io.BytesIO(data))
            except ValueError:
                # A name that this format has no room for.
                continue
    return raw.getvalue()


def write_odd_tar(
    rng: Random,
    path: Path,
    members: Sequence[tuple[str, bytes]],
    more: Sequence[tuple[str, bytes]],
    recipe: dict[str, Any],
) -> bool:
    """Writes a tar, perhaps damaged. more: of another one that may lie behind its end. Says whether it does."""
    data, odd = tar_of(rng, members, recipe), rng.random()
    several = False
    if odd < 0.1:
        data = data[: rng.randrange(len(data))]
        recipe.setdefault("cut", []).append(len(data))
    elif odd < 0.2:
        data += tar_of(rng, more, recipe)
        several = True
        recipe["concatenated"] = True
    elif odd < 0.25:
        at = 512 * rng.randrange(len(data) // 512)
        data = data[:at] + b"?" * 512 + data[at + 512 :]
        recipe.setdefault("damaged", []).append(at)
    elif odd < 0.27:
        data = data.rstrip(b"\0")
        recipe["no end"] = True
    path.write_bytes(data)
    return several


def compose_tars(rng: Random, root: Path) -> Case:
    """A tar or several."""
    recipe: dict[str, Any] = {}
    folder = root / rng.choice(FOLDERS)
    folder.mkdir()
    count, number = rng.randint(1, 2), 0
    case = Case("webdataset", folder, recipe)
    for part in range(count):
        sizes = rng.randint(1, 5), rng.randint(1, 3)
        numbers = [range(number, number + sizes[0]), range(number + sizes[0], number + sum(sizes))]
        number += sum(sizes)
        path = folder / f"{rng.choice(('', 'a#', 'x[0]', 'p=1 '))}{part:05d}.{rng.choice(('tar', 'tar', 'TAR'))}"
        several = write_odd_tar(rng, path, *(tar_members(rng, some, recipe) for some in numbers), recipe)
        case.rows += plain.read_tar(path, several=several)
    if rng.random() < 0.1:
        (folder / "._00000.tar").write_bytes(b"\0\5\x16\7")
    case.refusable = all(row.rejected for row in case.rows)
    return case


def compose_pool(rng: Random, root: Path) -> Case:
    """A pool in DataComp's layout whose shards differ, with tars."""
    recipe: dict[str, Any] = {}
    case = Case("pool", root, recipe)
    (root / "metadata").mkdir()
    (root / "shards").mkdir()
    number = 0
    for part in range(rng.randint(1, 3)):
        numbers = range(number, number + rng.randint(1, 5))
        number += len(numbers)
        name = f"{part:08d}"
        forms = ("hex", "upper", "dashed", "dashed upper", "short")
        given = [uid_text(rng, one, rng.choice(forms)) for one in numbers]
        kind = recipe[f"uids {part}"] = rng.choice(UID_TYPES[:-1])
        array, known = typed_uids(given, kind)
        known = [plain.uid_of(value, short=True) for value in known]
        columns = {rng.choice(UID_COLUMNS): array}
        texts = [caption_of(rng, one) for one in numbers]
        kind = recipe[f"captions {part}"] = rng.choice((*TEXT_TYPES, "null", "none", "struct", "bool"))
        column = rng.choice(("text", "TEXT", "caption", "Caption"))
        if kind == "null":
            columns[column], texts = pa.nulls(len(numbers)), [""] * len(numbers)
        elif kind == "struct":
            columns[column], texts = pa.array([{"en": text} for text in texts]), [""] * len(numbers)
        elif kind == "bool":
            columns[column], texts = pa.array([True] * len(numbers)), ["true"] * len(numbers)
        elif kind == "none":
            texts = [""] * len(numbers)
        else:
            columns[column], texts = typed(texts, kind), [in_a_pool(text) for text in read_back(texts, kind)]
        if rng.random() < 0.6:
            columns[rng.choice(("url", "URL"))] = pa.array([f"https://example.org/{one}" for one in numbers])
        items = list(columns.items())
        rng.shuffle(items)
        pq.write_table(pa.table(dict(items)), root / "metadata" / f"{name}.parquet")
        rows = (
            np.random.default_rng(part)
            .standard_normal((2, len(numbers), 4))
            .astype(rng.choice((np.float16, np.float32)))
        )
        rows /= np.linalg.norm(rows.astype(np.float32), axis=2, keepdims=True).astype(rows.dtype)
        save = rng.choice((np.savez, np.savez_compressed))
        save(root / "metadata" / f"{name}.npz", l14_img=rows[0], l14_txt=rows[1])
        tar = root / "shards" / f"{name}.tar"
        members = pool_members(rng, numbers, given, recipe)
        cut = len(members) // 2
        several = write_odd_tar(rng, tar, members[: cut or 1], members[cut or 1 :], recipe)
        images = {row.uid: row.image for row in plain.read_tar(tar, several=several, captions=False) if row.uid}
        case.pool[name] = [(uid, text, images.get(uid)) for uid, text in zip(known, texts, strict=True)]
    for hidden in rng.sample(
        ("metadata/._00000000.parquet", "shards/._00000000.tar", "metadata/.x.npz"), rng.randint(0, 2)
    ):
        (root / hidden).write_bytes(b"\0\5\x16\7")
    return case


def in_a_pool(text: str) -> str:
    """A caption as it is shown: without the mark that a file of text may begin with."""
    return plain.shown(text).removeprefix("\ufeff")


def pool_members(
    rng: Random, numbers: Sequence[int], given: Sequence[str], recipe: dict[str, Any]
) -> list[tuple[str, bytes]]:
    """The files of a pool's tar, each pair with its uid in the json."""
    files: dict[str, bytes] = {}
    for number, uid in zip(numbers, given, strict=True):
        key = rng.choice(
            (f"{number:08d}", f"{number:08d}", f"./{number}", f"x.{number}", f"{rng.choice(STEMS)}{number}")
        )
        own = uid if rng.random() < 0.8 else rng.choice((uid.upper(), uid.lower()))
        image, text = (f"{key}.{rng.choice(ENDINGS)}", picture(number)), (f"{key}.txt", b"text")
        facts = (f"{key}.json", json.dumps({"uid": own}).encode())
        files |= dict(rng.sample((image, text, facts), 3))
    return list(files.items())


def compose_uid_list(rng: Random, root: Path) -> Case:
    """A list of uids as .npy, .txt, .csv or .parquet."""
    kind = rng.choice(("npy", "txt", "csv", "parquet"))
    path = root / f"{rng.choice(('keep', 'a#b', 'x[0]', 'two words'))}.{rng.choice((kind, kind, kind.upper()))}"
    forms = rng.sample(("hex", "upper", "dashed", "dashed upper", "short", "repeated"), rng.randint(1, 3))
    recipe: dict[str, Any] = {"forms": forms}
    given = [uid_text(rng, number, rng.choice(forms)) for number in range(rng.randint(0, 8))]
    rng.shuffle(given)
    case = Case("uid list", path, recipe)
    if given and rng.random() < 0.1:
        given[rng.randrange(len(given))] = rng.choice(("imgur_x1", "g" * 32, "f" * 33, "0x12", "-", "1-2"))
        case.refusable = recipe["no uid"] = True
    if kind == "npy":
        write_uid_array(rng, path, given, recipe)
    elif kind == "parquet":
        form = recipe["type"] = rng.choice((*UID_TYPES[:-1], "halves"))
        if form == "halves":
            known = [int(plain.uid_of(value, short=True) or "0", 16) for value in given]
            halves = ([value >> 64 for value in known], [value & (1 << 64) - 1 for value in known])
            names = rng.choice((("uid_hi", "uid_lo"), ("UID_HI", "UID_LO")))
            table = pa.table([pa.array(half, pa.uint64()) for half in halves], names)
            given = [f"{value:032x}" for value in known]
        else:
            array, given = typed_uids(given, form)
            table = pa.table({rng.choice(UID_COLUMNS): array, "text": pa.array(["a"] * len(given), pa.string())})
        pq.write_table(table, path)
    else:
        write_uid_text(rng, case, kind, given)
    case.uids = sorted({plain.uid_of(value, short=True) for value in given} - {""})
    return case


def write_uid_array(rng: Random, path: Path, given: Sequence[str], recipe: dict[str, Any]) -> None:
    form = recipe["dtype"] = rng.choice(("pairs", "big-endian", "U", "S", "named", "f,f"))
    known = [int(plain.uid_of(value, short=True) or "0", 16) for value in given]
    if form in "US":
        array = np.array(given, form if given else f"{form}32")
    else:
        kind = {"big-endian": ">u8,>u8", "named": [("hi", "u8"), ("lo", "u8")]}.get(form, "u8,u8")
        array = np.array([(value >> 64, value & (1 << 64) - 1) for value in known], kind)
    if form not in "US" and "no uid" in recipe:
        recipe["zero"] = True
    with open(path, "wb") as file:
        np.save(file, array)


def write_uid_text(rng: Random, case: Case, kind: str, given: Sequence[str]) -> None:
    recipe = case.recipe
    end = recipe["end"] = rng.choice(("\n", "\n", "\r\n", "\r"))
    quote = recipe["quote"] = rng.choice(("", "", '"'))
    lines = [f"{quote}{value}{quote}" for value in given]
    if kind == "csv":
        before, after = rng.choice((("", ""), ("{},", ""), ("", ",{}"), ("{},", ',"a, {}"')))
        names = [rng.choice(UID_COLUMNS) if rng.random() < 0.9 else '"uid"']
        names = [rng.choice(("", "n"))] * bool(before) + names + ["text"] * bool(after)
        rows = [before.format(number) + line + after.format(number) for number, line in enumerate(lines)]
        mark = recipe["mark"] = rng.choice((",", ",", ",", ";", "\t"))
        lines = [",".join(names), *rows]
        if mark != "," and (before or after):
            lines = [mark.join(next(csv.reader([line]))) for line in lines]
            case.refusable = True
    if lines and rng.random() < 0.15:
        lines.insert(rng.randint(1, len(lines)), "")
        recipe["blank line"] = True
    text = end.join(lines) + end * rng.randint(0, 1) * bool(lines)
    encoding = recipe["encoding"] = rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16"))
    # pyarrow takes a lone byte order mark, or names without a line end, for no table at all.
    case.refusable = case.refusable or encoding == "utf-16" or not given
    case.path.write_bytes(text.encode(encoding))


def compose_target(rng: Random, root: Path) -> Case:
    """The embeddings of a target's images."""
    kind = rng.choice(("npy", "npz", "parquet"))
    path = root / f"{rng.choice(('t', 'a#b', 'x[0]', 'k=v', 'two words'))}.{kind}"
    rows = np.random.default_rng(rng.randrange(99)).standard_normal((rng.randint(1, 5), 3))
    recipe: dict[str, Any] = {"dtype": rng.choice(("<f2", "<f4", "<f8", ">f4"))}
    rows = rows.astype(recipe["dtype"])
    name = recipe["name"] = rng.choice(("image_features", "embeddings", "l14_img", "IMG_EMB"))
    if kind == "npy":
        np.save(path, np.asfortranarray(rows) if rng.random() < 0.3 else rows)
    elif kind == "npz":
        save = rng.choice((np.savez, np.savez_compressed))
        save(path, **{name: rows, "ids": np.arange(3)} if rng.random() < 0.5 else {name: rows})
    else:
        rows = rows.astype(rows.dtype.newbyteorder("="))
        kind = recipe["list"] = rng.choice(("list", "large_list", "fixed"))
        inner = pa.from_numpy_dtype(rows.dtype)
        listed = {"list": pa.list_(inner), "large_list": pa.large_list(inner), "fixed": pa.list_(inner, 3)}[kind]
        table = pa.table({"n": range(len(rows)), name: pa.array(list(rows), listed)})
        pq.write_table(table, path, row_group_size=rng.choice((1, 100)))
    return Case("target", path, recipe, embeddings=rows)


def compose_arrays(rng: Random, root: Path) -> Case:
    """Embeddings with a table that describes them: they become a pool without a teacher."""
    recipe: dict[str, Any] = {"dtype": rng.choice((np.float16, np.float32, np.float64)).__name__}
    kind = recipe["table"] = rng.choice(("csv", "tsv", "jsonl", "parquet"))
    folder = root / "in"
    folder.mkdir()
    case = Case("npy", folder, recipe)
    rows, columns, names = table_rows(rng, folder, recipe)
    for row, path in zip(rows, sorted({row[columns["image"]] for row in rows}), strict=False):
        # No file lies there: a folder of .npy has no images.
        row[columns["image"]] = path
    for inner, _, files in os.walk(folder):
        for name in files:
            os.unlink(os.path.join(inner, name))
    table = Case(kind, folder / f"t.{kind}", recipe, columns=columns)
    if kind == "parquet":
        write_parquet(rng, table.path, rows, columns, recipe)
        table.rows = [described_row(row, columns, number) for number, row in enumerate(rows)]
    else:
        text = io.StringIO(newline="")
        if kind == "jsonl":
            text.write("\n".join(json.dumps(row) for row in rows))
        else:
            writer = csv.DictWriter(text, names, delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
        table.path.write_bytes(text.getvalue().encode())
        table.rows = [described_row(row, columns, number) for number, row in enumerate(rows)]
    case.rows = table.rows
    case.embeddings = np.random.default_rng(len(rows)).standard_normal((2, len(rows), 4)).astype(recipe["dtype"])
    for part, name in enumerate(("img.npy", "txt.npy")):
        np.save(folder / name, case.embeddings[part])
    return case


def described_row(row: dict[str, Any], columns: dict[str, str], number: int) -> Row:
    caption, path = plain.said(row[columns["text"]]), plain.said(row[columns["image"]]).strip()
    if plain.is_broken(caption):
        return REJECTED
    key = plain.said(row.get(columns.get("key", "\0"))) or path or f"img.npy:{number}"
    return Row(False, key, caption, plain.uid_of(row.get(columns.get("uid", "\0"))))
