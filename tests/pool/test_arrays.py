"""Do embeddings that somebody else made become the same pool as if they had been made here?"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.images import ImageIndex
from clipsel_core.pool.inspect import inspect_pool
from clipsel_core.pool.layout import open_pool
from clipsel_core.pool.making.make import make_pool
from clipsel_core.pool.sources.look import open_source
from tests.pool.pictures import caption, image


def rows(count, width=8, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((count, width)).astype(dtype) * 3


def unit(values):
    exact = values.astype(np.float64)
    return exact / np.linalg.norm(exact, axis=1, keepdims=True)


def clip_retrieval(folder, counts=(5, 3), dtype=np.float32):
    """What `clip-retrieval inference` writes; returns both sides of the embeddings."""
    for name in ("img_emb", "text_emb", "metadata", "pics"):
        (folder / name).mkdir(parents=True)
    sides, start = [[], []], 0
    for part, count in enumerate(counts):
        for side, name in enumerate(("img_emb", "text_emb")):
            sides[side].append(rows(count, seed=[part, side], dtype=dtype))
            np.save(folder / name / f"{name}_{part}.npy", sides[side][-1])
        numbers = range(start, start := start + count)
        for number in numbers:
            (folder / "pics" / f"{number}.jpg").write_bytes(image(number))
        paths = [f"pics/{number}.jpg" for number in numbers]
        table = {"image_path": paths, "caption": [caption(number) for number in numbers]}
        pq.write_table(pa.table(table), folder / "metadata" / f"metadata_{part}.parquet")
    return [np.concatenate(parts) for parts in sides]


def build(source, root, arch="l14", **options):
    return make_pool(open_source(source), root, None, arch=arch, **options)


def arrays_of(root, member):
    return np.concatenate([np.load(shard.npz.path)[member] for shard in open_pool(root).shards])


def table_of(root):
    return pa.concat_tables([pq.read_table(shard.parquet) for shard in open_pool(root).shards])


def test_clip_retrieval__columns_are_found_for_each_table(tmp_path):
    clip_retrieval(tmp_path)
    second = tmp_path / "metadata" / "metadata_1.parquet"
    table = pq.read_table(second)
    pq.write_table(table.rename_columns(["image_path", "text"]), second)
    found = [record.caption for part in range(2) for record in open_source(tmp_path).read(part)]
    assert found == [caption(number) for number in range(8)]
    pq.write_table(table.drop_columns(["caption"]), second)
    with pytest.raises(PoolFormatError, match=r"metadata_1\.parquet: expected captions, as in metadata/metadata_0"):
        open_source(tmp_path)
    pq.write_table(table.set_column(1, "caption", pa.array([{"en": "x"}] * 3)), second)
    with pytest.raises(PoolFormatError, match=r"metadata_1\.parquet: expected texts in column caption, found struct"):
        open_source(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-8"])
def test_npy__a_txt_of_captions_by_its_byte_order_mark(tmp_path, encoding):
    npy_pair(tmp_path / "in", 2)
    (tmp_path / "in" / "rows.txt").write_bytes("caf\u00e9\r\na boat\r\n".encode(encoding))
    assert [record.caption for record in open_source(tmp_path / "in").read(0)] == ["caf\u00e9", "a boat"]
    (tmp_path / "in" / "rows.txt").write_bytes(b"caf\xe9\ra boat\r")
    made = build(tmp_path / "in", tmp_path / "pool")
    assert (made.kept, dict(made.reasons)) == (1, {"its caption cannot be decoded": 1})


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_clip_retrieval__becomes_a_pool_with_its_images(tmp_path, dtype):
    sides = clip_retrieval(tmp_path / "in", dtype=dtype)
    made = build(tmp_path / "in", tmp_path / "pool", shard_size=3)
    assert (made.read, made.kept, made.shards) == (8, 8, 3)
    for member, side in zip(("l14_img", "l14_txt"), sides, strict=True):
        found = arrays_of(tmp_path / "pool", member)
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, unit(side), atol=5e-4)
    table = table_of(tmp_path / "pool")
    assert table["text"].to_pylist() == [caption(number) for number in range(8)]
    assert table["key"].to_pylist() == [f"pics/{number}.jpg" for number in range(8)]
    score = (unit(sides[0]) * unit(sides[1])).sum(1)
    np.testing.assert_allclose(table["clip_l14_similarity_score"].to_numpy(), score, atol=2e-3)
    pool = open_pool(tmp_path / "pool")
    assert inspect_pool(pool).problems == ()
    index = ImageIndex.of_parts(pool.root, list(pool.indexes), tmp_path / "images.index")
    assert [index.read(uid) for uid in table["uid"].to_pylist()] == [image(number) for number in range(8)]


def test_clip_retrieval__parts_in_the_order_of_their_numbers(tmp_path):
    sides = clip_retrieval(tmp_path / "in", counts=(1,) * 11)
    build(tmp_path / "in", tmp_path / "pool")
    np.testing.assert_allclose(arrays_of(tmp_path / "pool", "l14_img"), unit(sides[0]), atol=5e-4)


def npy_pair(folder, count=4):
    folder.mkdir()
    sides = [rows(count, seed=side) for side in range(2)]
    np.save(folder / "image.npy", sides[0])
    np.save(folder / "text.npy", sides[1])
    return sides


def test_npy__without_any_table(tmp_path):
    sides = npy_pair(tmp_path / "in")
    build(tmp_path / "in", tmp_path / "pool")
    np.testing.assert_allclose(arrays_of(tmp_path / "pool", "l14_txt"), unit(sides[1]), atol=5e-4)
    table = table_of(tmp_path / "pool")
    assert table["key"].to_pylist() == [f"image.npy:{number}" for number in range(4)]
    assert set(table["text"].to_pylist()) == {""}
    assert len(set(table["uid"].to_pylist())) == 4
    pool = open_pool(tmp_path / "pool")
    index = ImageIndex.of_parts(pool.root, list(pool.indexes), tmp_path / "images.index")
    assert index.read(table["uid"][0].as_py()) is None
    said = [problem.text for problem in inspect_pool(pool).problems]
    assert said[-1].endswith("embed TARS POOL with a second teacher gives the pool its images")


@pytest.mark.parametrize(
    "array",
    [np.ones((4, 8), np.longdouble), np.ones((4, 8), "i4"), np.ones((4, 8), "V4"), np.array([["a"] * 8] * 4)],
    ids=lambda array: str(array.dtype),
)
def test_npy__odd_arrays_are_refused_in_one_line(tmp_path, array):
    npy_pair(tmp_path / "in")
    np.save(tmp_path / "in" / "image.npy", array)
    with pytest.raises(PoolFormatError, match=r"image\.npy: expected \(N, D\) floats"):
        open_source(tmp_path / "in")


def test_npy__a_header_that_claims_more_than_the_file_holds(tmp_path):
    npy_pair(tmp_path / "in")
    data = (tmp_path / "in" / "image.npy").read_bytes()
    (tmp_path / "in" / "image.npy").write_bytes(data.replace(b"(4, 8), }" + b" " * 12, b"(4000000000000, 8), }"))
    with pytest.raises(PoolFormatError, match=r"image\.npy: .* found .* its header promises"):
        open_source(tmp_path / "in")


@pytest.mark.parametrize("ending", ["csv", "txt", "jsonl", "parquet"])
def test_npy__captions_and_uids_from_a_table(tmp_path, ending):
    npy_pair(tmp_path / "in")
    captions, names = [caption(number) for number in range(4)], [f"{number:032x}" for number in range(4)]
    file = tmp_path / "in" / f"rows.{ending}"
    if ending == "csv":
        file.write_text("uid,caption\n" + "".join(f"{n},{c}\n" for n, c in zip(names, captions, strict=True)))
    elif ending == "txt":
        file.write_text("".join(f"{c}\n" for c in captions))
    elif ending == "jsonl":
        rows = zip(names, captions, strict=True)
        file.write_text("".join(f'{{"uid": "{n}", "caption": "{c}"}}\n' for n, c in rows))
    else:
        pq.write_table(pa.table({"uid": names, "caption": captions}), file)
    build(tmp_path / "in", tmp_path / "pool")
    table = table_of(tmp_path / "pool")
    assert table["text"].to_pylist() == captions
    assert (table["uid"].to_pylist() == names) == (ending != "txt")


@pytest.mark.parametrize("captions", [False, True])
def test_npy__a_column_where_there_is_no_table(tmp_path, captions):
    npy_pair(tmp_path / "in")
    if captions:
        (tmp_path / "in" / "captions.txt").write_text("a boat\n" * 4)
    with pytest.raises(PoolFormatError, match=r"--text-column: expected no column, as a .* has none, found words"):
        open_source(tmp_path / "in", text_column="words")


def test_npy__rows_that_are_no_embeddings_are_rejected(tmp_path):
    sides = npy_pair(tmp_path / "in", 5)
    sides[0][1], sides[1][2], sides[1][3] = 0, np.nan, np.inf
    for name, side in zip(("image", "text"), sides, strict=True):
        np.save(tmp_path / "in" / f"{name}.npy", side)
    made = build(tmp_path / "in", tmp_path / "pool", shard_size=2)
    assert (made.read, made.kept) == (5, 2)
    rejected = pq.read_table(tmp_path / "pool" / "rejected.parquet").to_pylist()
    assert [(row["key"], row["reason"]) for row in rejected] == [
        ("image.npy:1", "its image embedding has only zeros"),
        ("image.npy:2", "its text embedding has NaN"),
        ("image.npy:3", "its text embedding has infinite values"),
    ]
    np.testing.assert_allclose(arrays_of(tmp_path / "pool", "l14_img"), unit(sides[0][[0, 4]]), atol=5e-4)


def test_npy__started_again_ends_with_the_same_bytes(tmp_path):
    clip_retrieval(tmp_path / "in")
    build(tmp_path / "in", tmp_path / "pool", shard_size=3)
    before = {path: path.read_bytes() for path in (tmp_path / "pool").rglob("*.*z*")}
    (tmp_path / "pool" / "embed" / "00000001.json").unlink()
    assert build(tmp_path / "in", tmp_path / "pool", shard_size=3).embedded == 3
    assert all(path.read_bytes() == data for path, data in before.items())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"image.npy": rows(3)}, "expected as many .npy of captions as of images, .* found 1 of images, 0 of captions"),
        ({"image.npy": rows(3), "text.npy": rows(2)}, r"expected as many rows as in image\.npy, found 3 in image"),
        ({"image.npy": rows(3), "other.npy": rows(3)}, r"expected each \.npy named after .* found other\.npy; rename"),
        ({"image.npy": rows(3)[0], "text.npy": rows(3)[0]}, r"expected \(N, D\) floats, by rows, found shape \(8,\)"),
        ({"image.npy": np.array([[{}]]), "text.npy": rows(1)}, r"image\.npy: .* found objects, which are never loaded"),
    ],
)
def test_npy__names_what_does_not_fit(tmp_path, files, message):
    for name, values in files.items():
        np.save(tmp_path / name, values)
    with pytest.raises(PoolFormatError, match=message):
        open_source(tmp_path, kind="npy")


def test_npy__cut_off_and_tables_of_other_lengths(tmp_path):
    npy_pair(tmp_path / "in")
    (tmp_path / "in" / "rows.txt").write_text("one\n" * 5)
    with pytest.raises(PoolFormatError, match=r"rows\.txt: expected 4 rows, as in image\.npy, found more"):
        build(tmp_path / "in", tmp_path / "pool")
    (tmp_path / "in" / "rows.txt").write_text("one\n" * 3)
    assert build(tmp_path / "in", tmp_path / "short").reasons["rows.txt ends at its row 3"] == 1
    whole = (tmp_path / "in" / "text.npy").read_bytes()
    (tmp_path / "in" / "text.npy").write_bytes(whole[:-1])
    with pytest.raises(PoolFormatError, match=r"text\.npy: .* found 255 bytes, where its header promises 256"):
        build(tmp_path / "in", tmp_path / "cut")


def test_make_pool__a_model_where_one_is_needed_and_only_there(tmp_path, teachers):
    npy_pair(tmp_path / "in")
    with pytest.raises(PoolFormatError, match="expected no --model, found one; its embeddings are there already"):
        make_pool(open_source(tmp_path / "in"), tmp_path / "pool", teachers[0], arch="l14")
    (tmp_path / "t.csv").write_text("path,caption\na.jpg,x\n")
    with pytest.raises(PoolFormatError, match="expected --model, found none; say which teacher embeds it"):
        build(tmp_path / "t.csv", tmp_path / "pool")
