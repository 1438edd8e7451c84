"""Do sources become pools: every row accounted for, resumed with the same bytes, a second teacher beside the first?"""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from clipsel_core import uids
from clipsel_core.errors import PoolFormatError
from clipsel_core.npy import read_members
from clipsel_core.places import Place
from clipsel_core.pool.images import ImageIndex
from clipsel_core.pool.inspect import inspect_pool
from clipsel_core.pool.layout import open_pool, read_teachers
from clipsel_core.pool.making import maker, shard_files
from clipsel_core.pool.making.embed import load_teacher, teacher_info
from clipsel_core.pool.making.feed import Cursor, Feed
from clipsel_core.pool.making.make import make_pool
from clipsel_core.pool.making.settings import is_extendable
from clipsel_core.pool.making.shard_files import derive_uid
from clipsel_core.pool.sources.look import open_source
from clipsel_core.pool.sources.record import Record, Source
from tests.pool.pictures import caption, drawn, encoded, image, sample, save_to_disk, write_tar, write_tars
from tests.waiting import PATIENCE_S, until

ROOT = Path(__file__).parents[3]


def build(source, root, teacher, arch="l14", **options):
    return make_pool(open_source(source), root, teacher, arch=arch, model=arch, **{"workers": 2, **options})


def bytes_of(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.name != ".lock" and path.is_file()
    }


def table_of(root):
    return pa.concat_tables([pq.read_table(shard.parquet) for shard in open_pool(root).shards])


def arrays_of(root, member):
    return np.concatenate([np.load(shard.npz.path)[member] for shard in open_pool(root).shards]).astype(np.float32)


def folder_of_pictures(folder):
    folder.mkdir()
    for number in range(9):
        (folder / f"{number}.png").write_bytes(image(number, "PNG"))
        (folder / f"{number}.txt").write_text(caption(number))
    return folder


def csv_of_pictures(folder):
    folder_of_pictures(folder)
    rows = "".join(f"{number}.png,{caption(number)}\n" for number in range(9))
    (folder / "captions.csv").write_text("path,caption\n" + rows)
    return folder / "captions.csv"


def tsv_of_pictures(folder):
    table = csv_of_pictures(folder)
    (folder / "captions.tsv").write_text(table.read_text().replace(",", "\t"))
    table.unlink()
    return folder / "captions.tsv"


def jsonl_of_pictures(folder):
    folder_of_pictures(folder)
    rows = [{"path": f"{number}.png", "caption": caption(number)} for number in range(9)]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "captions.jsonl"


def parquet_of_paths(folder):
    folder_of_pictures(folder)
    table = {"path": [f"{n}.png" for n in range(9)], "caption": [caption(n) for n in range(9)]}
    pq.write_table(pa.table(table), folder / "captions.parquet")
    return folder / "captions.parquet"


def saved_pictures(folder):
    return save_to_disk(folder, range(9), files=1, kind="PNG")


def parquet_of_pictures(folder):
    folder.mkdir()
    images = [{"bytes": image(number, "PNG"), "path": None} for number in range(9)]
    table = pa.table({"image": images, "caption": [caption(number) for number in range(9)]})
    pq.write_table(table, folder / "t.parquet", row_group_size=2)
    return folder / "t.parquet"


SOURCES = {
    "tars": write_tars,
    "folder": folder_of_pictures,
    "csv": csv_of_pictures,
    "tsv": tsv_of_pictures,
    "jsonl": jsonl_of_pictures,
    "paths": parquet_of_paths,
    "parquet": parquet_of_pictures,
    "arrow": saved_pictures,
}


@torch.inference_mode()
def plain_loop(teacher, count, kinds=("PNG",)):
    """What anybody would write with open_clip, one pair at a time."""
    images, texts = [], []
    for number in range(count):
        picture = Image.open(io.BytesIO(image(number, kinds[number % len(kinds)])))
        images.append(teacher.model.encode_image(teacher.preprocess(picture)[None]))
        texts.append(teacher.model.encode_text(teacher.tokenizer([caption(number)])))
    return [torch.nn.functional.normalize(torch.cat(rows), dim=-1).numpy() for rows in (images, texts)]


