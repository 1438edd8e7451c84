"""Does each kind of source say what pairs it has, and what is wrong with the others?"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import tarfile
import uuid
from pathlib import Path

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.conventions import IMAGE_ENDINGS, IMAGES_END, split_key
from clipsel_core.pool.sources import members
from clipsel_core.pool.sources.look import open_source
from clipsel_core.pool.sources.record import Source
from tests.pool.pictures import caption, image, sample, save_to_disk, write_tar, write_tars


def records(source: Source):
    return [record for part in range(len(source.parts)) for record in source.read(part)]


def read(source: Source, record) -> bytes:
    if record.data is not None:
        return record.data
    return (source.base / record.file).read(record.offset, record.length)


def faults(source: Source) -> list[tuple[str, str]]:
    return [(record.key, record.fault) for record in records(source) if record.fault]


def table_rows(folder, path="path", text="caption", count=4):
    (folder / "pics").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / "pics" / f"{number}.jpg").write_bytes(image(number))
    return [{path: f"pics/{number}.jpg", text: caption(number)} for number in range(count)]


def write_csv(path, rows, delimiter=","):
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        table = csv.DictWriter(file, rows[0].keys(), delimiter=delimiter)
        table.writeheader()
        table.writerows(rows)


def test_tars__every_pair_with_its_place(tmp_path):
    source = open_source(write_tars(tmp_path / "in", uid="A1" * 16))
    found = records(source)
    assert (source.kind, source.parts) == ("webdataset", ("00000.tar", "00001.tar"))
    assert [record.key for record in found] == [f"{number:09d}" for number in range(9)]
    assert [record.caption for record in found] == [caption(number) for number in range(9)]
    assert {record.uid for record in found} == {"a1" * 16}
    assert found[3].url == "https://example.org/3"
    assert [read(source, found[n]) for n in range(3)] == [image(0, "JPEG"), image(1, "PNG"), image(2, "WEBP")]


def test_tars__caption_from_the_json_where_the_txt_is_blank_or_absent(tmp_path):
    one, two = sample(0), sample(1)
    one["000000000.txt"] = b" \n"
    del two["000000001.txt"]
    write_tar(tmp_path / "0.tar", one | two | {"2.jpeg": image(2), "2.txt": b"bro\xffken"})
    assert [record.caption for record in records(open_source(tmp_path))] == [caption(0), caption(1), "bro\ufffdken"]


def test_tars__original_sizes_from_the_json(tmp_path):
    write_tar(tmp_path / "0.tar", sample(0, original_width=640, original_height="480") | sample(1, original_width=-3))
    assert [(r.width, r.height) for r in records(open_source(tmp_path))] == [(640, 480), (None, None)]


@pytest.mark.parametrize("text", [b"not json", b"[1]", b'{"uid": 7}', b'{"uid": "zz"}', b"\xff\xfe", b"[" * 100_000])
def test_tars__a_broken_json_costs_only_what_it_said(tmp_path, text):
    write_tar(tmp_path / "0.tar", sample(0) | {"000000000.json": text})
    (record,) = records(open_source(tmp_path))
    assert (record.fault, record.uid, record.caption) == ("", "", caption(0))


def test_tars__keys_without_an_image_are_faults(tmp_path):
    write_tar(tmp_path / "0.tar", {"a.txt": b"alone", **sample(1), "dir/._b.jpg": b"", "c.cls": b"3"})
    ending = "images end with .jpg, .jpeg, .jfif, .png, .webp, .gif, .bmp, .tif, .tiff, .avif"
    assert faults(open_source(tmp_path)) == [
        ("a", f"a key without an image: a.txt; {ending}"),
        ("c", f"a key without an image: c.cls; {ending}"),
    ]


def test_tars__cut_off_in_the_middle(tmp_path):
    whole = write_tar(tmp_path / "0.tar", sample(0) | sample(1) | sample(2)).read_bytes()
    third = records(open_source(tmp_path))[2].offset
    (tmp_path / "0.tar").write_bytes(whole[: third + 100])
    source = open_source(tmp_path)
    assert [record.key for record in records(source) if not record.fault] == ["000000000", "000000001"]
    assert faults(source)[0] == ("000000002", "the tar is cut off within it")


@pytest.mark.parametrize("end", [0, 100])
def test_tars__cut_off_between_members_is_noticed(tmp_path, end):
    whole = write_tar(tmp_path / "0.tar", sample(0) | sample(1)).read_bytes()
    second = records(open_source(tmp_path))[1].offset - 512
    (tmp_path / "0.tar").write_bytes(whole[: second + end])
    assert faults(open_source(tmp_path)) == [("", f"the tar is cut off at byte {second:,}")]


def test_tars__damage_in_the_middle_and_no_tar_at_all(tmp_path):
    whole = bytearray(write_tar(tmp_path / "0.tar", sample(0) | sample(1)).read_bytes())
    second = records(open_source(tmp_path))[1].offset - 512
    whole[second : second + 512] = b"?" * 512
    (tmp_path / "0.tar").write_bytes(whole)
    (tmp_path / "1.tar").write_bytes(b"<html>" * 200)
    (tmp_path / "2.tar").write_bytes(b"")
    found = faults(open_source(tmp_path))
    assert found[0] == ("", f"the tar is damaged at byte {second:,}")
    assert [fault.startswith("the tar cannot be read at all") for _, fault in found[1:]] == [True, True]


def test_tars__none_that_is_one_is_refused_when_opened(tmp_path):
    (tmp_path / "captions.csv").write_text("image,caption\na.jpg,a cat\n" * 99)
    with pytest.raises(PoolFormatError, match=r"captions\.csv: expected a tar, found .*not compressed, or another"):
        open_source(tmp_path / "captions.csv", kind="webdataset")
    write_tar(tmp_path / "0.tar", sample(0))
    with gzip.open(tmp_path / "0.tar.gz", "wb") as packed:
        packed.write((tmp_path / "0.tar").read_bytes())
    with pytest.raises(PoolFormatError, match=r"0\.tar\.gz: expected a tar"):
        open_source(tmp_path / "0.tar.gz", kind="webdataset")


def parts(number, key="a"):
    """The files of a pair under a key, by kind."""
    facts = json.dumps({"uid": f"{number:032x}", "caption": "from the json"}).encode()
    return {
        "i": (f"{key}.jpg", image(number)),
        "t": (f"{key}.txt", caption(number).encode()),
        "j": (f"{key}.json", facts),
    }


def laid_out(order):
    """Files in an order such as i1 t1 j1b: kind and number of the pair, and its key where that is not a."""
    return [parts(int(word[1]), word[2:] or "a")[word[0]] for word in order.split()]


def told(source):
    """Of each record its key and which pair's image, caption and uid it has, or its fault."""
    images = {image(number): number for number in range(9)}
    captions = {caption(number): number for number in range(9)} | {"from the json": "j", "": ""}
    found = []
    for record in records(source):
        uid = int(record.uid, 16) if record.uid else ""
        seen = (images[read(source, record)], captions[record.caption], uid) if not record.fault else record.fault
        found.append((record.key, seen))
    return found


