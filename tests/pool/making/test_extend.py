"""Does a pool that somebody else made get another teacher's embeddings, and keep all that it has?"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsel_core.errors import PoolFormatError
from clipsel_core.npy import read_members
from clipsel_core.pool.images import open_images
from clipsel_core.pool.layout import open_pool, read_teachers
from clipsel_core.pool.making import extend as extending
from clipsel_core.pool.making import matching
from clipsel_core.pool.making.extend import extend_pool
from clipsel_core.pool.making.make import make_pool
from clipsel_core.pool.making.settings import is_extendable
from clipsel_core.pool.sources.look import open_source
from tests import traps
from tests.pool.making.test_make import arrays_of, build, bytes_of, folder_of_pictures, plain_loop, table_of
from tests.pool.pictures import caption, image, sample, write_tar, write_teacher
from tests.pool.servers import serving

COUNT = 9
UIDS = [f"{7 * number + 3:032x}" for number in range(COUNT)]


def datacomp_pool(root, *, shards=True, seed=0):
    """Nine pairs in two shards as DataComp has them: uid, captions, faces, l14 and b32, in an order of their own."""
    rng = np.random.default_rng(seed)
    (root / "metadata").mkdir(parents=True)
    for name, rows in (("00ab", [4, 1, 7, 0]), ("31cd", [8, 2, 3, 6, 5])):
        columns = {
            "uid": [UIDS[row] for row in rows],
            "url": [f"https://host/{row}" for row in rows],
            "text": [caption(row) for row in rows],
            "original_width": pa.array([24] * len(rows), pa.int32()),
            "clip_l14_similarity_score": pa.array(rng.random(len(rows)), pa.float64()),
            "face_bboxes": [[[0.1, 0.2, 0.3, 0.4]] * (row % 3) for row in rows],
        }
        pq.write_table(pa.table(columns), root / "metadata" / f"{name}.parquet")
        arrays = {f"l14_{side}": rng.standard_normal((len(rows), 24)).astype(np.float16) for side in ("img", "txt")}
        np.savez(root / "metadata" / f"{name}.npz", **arrays)
    if shards:
        tars(root / "shards")
    return root


def tars(folder, numbers=range(COUNT), named=True):
    """The pairs in two tars, their captions as they were downloaded, which are not the pool's."""
    numbers = list(numbers)
    for tar, rows in enumerate((numbers[:5], numbers[5:])):
        files = {}
        for row in rows:
            said = sample(row, uid=UIDS[row]) if named else sample(row)
            files |= {name: b"another caption" if name.endswith(".txt") else data for name, data in said.items()}
        write_tar(folder / f"{tar:08d}.tar", files)
    return folder


def extend(source, root, teacher, arch="b32", **options):
    return extend_pool(open_source(source), root, teacher, arch=arch, model=arch, **{"workers": 1, **options})