@pytest.mark.parametrize("kind", SOURCES)
def test_make_pool__each_source_as_a_plain_loop_over_open_clip(tmp_path, teachers, kind):
    source = SOURCES[kind](tmp_path / "in")
    made = build(source, tmp_path / "pool", teachers[0], shard_size=4, batch_size=3)
    assert (made.read, made.kept, made.shards, made.repeated) == (9, 9, 3, 0)
    wanted = plain_loop(teachers[0], 9, ("JPEG", "PNG", "WEBP") if kind == "tars" else ("PNG",))
    for member, rows in zip(("l14_img", "l14_txt"), wanted, strict=True):
        assert ((arrays_of(tmp_path / "pool", member) * rows).sum(1) > 1 - 1e-3).all()
    table = table_of(tmp_path / "pool")
    assert table["text"].to_pylist() == [caption(number) for number in range(9)]
    assert table["original_width"].to_pylist() == [24] * 9
    score = np.einsum("nd,nd->n", *(arrays_of(tmp_path / "pool", f"l14_{side}") for side in ("img", "txt")))
    np.testing.assert_allclose(table["clip_l14_similarity_score"].to_numpy(), score, atol=1e-6)


@pytest.mark.parametrize("kind", SOURCES)
def test_make_pool__every_image_is_found_by_its_uid(tmp_path, teachers, kind):
    source = SOURCES[kind](tmp_path / "in")
    build(source, tmp_path / "pool", teachers[0], shard_size=4)
    pool = open_pool(tmp_path / "pool")
    index = ImageIndex.of_parts(pool.root, list(pool.indexes), tmp_path / "images.index")
    kinds = ("JPEG", "PNG", "WEBP") if kind == "tars" else ("PNG",) * 3
    found = [index.read(uid) for uid in table_of(pool.root)["uid"].to_pylist()]
    assert found == [image(number, kinds[number % 3]) for number in range(9)]
    assert index.read("f" * 32) is None


def test_make_pool__is_a_pool_that_nothing_is_wrong_with(tmp_path, teachers):
    build(write_tars(tmp_path / "in"), tmp_path / "pool", teachers[0])
    pool = open_pool(tmp_path / "pool")
    assert inspect_pool(pool).problems == ()
    assert [*pool.columns] == [
        *("uid", "url", "text", "original_width", "original_height", "sha256", "key", "source_uid", "json"),
        "clip_l14_similarity_score",
    ]
    members = read_members(pool.shards[0].npz)
    assert {(m.dtype, m.shape, m.offset is not None) for m in members.values()} == {(np.dtype("f2"), (9, 16), True)}


def test_make_pool__uids_kept_derived_and_told_apart(tmp_path, teachers):
    with_uids = sample(0, uid="a" * 32) | sample(1, uid="a" * 32) | sample(2)
    write_tar(tmp_path / "in" / "0.tar", with_uids)
    write_tar(tmp_path / "in" / "1.tar", sample(2))
    made = build(tmp_path / "in", tmp_path / "pool", teachers[0], shard_size=3)
    key = "000000002"
    derived = [derive_uid("000000001", caption(1), 1), derive_uid(key, caption(2)), derive_uid(key, caption(2), 1)]
    assert table_of(tmp_path / "pool")["uid"].to_pylist() == ["a" * 32, *derived]
    assert made.repeated == 2
    repeated = pq.read_table(tmp_path / "pool" / "repeated.parquet").to_pylist()
    assert [(row["uid"], row["renamed_to"]) for row in repeated] == [("a" * 32, derived[0]), (derived[1], derived[2])]