TWICE = "its key is repeated in the tar, and which of its files belong together cannot be told"


@pytest.mark.parametrize(
    ("order", "wanted"),
    [
        ("i1 t1 j1 i2 t2 j2", [("a", (1, 1, 1)), ("a", (2, 2, 2))]),
        ("t1 i1 t2 i2 t3 i3", [("a", (1, 1, "")), ("a", (2, 2, "")), ("a", (3, 3, ""))]),
        ("i1 t1 j1 i3b t3b j3b i2 t2 j2", [("a", (1, 1, 1)), ("b", (3, 3, 3)), ("a", (2, 2, 2))]),
        # The json may be either's.
        ("i1 t1 j1 i2 t2", [("a", TWICE), ("a", TWICE)]),
        ("i1 t1 j2 i2 t2", [("a", TWICE), ("a", TWICE)]),
        ("i1 t1 j1 i2 t2 i3 t3 j3 i4b t4b", [("a", TWICE)] * 3 + [("b", (4, 4, ""))]),
        ("i1 i2 t1 t2 i3b t3b", [("a", TWICE), ("a", TWICE), ("a", TWICE), ("b", (3, 3, ""))]),
        # Apart.
        ("i1 i2b t1 t2b j1 j2b", [("a", (1, 1, 1)), ("b", (2, 2, 2))]),
        ("j1 j2b t1 t2b i1 i2b", [("a", (1, 1, 1)), ("b", (2, 2, 2))]),
        ("i1 j1 i2b j2b", [("a", (1, "j", 1)), ("b", (2, "j", 2))]),
        ("i1 i2b i2 t1 t2b t2", [("a", TWICE), ("a", TWICE), ("b", (2, 2, ""))]),
        ("i1 i2b i3 t3 t2b", [("a", TWICE), ("a", TWICE), ("b", (2, 2, ""))]),
    ],
)
def test_tars__files_that_belong_together(tmp_path, order, wanted):
    write_tar(tmp_path / "0.tar", laid_out(order))
    found = told(open_source(tmp_path))
    assert sorted(found, key=str) == sorted(wanted, key=str)
    # Never mixed: what is no fault has all of one pair.
    assert all(isinstance(seen, str) or len({*seen} - {"", "j"}) == 1 for _, seen in found)


@pytest.mark.parametrize("only", [False, True])
def test_tars__all_images_before_all_captions(tmp_path, only, monkeypatch):
    order = [f"{kind}{number}{number}" for kind in "itj" for number in range(9)]
    write_tar(tmp_path / "0.tar", laid_out(" ".join(order)))
    source = open_source(tmp_path)
    if only:
        assert [record.uid for record in source.glance(0)] == [f"{number:032x}" for number in range(9)]
    else:
        assert told(source) == [(str(number), (number, number, number)) for number in range(9)]
    monkeypatch.setattr(members, "_HELD_BYTES", 3 * 1024)
    found = list((source.glance if only else source.read)(0))
    apart = "no image or no caption next to it: files of a key that lie further apart in the tar are not joined"
    assert {record.fault.partition(";")[0][:22] for record in found} >= {apart[:22] if not only else ""}
    assert sum(not record.fault for record in found) == 9 * only


def test_tars__dots_in_keys_are_listed_pair_by_pair(tmp_path):
    dotted = {f"in/shot-2023.05.0{n}{ending}": b"x" for n in range(3) for ending in (".jpg", ".txt", ".json")}
    beside = {"own.seg.png": b"mask", "own.jpg": image(1), "own.txt": b"mine", "own.2.png": b"x", "own.2.txt": b"lost"}
    write_tar(tmp_path / "0.tar", dotted | beside)
    found = records(open_source(tmp_path))
    fault = (
        "its name has another dot: in/shot-2023.05.00.jpg is the file .05.00.jpg of in/shot-2023, no image of its own"
    )
    assert [record.key for record in found] == [*(f"in/shot-2023.05.0{n}" for n in range(3)), "own.2", "own"]
    assert (found[0].fault, found[3].fault.partition(":")[0]) == (fault, "its name has another dot")
    assert (found[4].fault, found[4].caption) == ("", "mine")


@pytest.mark.parametrize("ending", [*IMAGE_ENDINGS, ".JPG", ".Tiff"])
def test_source__endings_in_any_case_and_names_in_any_folder(tmp_path, ending):
    """Tars and folders alike."""
    upper = str.upper if ending[1].isupper() else str
    facts = json.dumps({"uid": "7" * 32}).encode()
    files = {
        f"deep/er/one{ending}": image(1),
        f"deep/er/one{upper('.txt')}": b"a caption",
        f"deep/er/one{upper('.json')}": facts,
        f"deep/er/._one{ending}": b"AppleDouble",
        f"._deep/two{ending}": b"hidden",
        f".first{ending}": b"hidden",
    }
    write_tar(tmp_path / "tars" / "0.tar", {f"./{name}": content for name, content in reversed(files.items())})
    for name, content in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    for kind in ("tars", "folder"):
        source = open_source(tmp_path / kind)
        (record,) = records(source)
        assert record.key == "deep/er/one" + ending * (kind == "folder")
        assert (record.fault, record.caption, record.uid) == ("", "a caption", "7" * 32)
        assert read(source, record) == image(1)


def test_tars__two_in_one_file(tmp_path):
    first, second = (write_tar(tmp_path / f"{n}.part", sample(n)).read_bytes() for n in range(2))
    (tmp_path / "0.tar").write_bytes(first + second)
    source = open_source(tmp_path / "0.tar")
    assert [(record.key, read(source, record)) for record in records(source)] == [
        ("000000000", image(0)),
        ("000000001", image(1)),
    ]
    (tmp_path / "0.tar").write_bytes(first + b"?" * 20_000)
    said = f"what lies behind the end of the tar at byte {len(first):,} is none"
    assert faults(open_source(tmp_path / "0.tar")) == [("", said)]