def rows_of(root):
    return [int(uid, 16) // 7 for uid in table_of(root)["uid"].to_pylist()]


def test_extend_pool__datacomps_own_tars(tmp_path, teachers):
    root = datacomp_pool(tmp_path / "pool")
    before, arrays = table_of(root), {m: arrays_of(root, m) for m in ("l14_img", "l14_txt")}
    source = open_source(root / "shards")
    assert is_extendable(source, root)
    done = extend(root / "shards", root, teachers[0], batch_size=2)
    assert (done.pairs, done.set_aside, done.by, done.embedded, done.strangers) == (9, 0, "uid", 9, 0)
    after = table_of(root)
    assert after.drop_columns(["clip_b32_similarity_score"]) == before
    assert all(np.array_equal(arrays_of(root, member), values) for member, values in arrays.items())
    assert {m.offset is not None for m in read_members(open_pool(root).shards[0].npz).values()} == {True}
    images, texts = plain_loop(teachers[0], COUNT, ("JPEG",))
    for member, rows in (("b32_img", images), ("b32_txt", texts)):
        assert ((arrays_of(root, member) * rows[rows_of(root)]).sum(1) > 1 - 1e-3).all()
    score = (arrays_of(root, "b32_img") * arrays_of(root, "b32_txt")).sum(1)
    np.testing.assert_allclose(after["clip_b32_similarity_score"].to_numpy(), score, atol=1e-6)
    assert list(read_teachers(root)) == ["b32"]
    assert sorted(open_pool(root).archs) == ["b32", "l14"]
    assert not (root / "images").exists()


def test_extend_pool__pairs_without_a_usable_image_keep_their_rows(tmp_path, teachers):
    root = datacomp_pool(tmp_path / "pool", shards=False)
    tars(root / "shards", [0, 1, 2, 4, 5, 6, 8])
    with tarfile.open(root / "shards" / "00000002.tar", "w") as archive:
        for name, data in (("x.jpg", b"no image"), ("x.json", json.dumps({"uid": UIDS[7]}).encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    done = extend(root, root, teachers[0])
    assert (done.pairs, done.set_aside) == (9, 2)
    assert dict(done.reasons) == {"no image in the source": 1, "not an image": 1}
    aside = pq.read_table(root / "set_aside_b32.parquet").to_pylist()
    assert {(row["uid"], row["reason"]) for row in aside} == {
        (UIDS[7], "not an image: none of JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF"),
        (UIDS[3], "no image in the source"),
    }
    empty = np.array([row in (3, 7) for row in rows_of(root)])
    for member in ("b32_img", "b32_txt"):
        assert (arrays_of(root, member)[empty] == 0).all()
        np.testing.assert_allclose(np.linalg.norm(arrays_of(root, member)[~empty], axis=1), 1, atol=1e-3)
    assert np.array_equal(np.array(table_of(root)["clip_b32_similarity_score"].is_null()), empty)


def test_extend_pool__shards_given_as_source_show_in_the_gallery(tmp_path, teachers):
    root = datacomp_pool(tmp_path / "pool", shards=False)
    tars(tmp_path / "downloaded")
    extend(tmp_path / "downloaded", root, teachers[0])
    index = open_images(open_pool(root), tmp_path / "cache.parquet")
    assert [index.read(uid) for uid in UIDS] == [image(row) for row in range(COUNT)]


def test_extend_pool__matched_by_key_where_the_tars_have_no_uids(tmp_path, teachers):
    root = datacomp_pool(tmp_path / "pool", shards=False)
    for shard in open_pool(root).shards:
        table = pq.read_table(shard.parquet)
        keys = [f"{int(uid, 16) // 7:09d}" for uid in table["uid"].to_pylist()]
        pq.write_table(table.append_column("key", pa.array(keys)), shard.parquet)
    done = extend(tars(tmp_path / "in", named=False), root, teachers[0])
    assert (done.by, done.set_aside) == ("key", 0)
    images, _ = plain_loop(teachers[0], COUNT, ("JPEG",))
    assert ((arrays_of(root, "b32_img") * images[rows_of(root)]).sum(1) > 1 - 1e-3).all()


def test_extend_pool__a_table_of_uids_and_paths(tmp_path, teachers):
    root = datacomp_pool(tmp_path / "pool", shards=False)
    folder_of_pictures(tmp_path / "in")
    rows = "".join(f"{number}.png,whatever,{UIDS[number].upper()}\n" for number in range(COUNT))
    (tmp_path / "in" / "t.csv").write_text(
        "path,caption,uid\n" + rows + f"8.png,stranger,{'f' * 32}\n8.png,again,{UIDS[8]}\n"
    )
    done = extend(tmp_path / "in" / "t.csv", root, teachers[0])
    assert (done.set_aside, done.strangers, done.repeated) == (0, 1, 1)
    images, _ = plain_loop(teachers[0], COUNT)
    assert ((arrays_of(root, "b32_img") * images[rows_of(root)]).sum(1) > 1 - 1e-3).all()


@pytest.mark.parametrize("form", [lambda uid: uid.lstrip("0"), lambda uid: str(UUID(uid)).upper()])
def test_extend_pool__uids_as_the_source_writes_them(tmp_path, teachers, form):
    root = datacomp_pool(tmp_path / "pool", shards=False)
    folder_of_pictures(tmp_path / "in")
    rows = "".join(f"{number}.png,whatever,{form(UIDS[number])}\n" for number in range(COUNT))
    (tmp_path / "in" / "t.csv").write_text("path,caption,uid\n" + rows)
    done = extend(tmp_path / "in" / "t.csv", root, teachers[0])
    assert (done.by, done.set_aside, done.strangers) == ("uid", 0, 0)


def parquets(folder, files=(range(6), range(6, COUNT)), **changed):
    """The pairs in parquets that hold their images, in groups of two rows, strangers among them."""
    folder.mkdir()
    for number, rows in enumerate(files):
        names, images = ["f" * 31 + str(number)], [{"bytes": image(99), "path": "stranger.jpg"}]
        names += [UIDS[row] for row in rows]
        images += [changed.get(f"row{row}", {"bytes": image(row), "path": f"{row}.jpg"}) for row in rows]
        table = pa.table({"uid": names, "image": images, "caption": ["another caption"] * len(names)})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=2)
    return folder


@pytest.mark.parametrize("remote", [False, True])
def test_extend_pool__images_inside_parquets(tmp_path, teachers, remote):
    root = datacomp_pool(tmp_path / "pool", shards=False)
    parquets(tmp_path / "in")
    with serving(tmp_path) as served:
        done = extend(f"{served.address}/in" if remote else tmp_path / "in", root, teachers[0], batch_size=2)
        index = open_images(open_pool(root), tmp_path / "cache.parquet")
        assert [index.read(uid) for uid in UIDS] == [image(row) for row in range(COUNT)]
    assert (done.set_aside, done.by, done.embedded, done.strangers) == (0, "uid", 9, 2)
    images, texts = plain_loop(teachers[0], COUNT, ("JPEG",))
    for member, rows in (("b32_img", images), ("b32_txt", texts)):
        assert ((arrays_of(root, member) * rows[rows_of(root)]).sum(1) > 1 - 1e-3).all()


def test_extend_pool__rows_of_parquets_without_an_image(tmp_path, teachers):
    root = datacomp_pool(tmp_path / "pool", shards=False)
    beside = {"bytes": None, "path": "beside.jpg"}
    parquets(tmp_path / "in", row2={"bytes": None, "path": None}, row5=beside, row7={"bytes": b"none", "path": ""})
    (tmp_path / "in" / "beside.jpg").write_bytes(image(5))
    done = extend(tmp_path / "in", root, teachers[0])
    assert dict(done.reasons) == {"a row without an image": 1, "not an image": 1}
    images, _ = plain_loop(teachers[0], COUNT, ("JPEG",))
    good = np.array([row not in (2, 7) for row in rows_of(root)])
    assert ((arrays_of(root, "b32_img") * images[rows_of(root)]).sum(1)[good] > 1 - 1e-3).all()


def test_match__no_image_is_read_and_several_tars_at_once_give_the_same(tmp_path, monkeypatch):
    pool = open_pool(datacomp_pool(tmp_path / "pool"))
    source = open_source(tars(tmp_path / "in"))
    plain = matching.match(source, pool, lambda *_: None)
    monkeypatch.setattr(matching, "_WORTH_A_PROCESS", 0)
    told = []
    at_once = matching.match(source, pool, lambda done, total: told.append((done, total)))
    assert np.array_equal(plain.places, at_once.places)
    assert (plain.files, (plain.places["file"] >= 0).sum()) == (at_once.files, COUNT)
    assert told == sorted(told)
    assert told[-1][1] == sum(source.sizes)
    assert all(record.data is None for part in (0, 1) for record in source.glance(part))


@pytest.fixture
def embedding_tars(tmp_path):
    """`embed`, as begun on three tars so large that processes look through them; the first tells what names the pairs.

    As keywords: more environment. Returns the process when it knows its source but has not looked through it.
    """
    pairs = {}
    for number in range(1000):
        pairs |= {f"{number:05d}.jpg": b"", f"{number:05d}.json": json.dumps({"uid": f"{number:x}"}).encode()}
    write_tar(tmp_path / "in" / "0.tar", pairs)
    tars(tmp_path / "in")
    with open(tmp_path / "in" / "9.tar", "wb") as empty:
        empty.truncate(matching._WORTH_A_PROCESS)
    root, teacher = datacomp_pool(tmp_path / "pool"), write_teacher(tmp_path / "teacher", 0)
    command = [sys.executable, "-m", "clipsel_core", "embed", str(tmp_path / "in"), str(root), "--precision", "float32"]
    command += ["--model", f"local-dir:{teacher}", "--arch", "b32"]

    def start(**environment):
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr.readline().endswith("webdataset, 4 tars\n")
        return process

    return start


def test_embed__a_tar_that_vanishes_while_processes_look_through_them(tmp_path, embedding_tars):
    process = embedding_tars()
    (tmp_path / "in" / "00000001.tar").unlink()
    out, said = process.communicate(timeout=120)
    gone = "found No such file or directory; start again when it can be: finished shards are kept"
    assert (process.returncode, out) == (1, "")
    assert said.splitlines()[-1] == f"{tmp_path / 'in' / '00000001.tar'}: expected a tar that can be read, {gone}"
    assert "Traceback" not in said


def test_embed__a_process_that_is_killed_while_it_looks_through_a_tar(tmp_path, embedding_tars):
    tar = tmp_path / "in" / "00000001.tar"
    process = embedding_tars(**traps.setting(tar, tmp_path / "hook"))
    out, said = process.communicate(timeout=120)
    ended = "found that its process ended by SIGKILL; see whether memory runs out, then start again"
    assert (process.returncode, out) == (1, "")
    assert said.splitlines()[-1] == f"{tar}: expected to go through it for pairs, {ended}"
    assert "Traceback" not in said


def test_extend_pool__killed_between_shards_it_ends_with_the_same_bytes(tmp_path, teachers, monkeypatch):
    roots = [datacomp_pool(tmp_path / name) for name in ("whole", "cut")]
    extend(roots[0] / "shards", roots[0], teachers[0])
    add, calls = extending.add_columns, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        add(*arguments)

    monkeypatch.setattr(extending, "add_columns", killed)
    with pytest.raises(KeyboardInterrupt):
        extend(roots[1] / "shards", roots[1], teachers[0])
    monkeypatch.undo()
    (roots[1] / "embed" / "b32" / ".31cd.parquet.1-1.partial").write_bytes(b"half of one")
    monkeypatch.setattr(extending, "match", lambda *_: pytest.fail("what was found is kept"))
    done = extend(roots[1] / "shards", roots[1], teachers[0])
    assert done.embedded == 5
    whole, cut = (bytes_of(root) for root in roots)
    assert whole.keys() == cut.keys()
    assert [name for name in whole if whole[name] != cut[name] and "found.parquet" not in name] == []


def test_extend_pool__a_third_teacher_and_once_more_changes_nothing(tmp_path, teachers):
    root = datacomp_pool(tmp_path / "pool")
    extend(root / "shards", root, teachers[0])
    extend(root / "shards", root, teachers[1], arch="own")
    before = bytes_of(root)
    assert extend(root / "shards", root, teachers[1], arch="own").embedded == 0
    assert bytes_of(root) == before
    assert sorted(open_pool(root).archs) == ["b32", "l14", "own"]


def test_extend_pool__a_packed_pool_of_embeds_own_without_its_source(tmp_path, teachers):
    build(folder_of_pictures(tmp_path / "in"), tmp_path / "pool", teachers[0], pack=True, shard_size=4)
    build(tmp_path / "in", tmp_path / "both", teachers[0], pack=True, shard_size=4)
    build(tmp_path / "in", tmp_path / "both", teachers[1], arch="b32", pack=True, shard_size=4)
    shutil.rmtree(tmp_path / "in")
    root = tmp_path / "pool"
    assert is_extendable(open_source(root / "shards"), root)
    assert extend(root / "shards", root, teachers[1]).set_aside == 0
    for member in ("l14_img", "b32_img", "b32_txt"):
        np.testing.assert_allclose(arrays_of(root, member), arrays_of(tmp_path / "both", member), atol=2e-3)
    assert table_of(root)["uid"] == table_of(tmp_path / "both")["uid"]


def without_captions(root):
    for shard in open_pool(root).shards:
        pq.write_table(pq.read_table(shard.parquet).drop_columns(["text"]), shard.parquet)


def with_a_score_of_its_own(root):
    for shard in open_pool(root).shards:
        table = pq.read_table(shard.parquet)
        pq.write_table(
            table.append_column("clip_b32_similarity_score", pa.nulls(len(table), pa.float32())), shard.parquet
        )


@pytest.mark.parametrize(
    ("arch", "change", "tar", "says"),
    [
        ("l14", None, tars, "expected no l14 in the pool yet, found embeddings l14; choose another --arch"),
        ("b32", with_a_score_of_its_own, tars, "found clip_b32_similarity_score; choose another"),
        ("b32", without_captions, tars, "expected captions in a column text or caption"),
        ("b32", None, lambda folder: tars(folder, named=False), "expected a uid with each image"),
        ("../b32", None, tars, "expected letters, digits"),
    ],
)
def test_extend_pool__what_it_refuses(tmp_path, teachers, arch, change, tar, says):
    root = datacomp_pool(tmp_path / "pool", shards=False)
    if change:
        change(root)
    before = bytes_of(root)
    with pytest.raises(PoolFormatError, match=says):
        extend(tar(tmp_path / "in"), root, teachers[0], arch=arch)
    assert bytes_of(root) == before


def test_extend_pool__images_of_another_pool_are_refused(tmp_path, teachers):
    root = datacomp_pool(tmp_path / "pool", shards=False)
    write_tar(tmp_path / "in" / "0.tar", sample(0, uid="f" * 32))
    with pytest.raises(PoolFormatError, match=r"expected images of pairs of .*, by uid, found none of 1"):
        extend(tmp_path / "in", root, teachers[0])


def test_extend_pool__another_source_midway_is_refused(tmp_path, teachers):
    root = datacomp_pool(tmp_path / "pool")
    extend(root / "shards", root, teachers[0])
    with pytest.raises(PoolFormatError, match="expected the source it was begun with"):
        extend(tars(tmp_path / "others", range(6)), root, teachers[0])


def pool_of_embeddings(folder, root, keys=True):
    """A pool of clip-retrieval's output without its images; keys: whether it says the tars' keys in place of paths."""
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(1)
    for name in ("img_emb", "text_emb"):
        np.save(folder / name / f"{name}_0.npy", rng.standard_normal((COUNT, 24)).astype(np.float32))
    column = {"image_path": [f"{number:05d}" for number in range(COUNT)]} if keys else {"uid": UIDS}
    captions = {"caption": [caption(number) for number in range(COUNT)]}
    pq.write_table(pa.table({**column, **captions}), folder / "metadata" / "metadata_0.parquet")
    make_pool(open_source(folder), root, None, arch="l14", shard_size=5)


@pytest.mark.parametrize(("keys", "named"), [(True, False), (True, True), (False, True)])
def test_extend_pool__of_embeddings_gets_its_images_and_a_second_teacher(tmp_path, teachers, keys, named):
    """By key too where the tars have uids: those of a pool without any are made up."""
    root = tmp_path / "pool"
    pool_of_embeddings(tmp_path / "in", root, keys)
    tar = {}
    for number in range(COUNT):
        said = sample(number, uid=UIDS[number]) if named else sample(number)
        tar |= {f"{number:05d}{os.path.splitext(name)[1]}": data for name, data in said.items()}
    write_tar(tmp_path / "tars" / "0.tar", tar)
    source = open_source(tmp_path / "tars")
    assert is_extendable(source, root)
    before = arrays_of(root, "l14_img")
    done = extend(tmp_path / "tars", root, teachers[0])
    assert (done.pairs, done.set_aside, done.by) == (COUNT, 0, "key" if keys else "uid")
    np.testing.assert_array_equal(arrays_of(root, "l14_img"), before)
    assert sorted(open_pool(root).archs) == ["b32", "l14"]
    index = open_images(open_pool(root), tmp_path / "cache")
    assert index is not None
    numbers = [
        int(text) if keys else UIDS.index(uid)
        for uid, text in zip(table_of(root)["uid"].to_pylist(), table_of(root)["key"].to_pylist(), strict=True)
    ]
    assert [index.read(uid) for uid in table_of(root)["uid"].to_pylist()] == [image(number) for number in numbers]


def test_is_extendable__a_pool_of_embeddings_goes_on_with_embeddings(tmp_path):
    pool_of_embeddings(tmp_path / "in", tmp_path / "pool")
    assert not is_extendable(open_source(tmp_path / "in"), tmp_path / "pool")


def test_extend_pool__captions_in_a_column_of_another_case_and_type(tmp_path, teachers):
    root = datacomp_pool(tmp_path / "pool")
    expected = arrays_of(extend_and(root, teachers), "b32_txt")
    other = datacomp_pool(tmp_path / "other")
    parquet = open_pool(other).shards[1].parquet
    table = pq.read_table(parquet)
    texts = pa.array([[text, "more"] for text in table["text"].to_pylist()])
    pq.write_table(table.drop_columns(["text"]).append_column("TEXT", texts), parquet)
    np.testing.assert_array_equal(arrays_of(extend_and(other, teachers), "b32_txt"), expected)


def extend_and(root, teachers):
    extend(root / "shards", root, teachers[0])
    return root