def test_make_pool__a_sources_own_uids_are_kept_beside_derived_ones(tmp_path, teachers):
    own = ["0E984725-C51C-4BF4-9960-E1C80E27ABA0", "imgur_x1", "12", "", "b" * 32, "b" * 32]
    rows = [f"{n}.png,{caption(n)},{uid}\n" for n, uid in enumerate(own)]
    folder_of_pictures(tmp_path / "in")
    (tmp_path / "in" / "t.csv").write_text("path,caption,uid\n" + "".join(rows))
    made = build(tmp_path / "in" / "t.csv", tmp_path / "pool", teachers[0], shard_size=2, pack=True)
    table = table_of(tmp_path / "pool")
    derived = [derive_uid(f"{n}.png", caption(n)) for n in (1, 2, 3)]
    wanted = ["0e984725c51c4bf49960e1c80e27aba0", *derived, "b" * 32, derive_uid("5.png", caption(5), 1)]
    assert table["uid"].to_pylist() == wanted
    assert table["source_uid"].to_pylist() == [*own[:3], None, None, "b" * 32]
    assert (made.derived, made.repeated) == (2, 1)
    assert build(tmp_path / "in" / "t.csv", tmp_path / "pool", teachers[0]).derived == 2
    with tarfile.open(tmp_path / "pool" / "shards" / "00000000.tar") as tar:
        said = [json.loads(tar.extractfile(name).read()) for name in tar.getnames() if name.endswith(".json")]
    assert [facts["source_uid"] for facts in said] == own[:2]


def test_make_pool__every_row_of_a_table_is_a_pair_or_rejected(tmp_path, teachers):
    folder_of_pictures(tmp_path / "in")
    lines = [f"{n}.png,{caption(n)}" for n in range(9)] + [
        "1.png,a, b",
        "2.png",
        ",x",
        "9.png,gone",
        "3.png,",
        "4.png,4",
    ]
    (tmp_path / "in" / "t.csv").write_text("path,caption\n" + "\n".join(lines))
    made = build(tmp_path / "in" / "t.csv", tmp_path / "pool", teachers[0])
    assert (made.read, made.kept) == (15, 10)
    rejected = pq.read_table(tmp_path / "pool" / "rejected.parquet").to_pylist()
    assert [(row["file"], row["key"], row["reason"].partition(":")[0]) for row in rejected] == [
        ("t.csv", "line 11", "more fields than the first line has"),
        ("t.csv", "line 12", "fewer fields than the first line has"),
        ("t.csv", "line 13", "a row without an image path"),
        ("9.png", "9.png", "no such file"),
        ("3.png", "3.png", "no caption"),
    ]


def bad_pictures(folder):
    """A folder of pictures of which some are good; by name, the others' reasons."""
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = encoded(Image.effect_noise((64, 64), 90))
    good = {
        "cmyk.jpg": encoded(drawn(1).convert("CMYK")),
        "sixteen.png": encoded(Image.fromarray(np.full((9, 9), 9000, np.uint16)), "PNG"),
        "turned.jpg": encoded(drawn(2), exif=exif),
        "pixel.png": encoded(Image.new("RGB", (1, 1)), "PNG"),
        "animated.webp": encoded(drawn(1), "WEBP", save_all=True, append_images=[drawn(2)]),
        "palette.png": encoded(drawn(1).convert("P"), "PNG", transparency=0),
        "huge_caption.jpg": image(3),
    }
    bad = {
        "empty.jpg": (b"", "empty file"),
        "html.jpg": (b"<html>", "not an image"),
        "cut.jpg": (noise[:900], "broken image"),
        "large.png": (encoded(Image.new("L", (120, 100)), "PNG"), "more than 10,000 pixels"),
        "strip.png": (encoded(Image.new("L", (3000, 1)), "PNG"), "more than 200 times as long as wide"),
        "silent.jpg": (image(5), "no caption"),
        "broken_caption.jpg": (image(4), "its caption cannot be decoded"),
    }
    for name, data in {**good, **{name: data for name, (data, _) in bad.items()}}.items():
        (folder / name).write_bytes(data)
        if name != "silent.jpg":
            (folder / name).with_suffix(".txt").write_bytes(b"a picture")
    (folder / "huge_caption.txt").write_text("x" * 100_000)
    (folder / "broken_caption.txt").write_bytes(b"bro\xffken")
    return sorted(good), {name: reason for name, (_, reason) in bad.items()}