def test_tars__one_that_means_harm_costs_itself_alone(tmp_path):
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 10 << 30
    whole = write_tar(tmp_path / "0.tar", sample(0)).read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    with open(tmp_path / "0.tar", "r+b") as file:
        file.seek(end)
        file.write(long.tobuf(tarfile.GNU_FORMAT))
        file.seek(long.size, 1)
        file.write(write_tar(tmp_path / "x", {**sample(1), **sample(2)}).read_bytes())
    write_tar(tmp_path / "1.tar", sample(3))
    source = open_source(tmp_path)
    found = told(source)
    said = f"a header of 10,737,418,240 bytes at byte {end:,}, and the file that it describes is not read"
    lone = "a key without an image: 000000001.txt and 000000001.json; " + IMAGES_END
    assert {seen for _, seen in found} == {(0, 0, ""), said, lone, (2, 2, ""), (3, 3, "")}


def test_folder__each_image_by_itself(tmp_path):
    """The first has no json, the second no txt, the third neither, the fourth both."""
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(image(number))
    for number in (1, 3):
        (tmp_path / f"{number}.json").write_text(json.dumps({"uid": f"{number:032x}", "caption": "from the json"}))
    for number in (0, 3):
        (tmp_path / f"{number}.txt").write_text(caption(number))
    source = open_source(tmp_path)
    found = [(record.caption, record.uid[-1:]) for record in records(source)]
    assert found == [(caption(0), ""), ("from the json", "1"), ("", ""), (caption(3), "3")]
    assert source.said == "a folder of 4 images, captions from the .txt beside each and uids from the .json of 2"


def test_split_key__at_the_first_dot():
    assert split_key("a.b/c.tar/00.seg.png") == ("a.b/c.tar/00", ".seg.png")
    assert split_key("README") == ("README", "")


def test_folder__each_image_with_its_txt(tmp_path):
    table_rows(tmp_path)
    for number in range(3):
        (tmp_path / "pics" / f"{number}.txt").write_text(caption(number) + "\n")
    (tmp_path / "pics" / ".hidden.jpg").write_bytes(b"")
    source = open_source(tmp_path)
    found = records(source)
    assert source.kind == "folder"
    assert [record.key for record in found] == [f"pics/{number}.jpg" for number in range(4)]
    assert [record.caption for record in found] == [*map(caption, range(3)), ""]
    assert read(source, found[2]) == image(2)


@pytest.mark.parametrize("kind", ["webdataset", "folder", "csv", "jsonl"])
def test_source__a_byte_order_mark_is_no_part_of_the_first_caption(tmp_path, kind):
    rows, mark = table_rows(tmp_path, count=2), b"\xef\xbb\xbf"
    if kind == "webdataset":
        write_tar(tmp_path / "0.tar", {"0.jpg": image(0), "0.txt": mark + caption(0).encode()})
    elif kind == "folder":
        (tmp_path / "pics" / "0.txt").write_bytes(mark + caption(0).encode())
    elif kind == "csv":
        write_csv(tmp_path / "t.csv", rows)
    else:
        (tmp_path / "t.jsonl").write_bytes(mark + "\n".join(map(json.dumps, rows)).encode())
    source = open_source(tmp_path)
    assert (faults(source), records(source)[0].caption) == ([], caption(0))


def test_folder__a_caption_beside_no_image_is_a_fault(tmp_path):
    for name in ("a.jpg", "inner/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(image(0))
        (tmp_path / name).with_suffix(".txt").write_text("a boat")
    (tmp_path / "inner" / "c.txt").write_text("a boat that nobody photographed")
    source = open_source(tmp_path)
    assert faults(source) == [("inner/c.txt", f"a caption without an image: inner/c.txt; {IMAGES_END}")]
    assert (source.sizes, len(records(source))) == ((3,), 3)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("given", ["folder", "file"])
def test_table__paths_beside_captions(tmp_path, kind, given):
    rows = table_rows(tmp_path, "File_Name", "Text")
    rows[1]["Text"] = "a, \u201cquoted\u201d caption"
    file = tmp_path / f"captions.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        write_csv(file, rows, "\t" if kind == "tsv" else ",")
    source = open_source(tmp_path if given == "folder" else file)
    found = records(source)
    assert source.said == f"{kind}, image paths from column 'File_Name', captions from 'Text'"
    assert [record.caption for record in found] == [row["Text"] for row in rows]
    assert [read(source, record) for record in found] == [image(number) for number in range(4)]


def test_table__columns_given_by_name(tmp_path):
    rows = [{"path": "x", "a": row["path"], "b": row["caption"], "uid": "7" * 32} for row in table_rows(tmp_path)]
    write_csv(tmp_path / "t.csv", rows)
    found = records(open_source(tmp_path / "t.csv", image_column="a", text_column="b"))
    assert [(r.file, r.caption, r.uid) for r in found[:1]] == [("pics/0.jpg", caption(0), "7" * 32)]
    with pytest.raises(
        PoolFormatError, match=r"expected a column c, found path, a, b, uid; name it with --text-column"
    ):
        open_source(tmp_path / "t.csv", text_column="c")


def test_table__columns_that_cannot_be_guessed_are_asked_for(tmp_path):
    write_csv(tmp_path / "t.csv", [{"foo": "1", "caption": "2"}])
    with pytest.raises(PoolFormatError, match=r"found foo, caption; name it with --image-column"):
        open_source(tmp_path / "t.csv")


def test_table__rows_that_cannot_be_read_are_faults(tmp_path):
    lines = [
        '{"path": "a.jpg", "caption": "x"}',
        "{half",
        "[1]",
        "",
        '{"caption": "no path"}',
        '{"path": "b", "caption": null}',
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    source = open_source(tmp_path)
    bad = "a line that is not a JSON object"
    assert faults(source) == [("line 2", bad), ("line 3", bad), ("line 5", "a row without an image path")]
    assert {record.file for record in records(source) if record.fault} == {"t.jsonl"}
    assert records(source)[-1].caption == ""


def test_table__huge_and_broken_captions(tmp_path):
    rows = table_rows(tmp_path, count=1)
    (tmp_path / "t.csv").write_bytes(b"path,caption\npics/0.jpg,bro\xffken\npics/0.jpg," + b"word " * 100_000 + b"\n")
    found = records(open_source(tmp_path / "t.csv"))
    assert [found[0].caption, len(found[1].caption)] == ["bro\ufffdken", 500_000]
    (tmp_path / "t.jsonl").write_text(json.dumps({**rows[0], "caption": "lone \ud800 half"}))
    assert records(open_source(tmp_path / "t.jsonl"))[0].caption == "lone ? half"


@pytest.mark.parametrize("plain", [False, True])
def test_image_parquet__bytes_in_rows(tmp_path, plain):
    images = [image(number) if plain else {"bytes": image(number), "path": f"{number}.jpg"} for number in range(80)]
    for part, rows in enumerate((slice(0, 50), slice(50, 80))):
        table = pa.table({"image": images[rows], "text": [caption(n) for n in range(80)][rows]})
        pq.write_table(table, tmp_path / f"train-{part}.parquet", row_group_size=20)
    source = open_source(tmp_path)
    found = records(source)
    assert (source.kind, source.image_column, source.sizes) == ("parquet", "image", (50, 30))
    assert [record.data for record in found] == [image(number) for number in range(80)]
    assert found[51].key == ("train-1.parquet:1" if plain else "51.jpg")
    assert (found[51].caption, found[51].file, found[51].offset) == (caption(51), "train-1.parquet", 1)


@pytest.mark.parametrize("inside", [True, False])
def test_parquet__the_first_of_several_captions(tmp_path, inside):
    (tmp_path / "0.jpg").write_bytes(image(0))
    images = [{"bytes": image(0), "path": "0.jpg"} if inside else "0.jpg"] * 3
    texts = [["", "a boat", "red"], [], None]
    pq.write_table(pa.table({"image": images, "caption": texts}), tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet")
    assert "captions from 'caption', the first of each" in source.said
    assert [record.caption for record in records(source)] == ["a boat", "", ""]


def test_open_source__a_column_where_there_are_none(tmp_path):
    (tmp_path / "0.jpg").write_bytes(image(0))
    (tmp_path / "0.txt").write_text("a boat")
    with pytest.raises(PoolFormatError, match="--text-column: expected no column, as folder has none, found words"):
        open_source(tmp_path, text_column="words")


def test_image_parquet__rows_without_bytes(tmp_path):
    (tmp_path / "beside.jpg").write_bytes(image(1))
    images = [{"bytes": None, "path": None}, {"bytes": None, "path": "beside.jpg"}]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(
        pa.table({"image": pa.array([*images, None], kind), "text": ["a", "b", "c"]}), tmp_path / "t.parquet"
    )
    source = open_source(tmp_path / "t.parquet")
    assert [fault for _, fault in faults(source)] == ["a row without an image"] * 2
    assert read(source, records(source)[1]) == image(1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.zip", b"", r"expected a \.tar, .*found \.zip; say which with --format"),
        ("x.csv", b"", "expected a table with a row or more, found no rows"),
        ("x.parquet", b"PAR1", "expected files that can be read"),
    ],
)
def test_open_source__names_what_it_cannot_take(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PoolFormatError, match=message):
        open_source(tmp_path / name)


def test_open_source__empty_and_missing_folders(tmp_path):
    with pytest.raises(PoolFormatError, match=r"expected a folder of images, found none"):
        open_source(tmp_path)
    with pytest.raises(PoolFormatError, match="found no such file"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(PoolFormatError, match=r"--format: expected webdataset, .* found polaroid"):
        open_source(tmp_path, kind="polaroid")


def test_open_source__signature_changes_with_the_source(tmp_path):
    before = open_source(write_tars(tmp_path, (3,))).signature
    assert open_source(tmp_path).signature == before
    write_tars(tmp_path, (40,))
    assert open_source(tmp_path).signature != before


def test_open_source__img2datasets_folders_with_their_parquets(tmp_path):
    """As img2dataset 1.45 leaves them: failed downloads stand in the parquet alone, which names no path."""
    for shard, keys in (("00000", ("000000", "000002")), ("00001", ("000010",))):
        (tmp_path / shard).mkdir()
        said = {"uid": "7" * 31 + shard[-1], "caption": "from the json", "url": "https://host/x", "original_width": 640}
        for key in keys:
            (tmp_path / shard / f"{key}.jpg").write_bytes(image(0))
            (tmp_path / shard / f"{key}.txt").write_text("" if key == "000002" else f"caption {key}")
            (tmp_path / shard / f"{key}.json").write_text(json.dumps({**said, "key": key, "status": "success"}))
        columns = {"uid": [said["uid"], None], "caption": ["a", "b"], "url": ["https://host/x"] * 2, "key": ["k", "l"]}
        pq.write_table(pa.table(columns), tmp_path / f"{shard}.parquet")
        (tmp_path / f"{shard}_stats.json").write_text("{}")
    source = open_source(tmp_path)
    found = [(r.file, r.caption, r.uid[-1], r.url, r.width) for r in source.read(0)]
    assert source.kind == "folder"
    assert found == [
        ("00000/000000.jpg", "caption 000000", "0", "https://host/x", 640),
        ("00000/000002.jpg", "from the json", "0", "https://host/x", 640),
        ("00001/000010.jpg", "caption 000010", "1", "https://host/x", 640),
    ]


@pytest.mark.parametrize(("mark", "kind"), [(",", "csv"), ("\t", "tsv")])
def test_open_source__captions_in_a_txt_beside_a_folder_of_images(tmp_path, mark, kind):
    """As Flickr's collections come."""
    for folder in ("Images", "other"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        (tmp_path / "Images" / f"{number}.jpg").write_bytes(image(number))
    rows = "".join(f"{number}.jpg{mark}{caption(number)}\n" for number in range(3))
    (tmp_path / "captions.txt").write_text(f"image{mark}caption\n{rows}")
    source = open_source(tmp_path / "captions.txt")
    assert (source.kind, source.base.path) == (kind, str(tmp_path / "Images"))
    assert source.said.endswith("images in Images/")
    assert [read(source, record) for record in records(source)] == [image(number) for number in range(3)]
    with pytest.raises(
        PoolFormatError, match=r"json beside each image, found captions.txt; give the table of captions"
    ):
        open_source(tmp_path)
    (tmp_path / "other" / "0.jpg").write_bytes(image(0))
    assert open_source(tmp_path / "captions.txt").base.path == str(tmp_path)


def test_open_source__a_txt_that_is_no_table(tmp_path):
    (tmp_path / "x.txt").write_text("a boat, red\n")
    with pytest.raises(PoolFormatError, match=r"or a folder, found .txt; say which with --format"):
        open_source(tmp_path / "x.txt")


def test_open_source__images_without_any_caption(tmp_path):
    (tmp_path / "0.jpg").write_bytes(image(0))
    with pytest.raises(PoolFormatError, match=r"expected a .txt or .json beside each image, found none"):
        open_source(tmp_path)


def rows_of(source: Source) -> list[tuple[str, str]]:
    return [(record.file, record.caption) for record in records(source) if not record.fault]


def test_csv__a_column_without_a_name_is_none(tmp_path):
    """As pandas writes its index."""
    (tmp_path / "t.csv").write_text(
        ",filepath,title\n" + "".join(f"{n},images/{n}.jpg,{caption(n)}\n" for n in range(12))
    )
    source = open_source(tmp_path / "t.csv")
    assert source.said.endswith(", a column without a name left out")
    found = [(r.key, r.file, r.caption, r.uid, r.source_uid, r.url) for r in records(source)]
    assert found == [(f"images/{n}.jpg", f"images/{n}.jpg", caption(n), "", "", "") for n in range(12)]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_table__a_column_without_a_name_is_none(tmp_path, kind):
    rows = [{"": f"{n}", "path": f"{n}.jpg", "caption": caption(n)} for n in range(3)]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    else:
        (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = [(r.key, r.uid, r.source_uid, r.url) for r in records(open_source(tmp_path / f"t.{kind}"))]
    assert found == [(f"{n}.jpg", "", "", "") for n in range(3)]


def test_csv__rows_with_more_or_fewer_fields_than_names_are_faults(tmp_path):
    lines = [
        "path,caption",
        "0.jpg,a dog, a ball",
        "1.jpg,a cat",
        '2.jpg,"two',
        'lines"',
        "3.jpg",
        "4.jpg,a cow,",
        "",
        "5.jpg,",
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    source = open_source(tmp_path / "t.csv")
    assert rows_of(source) == [("1.jpg", "a cat"), ("2.jpg", "two\nlines"), ("4.jpg", "a cow"), ("5.jpg", "")]
    remedy = "quote fields that hold commas or line ends"
    assert faults(source) == [
        ("line 2", f"more fields than the first line has: 3 in line 2, 2 there; {remedy}"),
        ("line 6", f"fewer fields than the first line has: 1 in line 6, 2 there; {remedy}"),
    ]
    assert len(records(source)) == 6


HARD = [
    'a "red" boat',
    '"Hello"',
    "two\nlines",
    "one\ttab",
    'ends with "',
    '"begins',
    "a, b",
    "",
    '5" pipe',
    "a\r\nb",
    "\u00e9",
]


def written(folder, kind, form) -> Path:
    """A table of captions that are hard to write, as csv.writer and pandas write them."""
    path, rows = folder / f"t.{kind}", [(f"{n}.jpg", text) for n, text in enumerate(HARD)]
    mark = "\t" if kind == "tsv" else ","
    if form.startswith("pandas"):
        quoting = {"pandas": csv.QUOTE_MINIMAL, "pandas, all quoted": csv.QUOTE_ALL}[form]
        pandas.DataFrame(rows, columns=["path", "caption"]).to_csv(path, sep=mark, index=False, quoting=quoting)
        return path
    with open(path, "w", newline="", encoding="utf-8") as file:
        quoting = csv.QUOTE_ALL if form == "values quoted" else csv.QUOTE_MINIMAL
        names = ("path", "caption") if form != "caption first" else ("caption", "path")
        csv.writer(file, delimiter=mark).writerow(names)
        csv.writer(file, delimiter=mark, quoting=quoting).writerows(
            row if names[0] == "path" else row[::-1] for row in rows
        )
    return path


@pytest.mark.parametrize("form", ["csv.writer", "caption first", "values quoted", "pandas", "pandas, all quoted"])
@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_table__quoted_where_it_is_quoted(tmp_path, kind, form):
    source = open_source(written(tmp_path, kind, form))
    assert faults(source) == []
    assert rows_of(source) == [(f"{n}.jpg", text) for n, text in enumerate(HARD)]


def test_tsv__without_quoting_is_read_as_it_is(tmp_path):
    texts = ['"Hello" he said', '"Hello"', 'a "red" boat', '"begins and', 'ends"', '5" pipe', "a, b", "plain", 'x"" y']
    (tmp_path / "t.tsv").write_text("path\tcaption\n" + "".join(f"{n}.jpg\t{text}\n" for n, text in enumerate(texts)))
    source = open_source(tmp_path / "t.tsv")
    assert faults(source) == []
    assert rows_of(source) == [(f"{n}.jpg", text) for n, text in enumerate(texts)]


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_table__a_quote_that_nothing_closes_costs_no_other_row(tmp_path, kind):
    mark = "\t" if kind == "tsv" else ","
    texts = ['"never closed', *map(caption, range(3000)), 'ends so "']
    rows = "".join(f"{n}.jpg{mark}{text}\n" for n, text in enumerate(texts))
    (tmp_path / f"t.{kind}").write_text(f"path{mark}caption\n{rows}")
    assert rows_of(open_source(tmp_path / f"t.{kind}")) == [(f"{n}.jpg", text) for n, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("kind", "mark", "said"),
    [("csv", "\t", "tabs"), ("csv", ";", "semicolons"), ("csv", "|", "bars"), ("tsv", ",", "commas"), ("csv", ",", "")],
)
def test_table__fields_by_the_mark_that_is_inside(tmp_path, kind, mark, said):
    texts = ["plain", 'a "red" boat', "a, b; c", "two\nlines"]
    with open(tmp_path / f"t.{kind}", "w", newline="") as file:
        csv.writer(file, delimiter=mark).writerows(
            [("filepath", "title"), *((f"{n}.jpg", t) for n, t in enumerate(texts))]
        )
    source = open_source(tmp_path / f"t.{kind}")
    assert rows_of(source) == [(f"{n}.jpg", text) for n, text in enumerate(texts)]
    assert source.said == f"{kind}, image paths from column 'filepath', captions from 'title'" + (
        f", fields separated by {said}" if said else ""
    )


MARKED = ["utf-8-sig", "utf-16", "utf-16-be", "utf-16-le", "utf-32"]


def with_mark(text: str, encoding: str) -> bytes:
    mark = {"utf-16-be": codecs.BOM_UTF16_BE, "utf-16-le": codecs.BOM_UTF16_LE}
    return mark.get(encoding, b"") + text.encode(encoding)


@pytest.mark.parametrize("encoding", MARKED)
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "txt", "folder", "webdataset"])
def test_source__byte_order_marks_are_obeyed(tmp_path, kind, encoding):
    texts = ["caf\u00e9, \u732b", "a \U0001f600"]
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(image(number))
    if kind in ("folder", "webdataset"):
        captions = {f"{n}.txt": with_mark(text, encoding) for n, text in enumerate(texts)}
        for name, content in captions.items():
            (tmp_path / name).write_bytes(content)
        if kind == "webdataset":
            pairs = [{f"{n}.jpg": image(n), f"{n}.txt": captions[f"{n}.txt"]} for n in range(2)]
            write_tar(tmp_path / "0.tar", pairs[0] | pairs[1])
        source = open_source(tmp_path)
    else:
        mark = "\t" if kind == "tsv" else ","
        rows = [f'{n}.jpg{mark}"{text}"' for n, text in enumerate(texts)]
        text = "\n".join([f"path{mark}caption", *rows])
        if kind == "jsonl":
            text = "\n".join(
                json.dumps({"path": f"{n}.jpg", "caption": t}, ensure_ascii=False) for n, t in enumerate(texts)
            )
        (tmp_path / f"t.{kind}").write_bytes(with_mark(text, encoding))
        source = open_source(tmp_path / f"t.{kind}")
    assert (source.kind, faults(source)) == ("csv" if kind == "txt" else kind, [])
    assert [record.caption for record in records(source)] == texts


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "folder", "webdataset", "parquet"])
def test_source__a_caption_that_cannot_be_decoded_is_a_fault(tmp_path, kind):
    texts = [b"a boat", "caf\u00e9".encode("cp1252"), "caf\u00e9".encode()]
    pairs = {f"{n}.{end}": data for n, text in enumerate(texts) for end, data in (("jpg", image(n)), ("txt", text))}
    if kind == "webdataset":
        write_tar(tmp_path / "0.tar", pairs)
    elif kind == "folder":
        for name, content in pairs.items():
            (tmp_path / name).write_bytes(content)
    elif kind == "parquet":
        pq.write_table(pa.table({"path": ["0.jpg", "1.jpg", "2.jpg"], "caption": texts}), tmp_path / "t.parquet")
    else:
        form = (
            b'{"path": "%d.jpg", "caption": "%s"}'
            if kind == "jsonl"
            else b"%d.jpg\t%s"
            if kind == "tsv"
            else b"%d.jpg,%s"
        )
        head = {"csv": b"path,caption\n", "tsv": b"path\tcaption\n", "jsonl": b""}[kind]
        (tmp_path / f"t.{kind}").write_bytes(head + b"\n".join(form % row for row in enumerate(texts)))
    found = records(open_source(tmp_path))
    assert [record.caption for record in found] == ["a boat", "caf\ufffd", "caf\u00e9"]
    fault = "its caption cannot be decoded: save it as UTF-8, or as UTF-16 with a byte order mark"
    assert [record.fault for record in found] == ["", fault, ""]


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.list_(pa.string())])
def test_parquet__text_that_is_not_utf8_is_a_fault_of_its_row(tmp_path, inside, kind):
    texts, plain = pa.array([b"a boat", b"caf\xe9", b"caf\xc3\xa9"], pa.binary()), pa.string()
    column = pa.Array.from_buffers(plain, 3, texts.buffers())
    if kind != plain:
        offsets = pa.array([0, 1, 2, 3], pa.int32())
        column = pa.ListArray.from_arrays(offsets, column) if pa.types.is_list(kind) else column.cast(kind)
    images = [image(n) if inside else f"{n}.jpg" for n in range(3)]
    pq.write_table(pa.table({"image": images, "caption": column}), tmp_path / "t.parquet")
    found = records(open_source(tmp_path / "t.parquet"))
    assert [(record.caption, bool(record.fault)) for record in found] == [
        ("a boat", False),
        ("caf\ufffd", True),
        ("caf\u00e9", False),
    ]