def test_make_pool__bad_pictures_are_listed_and_stop_nothing(tmp_path, teachers):
    good, bad = bad_pictures(tmp_path / "in")
    made = build(tmp_path / "in", tmp_path / "pool", teachers[0], most_pixels=10_000, shard_size=5)
    assert (made.read, made.kept) == (len(good) + len(bad), len(good))
    table = table_of(tmp_path / "pool")
    assert table["key"].to_pylist() == good
    rejected = pq.read_table(tmp_path / "pool" / "rejected.parquet").to_pylist()
    assert {row["key"]: row["reason"].partition(":")[0] for row in rejected} == bad
    assert {row["key"] for row in rejected} == {row["file"] for row in rejected}
    assert made.reasons == dict.fromkeys(bad.values(), 1)
    sides = dict(
        zip(good, zip(*(table[f"original_{s}"].to_pylist() for s in ("width", "height")), strict=True), strict=True)
    )
    assert (sides["turned.jpg"], sides["pixel.png"]) == ((20, 24), (1, 1))
    texts = dict(zip(good, table["text"].to_pylist(), strict=True))
    assert len(texts["huge_caption.jpg"]) == 100_000
    assert inspect_pool(open_pool(tmp_path / "pool")).problems == ()


def test_make_pool__cut_tars_and_keys_without_images(tmp_path, teachers):
    write_tars(tmp_path / "in", (3, 3))
    first = tmp_path / "in" / "00000.tar"
    first.write_bytes(first.read_bytes()[:2048])
    write_tar(tmp_path / "in" / "2.tar", {"only.txt": b"text"})
    made = build(tmp_path / "in", tmp_path / "pool", teachers[0])
    assert made.read == made.kept + sum(made.reasons.values())
    assert table_of(tmp_path / "pool")["key"].to_pylist()[-3:] == [f"{number:09d}" for number in (3, 4, 5)]
    assert made.reasons["a key without an image"] == 1
    assert any("cut off" in reason for reason in made.reasons)


def test_make_pool__a_shard_of_bad_pictures_only(tmp_path, teachers):
    members = {f"{number}.jpg": b"no" for number in range(4)} | {f"{number}.txt": b"x" for number in range(4)}
    members = dict(sorted(members.items()))
    write_tar(tmp_path / "in" / "0.tar", members | sample(9))
    made = build(tmp_path / "in", tmp_path / "pool", teachers[0], shard_size=2)
    assert (made.shards, made.read, made.kept) == (1, 5, 1)
    build(tmp_path / "in", tmp_path / "pool", teachers[1], "b32", shard_size=2)
    assert set(open_pool(tmp_path / "pool").archs) == {"l14", "b32"}


def test_make_pool__nothing_usable_is_an_error_with_a_list(tmp_path, teachers):
    write_tar(tmp_path / "in" / "0.tar", {"a.jpg": b"no", "a.txt": b"x"})
    with pytest.raises(PoolFormatError, match="expected a pair that can be used, found 1 not an image; see rejected"):
        build(tmp_path / "in", tmp_path / "pool", teachers[0])


def test_make_pool__stopped_anywhere_ends_with_the_same_bytes(tmp_path, teachers, monkeypatch):
    source = write_tars(tmp_path / "in", (7, 6))
    build(source, tmp_path / "whole", teachers[0], shard_size=4, batch_size=3)
    whole = bytes_of(tmp_path / "whole")
    writes = []
    for where, name in ((shard_files, "write_parquet"), (shard_files, "_save"), (Place, "write_json")):
        monkeypatch.setattr(where, name, stopping(getattr(where, name), writes))
    stopped = 0
    for _ in range(100):
        writes[:] = [stopped % 8 + 1]
        try:
            build(source, tmp_path / "pool", teachers[0], shard_size=4, batch_size=3)
            break
        except KeyboardInterrupt:
            stopped += 1
    assert stopped >= 10
    assert bytes_of(tmp_path / "pool") == whole


def gone_through(told):
    """How far the source has been read, how far it goes, and how many records that is, of what a Report is told."""
    done, total, _, note = told
    return done, total, int(note.partition(" ")[0].replace(",", "") or 0)


def stopping(write, left):
    """The same, but it is interrupted once as many more files are written as `left` says."""

    def wrapped(*arguments):
        write(*arguments)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    return wrapped