def test_csv__a_path_that_cannot_be_decoded_is_a_fault(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"path,caption\ncaf\xe9.jpg,a\nb.jpg,b\n")
    (key, fault), *_ = faults(open_source(tmp_path / "t.csv"))
    assert (key, fault.startswith("its path cannot be decoded: save it as UTF-8")) == ("line 2", True)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_table__utf16_without_its_mark_is_refused(tmp_path, kind):
    text = "path,caption\na.jpg,x\n" if kind == "csv" else '{"path": "a.jpg", "caption": "x"}\n'
    (tmp_path / f"t.{kind}").write_bytes(text.encode("utf-16-le"))
    with pytest.raises(PoolFormatError, match=r"expected text, found bytes of zero; save it as UTF-8"):
        open_source(tmp_path / f"t.{kind}")


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "txt"])
def test_table__line_ends(tmp_path, kind, end):
    mark = "\t" if kind == "tsv" else ","
    rows = [{"path": f"{n}.jpg", "caption": f"number {n}"} for n in range(3)]
    lines = [f"path{mark}caption", *(f"{row['path']}{mark}{row['caption']}" for row in rows)]
    if kind == "jsonl":
        lines = [json.dumps(row) for row in rows]
    (tmp_path / f"t.{kind}").write_bytes(end.join([*lines, ""]).encode())
    source = open_source(tmp_path / f"t.{kind}")
    assert (faults(source), rows_of(source)) == ([], [(row["path"], row["caption"]) for row in rows])


def test_csv__a_carriage_return_within_a_line_ends_no_row(tmp_path):
    (tmp_path / "t.csv").write_bytes(b'path,caption\n0.jpg,one\rtwo\n1.jpg,"one\r\ntwo"\n')
    assert rows_of(open_source(tmp_path / "t.csv")) == [("0.jpg", "one\rtwo"), ("1.jpg", "one\r\ntwo")]


def test_csv__two_columns_of_one_name_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("path,caption,caption\na.jpg,x,y\n")
    with pytest.raises(PoolFormatError, match="expected one column caption, found 2; rename the others"):
        open_source(tmp_path / "t.csv")


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("value", [{"en": "x"}, [{"en": "x"}], 7])
def test_parquet__captions_that_are_no_texts_are_refused_by_name(tmp_path, inside, value):
    images = [{"bytes": image(0), "path": "0.jpg"} if inside else "0.jpg"]
    pq.write_table(pa.table({"image": images, "caption": [value]}), tmp_path / "t.parquet")
    with pytest.raises(PoolFormatError, match=r"t\.parquet: expected texts in column caption, found .*--text-column"):
        open_source(tmp_path / "t.parquet")


@pytest.mark.parametrize("value", [{"en": "x"}, [{"en": "x"}]])
def test_jsonl__captions_that_are_no_texts_are_refused_by_name(tmp_path, value):
    (tmp_path / "t.jsonl").write_text(json.dumps({"path": "a.jpg", "caption": value}))
    with pytest.raises(PoolFormatError, match=r"t\.jsonl: expected texts in column caption, found struct"):
        open_source(tmp_path / "t.jsonl")
    # An object further down is no caption either.
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"path": "a.jpg", "caption": v}) for v in ("a", value)))
    assert [record.caption for record in records(open_source(tmp_path / "t.jsonl"))] == ["a", ""]