def test_make_pool__finished_shards_are_not_embedded_again(tmp_path, teachers):
    source = write_tars(tmp_path / "in")
    assert build(source, tmp_path / "pool", teachers[0]).embedded == 9
    before = bytes_of(tmp_path / "pool")
    assert build(source, tmp_path / "pool", teachers[0]).embedded == 0
    assert bytes_of(tmp_path / "pool") == before


def test_make_pool__a_second_teacher_touches_nothing_of_the_first(tmp_path, teachers):
    source = write_tars(tmp_path / "in")
    pool = tmp_path / "pool"
    build(source, pool, teachers[0], shard_size=4)
    table, before = table_of(pool), {name: arrays_of(pool, name) for name in ("l14_img", "l14_txt")}
    made = build(source, pool, teachers[1], "b32", shard_size=4)
    assert (made.embedded, made.kept) == (9, 9)
    assert table_of(pool).drop_columns(["clip_b32_similarity_score"]) == table
    for name, rows in before.items():
        assert np.array_equal(arrays_of(pool, name), rows)
    for side, rows in zip(("img", "txt"), plain_loop(teachers[1], 9, ("JPEG", "PNG", "WEBP")), strict=True):
        assert ((arrays_of(pool, f"b32_{side}") * rows).sum(1) > 1 - 1e-3).all()
    assert set(open_pool(pool).archs) == {"l14", "b32"}
    assert inspect_pool(open_pool(pool)).problems == ()
    assert all(member.offset is not None for member in read_members(open_pool(pool).shards[0].npz).values())


def test_make_pool__a_second_teacher_wants_the_same_pictures(tmp_path, teachers):
    source = folder_of_pictures(tmp_path / "in")
    build(source, tmp_path / "pool", teachers[0])
    other = bytearray(image(3, "PNG"))
    (source / "3.png").write_bytes(other[:-1] + b"\x81")
    with pytest.raises(
        PoolFormatError, match=r"expected the same 9 pairs, found another image in row 3, 3\.png; bring"
    ):
        build(source, tmp_path / "pool", teachers[1], "b32")


def test_make_pool__a_second_teacher_wants_the_same_captions(tmp_path, teachers):
    table = csv_of_pictures(tmp_path / "in")
    build(table, tmp_path / "pool", teachers[0])
    table.write_text(table.read_text().replace(caption(4), caption(4).upper()))
    with pytest.raises(PoolFormatError, match=r"found another caption in row 4, 4\.png"):
        build(table, tmp_path / "pool", teachers[1], "b32")


def test_make_pool__a_second_teacher_needs_none_of_the_options_again(tmp_path, teachers):
    source = write_tars(tmp_path / "in")
    options = {"shard_size": 4, "pack": True, "most_pixels": 10_000}
    build(source, tmp_path / "pool", teachers[0], **options)
    build(source, tmp_path / "pool", teachers[1], "b32")
    build(source, tmp_path / "told", teachers[0], **options)
    build(source, tmp_path / "told", teachers[1], "b32", **options)
    assert bytes_of(tmp_path / "pool") == bytes_of(tmp_path / "told")


def test_make_pool__says_how_a_source_changed(tmp_path, teachers):
    source = folder_of_pictures(tmp_path / "in")
    build(source, tmp_path / "pool", teachers[0], shard_size=4)
    (source / "9.png").write_bytes(image(9, "PNG"))
    said = r"begun with \(a folder of 9 images, .* in 9 files\), found a folder of 10 images, .* in 10 files; bring"
    with pytest.raises(PoolFormatError, match=said):
        build(source, tmp_path / "pool", teachers[0])
    (source / "9.png").rename(source / "0.png")
    with pytest.raises(PoolFormatError, match="begun with"):
        build(source, tmp_path / "pool", teachers[0])


def test_make_pool__from_tars_in_its_own_shards_folder(tmp_path, teachers):
    """They are the source it was begun with, not images of a pool that is there: it goes on where it stopped."""
    root = tmp_path / "pool"
    write_tars(root / "shards", (5, 4))
    source = open_source(root / "shards")

    def stop(*told):
        if gone_through(told)[2] > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(root / "shards", root, teachers[0], shard_size=3, batch_size=1, report=stop)
    assert not is_extendable(source, root)
    assert build(root / "shards", root, teachers[0]).kept == 9