def test_tars__a_json_far_from_its_image_is_told(tmp_path):
    """webdataset joins neighbours alone: the pair is made without it, and who looks for its uid finds why."""
    pairs = [(f"{n}{ending}", content) for n in range(3) for ending, content in ((".jpg", image(n)), (".txt", b"a"))]
    facts = [(f"{n}.json", json.dumps({"uid": f"{n:032x}"}).encode()) for n in (*range(3), 7)]
    write_tar(tmp_path / "0.tar", pairs + facts)
    source = open_source(tmp_path)
    found = records(source)
    assert [(record.key, record.uid) for record in found if not record.fault] == [("0", ""), ("1", ""), ("2", "")]
    late = "a json that lies apart from its image: the pair was made without the uid and the rest that it says"
    assert [(r.file, r.key, r.fault) for r in found[3:6]] == [("0.tar", str(n), late) for n in range(3)]
    assert found[6].fault.startswith("a key without an image: 7.json; ")
    assert [record.uid for record in source.glance(0) if not record.fault] == [f"{n:032x}" for n in range(3)]


def test_tars__an_object_in_the_json_is_no_caption(tmp_path):
    write_tar(tmp_path / "0.tar", {"0.jpg": image(0), "0.json": b'{"caption": {"en": "x"}}'})
    assert records(open_source(tmp_path))[0].caption == ""


def test_image_parquet__columns_are_found_for_each_file(tmp_path):
    for part, name in enumerate(("caption", "text", "TEXT")):
        table = {
            "image": [{"bytes": image(part), "path": f"{part}.jpg"}],
            name: [caption(part)],
            "uid": ["a" * 31 + str(part)],
        }
        pq.write_table(pa.table(table), tmp_path / f"{part}.parquet")
    found = [(r.caption, r.uid[-1]) for r in records(open_source(tmp_path))]
    assert found == [(caption(part), str(part)) for part in range(3)]
    pq.write_table(pa.table({"image": [{"bytes": image(0), "path": ""}], "score": [1.0]}), tmp_path / "3.parquet")
    with pytest.raises(PoolFormatError, match=r"3\.parquet: expected a column named like caption.*found image, score"):
        open_source(tmp_path)
    pq.write_table(pa.table({"img": [image(0)], "text": ["a"]}), tmp_path / "3.parquet")
    with pytest.raises(PoolFormatError, match=r"3\.parquet: expected a column image, found img, text"):
        open_source(tmp_path)


@pytest.mark.parametrize("inside", [True, False])
def test_parquet__a_hash_is_no_image(tmp_path, inside):
    table = {"phash": [bytes([n, 255, 7, 9]) for n in range(9)], "sha256": [bytes(32)] * 9}
    table |= {"content": [image(n) for n in range(9)]} if inside else {"path": [f"{n}.jpg" for n in range(9)]}
    pq.write_table(pa.table({**table, "caption": [caption(n) for n in range(9)]}), tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet")
    assert source.image_column == ("content" if inside else "")
    found = records(source)
    if inside:
        assert [record.data for record in found] == [image(n) for n in range(9)]
    else:
        assert [record.file for record in found] == [f"{n}.jpg" for n in range(9)]


def test_parquet__paths_as_bytes_are_no_images(tmp_path):
    (tmp_path / "0.JPG").write_bytes(image(0))
    pq.write_table(pa.table({"image": [b"0.JPG"], "caption": ["a"]}), tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet")
    assert [(record.key, read(source, record)) for record in records(source)] == [("0.JPG", image(0))]


def test_image_parquet__pictures_that_are_broken_are_still_images(tmp_path):
    pq.write_table(pa.table({"hash": [b"1", b"2"], "image": [b"", b"?"], "text": ["a", "b"]}), tmp_path / "t.parquet")
    assert open_source(tmp_path / "t.parquet").image_column == "image"


def test_image_parquet__a_path_in_place_of_bytes_keeps_uid_and_url(tmp_path):
    row = {"image": {"bytes": None, "path": "0.jpg"}, "text": "a", "uid": "a" * 32, "url": "https://host/0"}
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {name: pa.array([value], kind if name == "image" else None) for name, value in row.items()}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    (record,) = records(open_source(tmp_path / "t.parquet"))
    assert (record.file, record.caption, record.uid, record.url) == ("0.jpg", "a", "a" * 32, "https://host/0")


UUID = "0E984725-C51C-4BF4-9960-E1C80E27ABA0"
UIDS = {UUID: UUID.replace("-", "").lower(), "B" * 32: "b" * 32, "c" * 32: "c" * 32, "10": "", "imgur_x1": "", "": ""}


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "webdataset", "folder"])
def test_source__uids_and_what_the_source_had_in_place_of_them(tmp_path, kind):
    rows = [{"path": f"{n}.jpg", "caption": caption(n), "uid": uid} for n, uid in enumerate(UIDS)]
    if kind in ("csv", "tsv"):
        write_csv(tmp_path / f"t.{kind}", rows, "\t" if kind == "tsv" else ",")
    elif kind == "jsonl":
        (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    else:
        members = [{f"{n}.jpg": image(n), f"{n}.json": json.dumps(row).encode()} for n, row in enumerate(rows)]
        for name, content in [item for pair in members for item in pair.items()]:
            (tmp_path / name).write_bytes(content)
        if kind == "webdataset":
            write_tar(tmp_path / "0.tar", {name: data for pair in members for name, data in pair.items()})
    found = [(record.uid, record.source_uid) for record in records(open_source(tmp_path, kind=kind))]
    assert found == [(uid, "" if own == uid else own) for own, uid in UIDS.items()]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_source__an_integer_is_no_uid_whatever_the_kind(tmp_path, kind):
    rows = [{"path": f"{n}.jpg", "caption": caption(n), "uid": n} for n in range(12)]
    if kind == "csv":
        write_csv(tmp_path / "t.csv", rows)
    elif kind == "jsonl":
        (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    found = [(record.uid, record.source_uid) for record in records(open_source(tmp_path / f"t.{kind}"))]
    assert found == [("", str(n)) for n in range(12)]


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("kind", [pa.string(), pa.string_view(), pa.binary(), pa.binary(16), pa.uuid()])
def test_parquet__uids_of_every_type(tmp_path, inside, kind):
    value = UUID.lower()
    held = {pa.binary(): value.encode(), pa.binary(16): uuid.UUID(value).bytes, pa.uuid(): uuid.UUID(value)}
    columns = {
        "image": [image(0) if inside else "0.jpg"],
        "caption": ["a"],
        "uid": pa.array([held.get(kind, value)], kind),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    (record,) = records(open_source(tmp_path / "t.parquet"))
    assert (record.uid, record.source_uid) == (UIDS[UUID], value)


@pytest.mark.parametrize("kind", [pa.binary(), pa.binary(16), pa.dictionary(pa.int32(), pa.binary())])
def test_parquet__sixteen_letters_are_text_and_no_uuid(tmp_path, kind):
    columns = {"image": ["0.jpg"], "caption": ["a"], "uid": pa.array([b"photo_0000000001"]).cast(kind)}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    (record,) = records(open_source(tmp_path / "t.parquet"))
    assert (record.uid, record.source_uid) == ("", "photo_0000000001")


@pytest.mark.parametrize("before", [1, 1200])
def test_jsonl__uids_that_the_first_rows_have_not(tmp_path, before):
    rows = [{"path": f"{n}.jpg", "caption": caption(n)} for n in range(before)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, [*rows, {**rows[0], "uid": "b" * 32, "url": "u"}])))
    found = records(open_source(tmp_path / "t.jsonl"))
    assert [(record.uid, record.url) for record in found] == [*[("", "")] * before, ("b" * 32, "u")]


def test_jsonl__a_caption_that_the_first_row_has_not(tmp_path):
    rows = [{"path": "0.jpg"}, {"path": "1.jpg", "caption": "a"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [record.caption for record in records(open_source(tmp_path / "t.jsonl"))] == ["", "a"]


def test_arrow__a_saved_data_set(tmp_path):
    source = open_source(save_to_disk(tmp_path / "saved", range(9)))
    assert (source.kind, len(source.parts)) == ("arrow", 2)
    assert source.said == "arrow, images from column 'image', captions from 'text'"
    order, found = [0, 2, 4, 6, 8, 1, 3, 5, 7], records(source)
    assert [(r.key, r.caption, int(r.uid, 16)) for r in found] == [(f"{n}.jpg", caption(n), n) for n in order]
    assert [read(source, record) for record in found] == [image(n) for n in order]
    assert [record.position for record in found] == sorted(record.position for record in found[:5]) + sorted(
        record.position for record in found[5:]
    )


def test_arrow__a_data_set_of_several_splits(tmp_path):
    for split, numbers in (("train", range(5)), ("test", range(5, 7))):
        save_to_disk(tmp_path / split, numbers, files=1)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    source = open_source(tmp_path)
    assert source.said.endswith(", in train/, test/")
    assert [read(source, record) for record in records(source)] == [image(n) for n in range(7)]


def test_arrow__a_stream_that_is_cut_off_is_noticed(tmp_path):
    folder = save_to_disk(tmp_path / "saved", range(4), files=1)
    (path,) = folder.glob("data-*")
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    source = open_source(folder)
    assert (len(records(source)), faults(source)) == (
        5,
        [("", f"the file is cut off at byte {len(whole) - 8:,}: get it again")],
    )
    path.write_bytes(whole[: len(whole) // 2 + 50])
    with pytest.raises(PoolFormatError, match="expected a whole stream of Arrow"):
        records(open_source(folder))


def test_arrow__what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(PoolFormatError, match=r"expected rows in their order.*flatten_indices"):
        open_source(save_to_disk(tmp_path / "a", range(2), _indices_data_files=[{"filename": "indices.arrow"}]))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "state.json").write_text("{}")
    with pytest.raises(PoolFormatError, match=r"expected a state\.json with _data_files"):
        open_source(tmp_path / "b")
    table = pa.table({"image": [image(0) * 9], "text": ["a"]})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (
        pa.OSFile(str(tmp_path / "c.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema, options=options) as stream,
    ):
        stream.write_table(table)
    with pytest.raises(PoolFormatError, match="found compressed Arrow; save it without compression"):
        records(open_source(tmp_path / "c.arrow"))


def test_open_source__parquets_with_images_in_an_inner_folder(tmp_path):
    """As data sets lie on Hugging Face's hub."""
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("# A data set")
    for part in range(2):
        table = pa.table({"image": [{"bytes": image(part), "path": f"{part}.jpg"}], "text": [caption(part)]})
        pq.write_table(table, tmp_path / "data" / f"train-{part:05d}-of-00002.parquet")
    source = open_source(tmp_path)
    assert source.said.endswith(", in data/")
    assert [(r.data, r.caption) for r in records(source)] == [(image(n), caption(n)) for n in range(2)]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_open_source__a_folder_of_images_with_metadata_one_level_down(tmp_path, kind):
    """As `datasets` calls an imagefolder."""
    for split, numbers in (("test", range(2)), ("train", range(2, 5))):
        rows = [{"file_name": f"deep/{n}.jpg", "text": caption(n)} for n in numbers]
        (tmp_path / split / "deep").mkdir(parents=True)
        for number in numbers:
            (tmp_path / split / "deep" / f"{number}.jpg").write_bytes(image(number))
        path = tmp_path / split / f"metadata.{kind}"
        if kind == "csv":
            write_csv(path, rows)
        elif kind == "jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        else:
            pq.write_table(pa.Table.from_pylist(rows), path)
    source, folders = open_source(tmp_path), ["test"] * 2 + ["train"] * 3
    assert (source.kind, source.said.endswith(", in test/, train/")) == (kind, True)
    found = records(source)
    assert [(r.key, r.caption) for r in found] == [(f"{f}/deep/{n}.jpg", caption(n)) for n, f in enumerate(folders)]
    assert [read(source, record) for record in found] == [image(n) for n in range(5)]