def test_make_pool__a_packed_pool_that_was_stopped_is_no_source_yet(tmp_path, teachers):
    def stop(*told):
        if gone_through(told)[2] > 4:
            raise KeyboardInterrupt

    source, root = write_tars(tmp_path / "in"), tmp_path / "pool"
    with pytest.raises(KeyboardInterrupt):
        build(source, root, teachers[0], shard_size=3, batch_size=1, pack=True, report=stop)
    with pytest.raises(PoolFormatError, match="expected a finished pool, found one that was stopped"):
        is_extendable(open_source(root / "shards"), root)
    build(source, root, teachers[0])
    assert is_extendable(open_source(root / "shards"), root)


def test_make_pool__does_not_pack_into_its_source(tmp_path, teachers):
    source = folder_of_pictures(tmp_path / "in")
    with pytest.raises(PoolFormatError, match="expected another folder than the source's, found the same"):
        build(source, source, teachers[0], pack=True)
    assert not (source / "metadata").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard_size": 5}, "expected --shard-size 100000, as begun, found --shard-size 5"),
        ({"most_pixels": 5}, "expected --max-pixels 64000000, as begun, found --max-pixels 5"),
        ({"pack": True}, "expected no --pack, as begun, found --pack; leave it out"),
        ({"arch": "../b32"}, "--arch: expected letters"),
        ({"batch_size": 0}, "expected 1 or more, found 100000 and 0"),
    ],
)
def test_make_pool__goes_on_with_the_same_options_only(tmp_path, teachers, options, message):
    source = write_tars(tmp_path / "in")
    build(source, tmp_path / "pool", teachers[0])
    with pytest.raises(PoolFormatError, match=message):
        build(source, tmp_path / "pool", teachers[0], **options)


def test_make_pool__refuses_another_source_teacher_or_pool(tmp_path, teachers, pool):
    source = write_tars(tmp_path / "in")
    build(source, tmp_path / "made", teachers[0])
    with pytest.raises(PoolFormatError, match=r"expected l14 to be l14 .*; give this teacher another --arch"):
        build(source, tmp_path / "made", teachers[1])
    with pytest.raises(PoolFormatError, match="expected the source it was begun with"):
        build(write_tars(tmp_path / "other", (2,)), tmp_path / "made", teachers[0])
    with pytest.raises(PoolFormatError, match="found another pool; choose a new folder"):
        build(source, pool, teachers[0])


def test_make_pool__remembers_the_teachers(tmp_path, teachers):
    source = write_tars(tmp_path / "in")
    for arch, teacher in zip(("l14", "b32"), teachers, strict=True):
        build(source, tmp_path / "pool", teacher, arch)
    known = read_teachers(tmp_path / "pool")
    assert [*known] == ["b32", "l14"]
    assert known["l14"].temperature == pytest.approx(teachers[0].temperature, rel=1e-5)
    assert known["l14"].weights != known["b32"].weights
    (tmp_path / "pool" / "teachers.json").write_text("[]")
    with pytest.raises(PoolFormatError, match="expected teachers by arch"):
        read_teachers(tmp_path / "pool")


def test_make_pool__remembers_where_a_teacher_lies_wherever_it_was_asked_from(tmp_path, teacher_folders, monkeypatch):
    monkeypatch.chdir(teacher_folders[0].parent)
    (tmp_path / "openai").mkdir()
    named = {f"local-dir:{teacher_folders[0].name}": f"local-dir:{teacher_folders[0]}", "ViT-B-32": "ViT-B-32"}
    named |= {teacher_folders[0].name: str(teacher_folders[0]), "hf-hub:a/b": "hf-hub:a/b"}
    teacher = load_teacher(f"local-dir:{teacher_folders[0].name}")
    assert {given: teacher_info(teacher, given, None).model for given in named} == named
    weights = f"{teacher_folders[0].name}/open_clip_model.safetensors"
    assert teacher_info(teacher, "ViT-B-32", weights).pretrained == str(teacher_folders[0].parent / weights)
    monkeypatch.chdir(tmp_path)
    assert teacher_info(teacher, "ViT-B-32", "openai").pretrained == "openai"


def test_make_pool__pool_and_pictures_move_together(tmp_path, teachers):
    (tmp_path / "world").mkdir()
    source = folder_of_pictures(tmp_path / "world" / "in")
    build(source, tmp_path / "world" / "pool", teachers[0])
    (tmp_path / "world").rename(tmp_path / "moved")
    pool = open_pool(tmp_path / "moved" / "pool")
    named = [str(tmp_path / "moved")]
    index = ImageIndex.of_parts(pool.root, list(pool.indexes), tmp_path / "images.index", named=named)
    uid = table_of(pool.root)["uid"][4].as_py()
    assert index.read(uid) == image(4, "PNG")
    (tmp_path / "moved" / "in" / "4.png").unlink()
    assert index.read(uid) is None


def test_make_pool__progress_goes_to_the_end(tmp_path, teachers):
    told = []

    def note(*at):
        told.append(gone_through(at))

    build(write_tars(tmp_path / "in"), tmp_path / "pool", teachers[0], report=note, shard_size=4)
    assert told[-1] == (sum(open_source(tmp_path / "in").sizes),) * 2 + (9,)
    assert all(0 <= done <= total for done, total, _ in told)
    assert told == sorted(told)
    folder = folder_of_pictures(tmp_path / "folder")
    told.clear()
    build(folder, tmp_path / "other", teachers[0], report=note, shard_size=4)
    assert told == sorted(told)


def test_make_pool__reads_its_source_once_however_many_shards(tmp_path, teachers):
    source, handed_out = open_source(write_tars(tmp_path / "in")), []

    def read(part):
        for record in source.read(part):
            handed_out.append((part, record.key))
            yield record

    counting, whole = replace(source, read=read), [(part, r.key) for part in (0, 1) for r in source.read(part)]
    make_pool(counting, tmp_path / "pool", teachers[0], arch="l14", shard_size=2, workers=1)
    assert handed_out == whole
    # A shard that is lost in the middle: what comes before it is gone through again, what comes after is not.
    for path in tmp_path.glob("pool/*/00000001*"):
        path.unlink()
    handed_out.clear()
    make_pool(counting, tmp_path / "pool", teachers[0], arch="l14", shard_size=2, workers=1)
    assert len(handed_out) <= 5 < len(whole)


def test_make_pool__goes_on_with_the_next_shard_while_one_is_written(tmp_path, teachers, monkeypatch):
    source, begun, waited = open_source(write_tars(tmp_path / "in", (9,))), Event(), []

    def read(part):
        for number, record in enumerate(source.read(part)):
            if number > 5:
                # Of the next shard, the first record alone is looked at before a shard is written.
                begun.set()
            yield record

    write = maker.write_shard
    monkeypatch.setattr(maker, "write_shard", lambda *of: waited.append(begun.wait(PATIENCE_S)) or write(*of))
    made = make_pool(replace(source, read=read), tmp_path / "pool", teachers[0], arch="l14", shard_size=4, workers=1)
    assert (made.kept, waited) == (9, [True] * 3)


def test_make_pool__a_disk_that_is_full_stops_the_next_shard(tmp_path, teachers, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(maker, "write_shard", full)
    told = []
    with pytest.raises(PoolFormatError, match="found No space left"):
        build(
            write_tars(tmp_path / "in"),
            tmp_path / "pool",
            teachers[0],
            shard_size=3,
            report=lambda *at: told.append(gone_through(at)),
        )
    assert told[-1][2] <= 6
    assert not list((tmp_path / "pool").glob("metadata/*"))


def test_embed__killed_by_the_system_and_started_again(tmp_path, teacher_folders):
    source = write_tars(tmp_path / "in", (60, 60))
    options = ["--model", f"local-dir:{teacher_folders[0]}", "--arch", "l14", "--shard-size", "10", "--batch-size", "4"]
    command = [sys.executable, "-m", "clipsel_core", "embed", str(source)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    third = tmp_path / "pool" / "embed" / "00000002.json"
    with subprocess.Popen([*command, str(tmp_path / "pool"), *options], cwd=ROOT, env=environment) as process:
        try:
            until(lambda: third.exists() or process.poll() is not None, "three shards are embedded")
        finally:
            process.kill()
    begun = len(list((tmp_path / "pool" / "embed").glob("*.json")))
    for root in ("pool", "whole"):
        said = {"capture_output": True, "text": True, "timeout": PATIENCE_S}
        done = subprocess.run([*command, str(tmp_path / root), *options], cwd=ROOT, env=environment, **said)
        assert done.returncode == 0, done.stderr
        assert "120 of 120 pairs in 12 shards" in done.stdout
    assert 3 <= begun <= 13
    assert bytes_of(tmp_path / "pool") == bytes_of(tmp_path / "whole")
    assert json.loads((tmp_path / "pool" / "teachers.json").read_text())["l14"]["pretrained"] is None
    assert len(uids.unique(uids.from_hex(table_of(tmp_path / "pool")["uid"]))) == 120


def test_embed__interrupted_at_a_terminal_says_one_line(tmp_path, teacher_folders):
    """There every process of the command gets the signal, the workers too."""
    options = ["--model", f"local-dir:{teacher_folders[0]}", "--arch", "l14", "--shard-size", "10", "--batch-size", "4"]
    source = write_tars(tmp_path / "in", (300, 300))
    command = [sys.executable, "-m", "clipsel_core", "embed", str(source), str(tmp_path / "pool"), *options]
    # A shell that runs tests in the background has them ignore the signal, and so would the command.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    second = tmp_path / "pool" / "embed" / "00000001.json"
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        signal.signal(signal.SIGINT, usual)
        try:
            until(lambda: second.exists() or process.poll() is not None, "two shards are embedded")
            os.killpg(process.pid, signal.SIGINT)
            said = process.communicate(timeout=PATIENCE_S)[1]
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "interrupted; start it again to go on"
    assert not list((tmp_path / "pool").rglob("*.partial"))


PARTS = [3, 0, 4, 1, 0]


@pytest.fixture
def source():
    def read(part):
        return (Record(f"{part}-{number}", "", position=10 * number) for number in range(PARTS[part]))

    names = tuple(map(str, range(len(PARTS))))
    return Source("folder", Place.of("."), names, tuple(10 * size for size in PARTS), read, "", "", "")


def keys(records):
    return [record.key for record in records]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 20])
@pytest.mark.parametrize("resumed", [False, True])
def test_feed__shards_of_any_size_hold_every_record_once(source, size, resumed):
    feed, cursor, found, lengths = Feed(source, Cursor()), Cursor(), [], []
    while True:
        feed = Feed(source, cursor) if resumed else feed.continued(cursor)
        some = keys(itertools.islice(feed, size))
        found, lengths, cursor = found + some, [*lengths, len(some)], feed.following()
        if feed.exhausted():
            break
    assert found == keys(record for part in range(len(PARTS)) for record in source.read(part))
    assert set(lengths[:-1]) <= {size}


def test_feed__goes_on_only_where_it_stands(source):
    feed = Feed(source, Cursor())
    assert keys(itertools.islice(feed, 4)) == ["0-0", "0-1", "0-2", "2-0"]
    assert not feed.exhausted()
    assert feed.following() == Cursor(2, 1)
    assert feed.continued(Cursor(2, 1)) is feed
    other = feed.continued(Cursor(0, 2))
    assert other is not feed
    assert next(other).key == "0-2"
    assert next(feed).key == "2-1"


def test_feed__reached__from_the_start_and_from_a_cursor(source):
    whole, ends = Feed(source, Cursor()), [0, 30, 30, 70, 80]
    reached = [whole.reached(record, number) for number, record in enumerate(whole, 1)]
    assert reached == [ends[part] + 10 * number for part in range(5) for number in range(PARTS[part])]
    late = Feed(source, Cursor(2, 2))
    assert [late.reached(record, number) for number, record in enumerate(late, 1)] == reached[5:]
    assert late.handed_out == 3
