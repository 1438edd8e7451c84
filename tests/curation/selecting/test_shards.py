"""Do exported shards hold the selected pairs, byte for byte, whatever the pool's images lie in?"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import tarfile
from argparse import Namespace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from open_clip_train import data

from clipsel_core import uids
from clipsel_core.columns.adding import import_column
from clipsel_core.curation.recipes.recipe import dump_recipe, parse_recipe
from clipsel_core.curation.selecting import shards
from clipsel_core.curation.selecting.export import open_clip_commands
from clipsel_core.curation.selecting.selection import select
from clipsel_core.curation.selecting.shards import export_shards
from clipsel_core.errors import ExportError, PoolFormatError
from clipsel_core.places import Place
from clipsel_core.pool.making.embed import load_teacher
from clipsel_core.runs.columns import Column
from clipsel_core.runs.local import score
from clipsel_core.runs.store import Run
from tests.conftest import write_shard
from tests.pool.making.test_make import SOURCES, build, table_of
from tests.pool.pictures import drawn, image, write_tar, write_teacher

DEMO = Path(__file__).parents[3] / "data" / "demo"
NAN = float("nan")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return load_teacher(f"local-dir:{write_teacher(tmp_path_factory.mktemp('teacher') / '0', 0)}")


def chosen(run, text="steps:\n  - {metric: clip_score, keep_top: 0.8}\n"):
    recipe = parse_recipe(text, columns=run.metrics)
    return run, select(run, recipe), recipe


def read(folder):
    tars = sorted(str(tar) for tar in folder.glob("*.tar"))
    return [sample for tar in tars for sample in webdataset.WebDataset(tar, shardshuffle=False, empty_check=False)]


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture
def made(tmp_path, teacher):
    """A scored pool of nine pictures from a folder."""
    build(SOURCES["folder"](tmp_path / "in"), tmp_path / "pool", teacher)
    return score(tmp_path / "pool", tmp_path / "run", batch_size=4, device="cpu")


@pytest.mark.parametrize("kind", SOURCES)
def test_export_shards__read_back_by_webdataset_byte_for_byte(tmp_path, teacher, kind):
    build(SOURCES[kind](tmp_path / "in"), tmp_path / "pool", teacher)
    run, selection, recipe = chosen(score(tmp_path / "pool", tmp_path / "run", batch_size=4, device="cpu"))
    done = export_shards(run, selection, recipe, tmp_path / "out", pairs_per_shard=3, scores=True)
    table = table_of(tmp_path / "pool")
    kinds = ("JPEG", "PNG", "WEBP") if kind == "tars" else ("PNG",)
    samples = read(tmp_path / "out")
    assert (done["written"], done["missing"], done["unreadable"], len(done["tars"]), len(samples)) == (7, 0, 0, 3, 7)
    for sample, row in zip(samples, selection.rows.tolist(), strict=True):
        written = kinds[row % len(kinds)]
        facts = json.loads(sample["json"])
        assert sample[{"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[written]] == image(row, written)
        assert sample["txt"].decode() == facts["caption"] == table["text"][row].as_py()
        assert (facts["uid"], facts["url"]) == (table["uid"][row].as_py(), table["url"][row].as_py())
        assert facts["clip_score"] == selection.table.column("clip_score")[row]
    assert len({sample["__key__"] for sample in samples}) == 7


def test_export_shards__from_the_demos_tars(tmp_path):
    shutil.copytree(DEMO, tmp_path / "demo")
    run, selection, recipe = chosen(
        Run.open(tmp_path / "demo" / "run"), "steps:\n  - {metric: clip_score, keep_top: 0.01}\n"
    )
    export_shards(run, selection, recipe, tmp_path / "out")
    samples = read(tmp_path / "out")
    found = uids.from_hex([json.loads(sample["json"])["uid"] for sample in samples])
    assert np.array_equal(uids.sort(found), selection.uids())
    hashes = dict(zip(*(table_of(Path(run.pool_address))[name].to_pylist() for name in ("uid", "sha256")), strict=True))
    for sample in samples:
        assert hashlib.sha256(sample["jpg"]).hexdigest() == hashes[json.loads(sample["json"])["uid"]]


def test_export_shards__manifest_accounts_for_every_pair(tmp_path, made):
    run, selection, recipe = chosen(made)
    gone, broken, empty, unnoted = selection.rows[[1, 2, 3, 6]].tolist()
    (tmp_path / "in" / f"{gone}.png").unlink()
    (tmp_path / "in" / f"{broken}.png").write_bytes(image(broken, "PNG")[:-200])
    (tmp_path / "in" / f"{empty}.png").write_bytes(b"")
    index, named = tmp_path / "pool" / "images" / "00000000.parquet", table_of(tmp_path / "pool")["uid"].to_pylist()
    kept = [row for row in range(len(named)) if row != unnoted]
    pq.write_table(pq.read_table(index).take(kept), index)
    done = export_shards(run, selection, recipe, tmp_path / "out", pairs_per_shard=2)
    content = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (content["pairs"], content["written"], content["missing"], content["unreadable"]) == (7, 3, 1, 3)
    assert (done["written"], done["missing"], done["unreadable"]) == (3, 1, 3)
    assert (tmp_path / "out" / "missing.txt").read_text().split() == [named[unnoted]]
    assert (tmp_path / "out" / "unreadable.txt").read_text().split() == [named[row] for row in (gone, broken, empty)]
    # Of the second tar and the last no pair has an image: they are not there, as loaders wait for pairs of each.
    tars = [tar["file"] for tar in done["tars"]]
    assert tars == ["00000000.tar", "00000002.tar"]
    assert json.loads((tmp_path / "out" / "sizes.json").read_text()) == {"00000000.tar": 1, "00000002.tar": 2}
    assert (tmp_path / "out" / "__len__").read_text() == "3\n"
    assert {path.name for path in (tmp_path / "out").glob("*.tar")} == set(tars)
    for tar in content["tars"]:
        data = (tmp_path / "out" / tar["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (tar["size_bytes"], tar["sha256"])
    assert content["recipe"] == dump_recipe(recipe)


@pytest.mark.parametrize("files", [1, 2, 3, 4, 10])  # before settings, tar, its stats, the next tar, manifest
def test_export_shards__stopped_anywhere_ends_with_the_same_bytes(tmp_path, made, monkeypatch, files):
    run, selection, recipe = chosen(made)
    export_shards(run, selection, recipe, tmp_path / "whole", pairs_per_shard=2)
    left = [files]
    for name in ("write", "write_bytes"):
        monkeypatch.setattr(Place, name, stopping(getattr(Place, name), left))
    with pytest.raises(KeyboardInterrupt):
        export_shards(run, selection, recipe, tmp_path / "out", pairs_per_shard=2)
    assert not (tmp_path / "out" / "manifest.json").exists()
    export_shards(run, selection, recipe, tmp_path / "out", pairs_per_shard=2)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def stopping(write, left):
    """The same, but it is interrupted before one more file is written than `left` says."""

    def wrapped(*arguments, **options):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return write(*arguments, **options)

    return wrapped


def test_export_shards__finished_tars_are_not_written_again(tmp_path, made, monkeypatch):
    run, selection, recipe = chosen(made)
    export_shards(run, selection, recipe, tmp_path / "out", pairs_per_shard=2)
    monkeypatch.setattr(shards, "new_tar", None)
    told = []
    export_shards(
        run, selection, recipe, tmp_path / "out", pairs_per_shard=2, report=lambda *counts: told.append(counts[:2])
    )
    assert told == [(2, 7), (4, 7), (6, 7), (7, 7)]


def test_export_shards__pairs_that_are_not_accounted_for_are_named(tmp_path, made):
    run, selection, recipe = chosen(made)
    export_shards(run, selection, recipe, tmp_path / "out")
    stats = tmp_path / "out" / "00000000_stats.json"
    stats.write_text(json.dumps({**json.loads(stats.read_text()), "successes": 6}))
    with pytest.raises(ExportError, match="expected 7 pairs, found 6 written, 0 missing, 0 unreadable; export into"):
        export_shards(run, selection, recipe, tmp_path / "out")


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (Column(name="a"), "[null, 1.0, null]"),
        (Column(name="a", kind="flag"), "[null, true, true]"),
        (Column(name="a", kind="category", values=("x", "y")), '[null, "y", "y"]'),
    ],
)
def test_as_values__as_json_has_them(column, said):
    values = [np.nan, 1, np.inf if column.kind == "number" else 1]
    assert json.dumps(shards._as_values(column, np.array(values, np.float32))) == said


def test_export_shards__the_pools_columns_lie_in_each_json(tmp_path, teacher):
    """A csv's columns, read back by webdataset; shards differ, as one has no nsfw."""
    folder = SOURCES["csv"](tmp_path / "in").parent
    table = pd.read_csv(folder / "captions.csv")
    table["width"], table["lang"], table["nsfw"] = [*range(8), None], [*"abcdefgh", None], [True, None, *[False] * 7]
    table["score"] = np.linspace(0, 1, 9)
    table.to_csv(folder / "captions.csv", index=False)
    build(folder, tmp_path / "pool", teacher, shard_size=5)
    shard = tmp_path / "pool" / "metadata" / "00000001.parquet"
    pq.write_table(pq.read_table(shard).drop_columns(["nsfw"]), shard)
    run = score(tmp_path / "pool", tmp_path / "run", batch_size=4, device="cpu")
    export_shards(*chosen(run, EVERYTHING), tmp_path / "out", pairs_per_shard=4)
    facts = [json.loads(sample["json"], parse_constant=pytest.fail) for sample in read(tmp_path / "out")]
    assert [fact["width"] for fact in facts] == [*range(8), None]
    assert [fact["lang"] for fact in facts] == [*"abcdefgh", None]
    assert [fact["nsfw"] for fact in facts] == [True, None, *[False] * 3, *[None] * 4]
    assert [fact["score"] for fact in facts] == table["score"].to_list()
    assert [fact["original_width"] for fact in facts] == [24] * 9
    assert not facts[0].keys() & {"text", "json", "clip_score"}
    assert all(fact["key"] == sample["__key__"] for fact, sample in zip(facts, read(tmp_path / "out"), strict=True))


def test_export_shards__a_field_of_the_json_stays_and_is_counted(tmp_path):
    """The pool says another width than the json; an added category is written as text."""
    run, _ = tar_pool(tmp_path)
    parquet = next((tmp_path / "pool" / "metadata").glob("*.parquet"))
    table = pq.read_table(parquet)
    for name, value in (("width", 99), ("depth", 3), ("clip_score", 5.0)):
        table = table.append_column(name, pa.array([value] * table.num_rows))
    pq.write_table(table, parquet)
    lang = {"uid": table["uid"].to_pylist(), "lang": ["en", "de"] * 6 + ["en"]}
    pd.DataFrame(lang).to_csv(tmp_path / "lang.csv", index=False)
    import_column(run.root, "lang", f"{tmp_path}/lang.csv#lang")
    done = export_shards(*chosen(Run.open(run.root), EVERYTHING), tmp_path / "out", scores=True, pairs_per_shard=4)
    assert done["json_stays"] == json.loads((tmp_path / "out" / "manifest.json").read_text())["json_stays"]
    assert done["json_stays"] == {"width": 9}
    known = dict(zip(lang["uid"], lang["lang"], strict=True))
    for sample in read(tmp_path / "out"):
        facts = json.loads(sample["json"])
        assert (facts["width"], facts["depth"], facts["lang"]) == (24, 3, known[facts["uid"]])
        assert facts["clip_score"] < 2


def test_export_shards__no_room_for_where_the_images_lie(tmp_path, made):
    (Path(made.root) / "cache").rename(tmp_path / "moved") if (Path(made.root) / "cache").exists() else None
    (Path(made.root) / "cache").write_text("no folder, so nothing can be kept in it")
    with pytest.raises(ExportError, match=r"cache: expected to write the shards, found File exists; make room"):
        export_shards(*chosen(made), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_export_shards__refuses_what_it_cannot_do(tmp_path, made):
    run, selection, recipe = chosen(made)
    with pytest.raises(ExportError, match="--pairs-per-shard: expected 1 or more, found 0"):
        export_shards(run, selection, recipe, tmp_path / "out", pairs_per_shard=0)
    export_shards(run, selection, recipe, tmp_path / "out")
    with pytest.raises(ExportError, match="expected scores False, as begun, found True; give it as before"):
        export_shards(run, selection, recipe, tmp_path / "out", scores=True)
    with pytest.raises(ExportError, match="expected the selection that it was begun with, found another"):
        export_shards(*chosen(run, "steps:\n  - {metric: clip_score, keep_top: 0.5}\n"), tmp_path / "out")
    with pytest.raises(ExportError, match=r"expected an empty folder, or one of export's, found 0\.png"):
        export_shards(run, selection, recipe, tmp_path / "in")
    with pytest.raises(ExportError, match="the selection: expected a pair or more, found none"):
        export_shards(*chosen(run, "steps:\n  - {metric: clip_score, keep_top: 0}\n"), tmp_path / "none")
    write_shard(tmp_path / "bare", "00000000", 40)
    without = score(tmp_path / "bare", tmp_path / "other", batch_size=20, device="cpu")
    with pytest.raises(ExportError, match=r"expected images: shards/\*\.tar, or a pool that embed made, found none"):
        export_shards(*chosen(without), tmp_path / "none")
    shutil.rmtree(tmp_path / "pool")
    with pytest.raises(ExportError, match="expected the pool of the run, found no such folder"):
        export_shards(*chosen(Run.open(run.root)), tmp_path / "none")


PICTURES = [("JPEG", "jpg"), ("PNG", "jpg"), ("WEBP", "png"), ("GIF", "jpg"), ("BMP", "png"), ("TIFF", "webp")]
PICTURES += [("AVIF", "jpeg"), ("JPEG", "webp"), ("GIF", "PNG")]
BAD = {9: b"<html>no such picture</html>", 10: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 11: b""}


def tar_pool(root, *, with_uids=True):
    """A scored pool as DataComp has them: nine pictures under whatever names, one cut off, three that are none."""
    parquet, _ = write_shard(root / "pool", "00000000", 13)
    rows, members = pq.read_table(parquet).to_pylist(), {}
    for number, row in enumerate(rows):
        kind, ending = (*PICTURES, *[("JPEG", "jpg")] * 4)[number]
        content = BAD.get(number, image(number, kind)[: -60 if number == 12 else None])
        facts = {
            "key": f"k{number}",
            "sha256": hashlib.sha256(content).hexdigest(),
            "exif": '{"Model": "é"}',
            "nan": NAN,
        }
        facts |= {"face_bboxes": [[0.1, 0.2]], "width": 24, **({"uid": row["uid"]} if with_uids else {})}
        # In the order of their names, as sorting archivers have them: some json lie before their image.
        pair = {ending: content, "json": json.dumps(facts).encode(), "txt": row["text"].encode()}
        members |= {f"{number:05d}.{name}": pair[name] for name in sorted(pair)}
    write_tar(root / "pool" / "shards" / "00000000.tar", members)
    return score(root / "pool", root / "run", batch_size=20, device="cpu"), rows


EVERYTHING = "steps: [{metric: clip_score, keep_top: 1}]"


def test_export_shards__counts_captions_that_say_nothing(tmp_path):
    texts = ["", "  ", None, *(f"caption {row}" for row in range(10))]
    parquet, _ = write_shard(tmp_path / "pool", "00000000", 13, columns={"TEXT": texts})
    table = pq.read_table(parquet).drop_columns(["text"])
    pq.write_table(table, parquet)
    members = {}
    for row, uid in enumerate(table["uid"].to_pylist()):
        facts = json.dumps({"uid": uid}).encode()
        members |= {f"{row:05d}.png": image(row, "PNG"), f"{row:05d}.txt": b"", f"{row:05d}.json": facts}
    write_tar(tmp_path / "pool" / "shards" / "00000000.tar", members)
    run, selection, recipe = chosen(score(tmp_path / "pool", tmp_path / "run", batch_size=20, device="cpu"), EVERYTHING)
    done = export_shards(run, selection, recipe, tmp_path / "out", pairs_per_shard=5)
    assert (done["written"], done["without_caption"]) == (13, 3)
    with tarfile.open(tmp_path / "out" / "00000001.tar") as tar:
        assert tar.extractfile(next(name for name in tar.getnames() if name.endswith(".txt"))).read()


def test_export_shards__all_that_is_written_reaches_open_clip(tmp_path, monkeypatch):
    # open_clip wants webdataset 0.2.86 or earlier; later ones mark the end of a tar, which it takes for a file.
    monkeypatch.setattr(data, "tar_file_expander", partial(data.tar_file_expander, eof_value=None))
    run, rows = tar_pool(tmp_path / "a {folder}, of tars")
    run, selection, recipe = chosen(run, EVERYTHING)
    done = export_shards(run, selection, recipe, Path(run.root).parent / "out", pairs_per_shard=3)
    assert (done["written"], done["missing"], done["unreadable"], done["encoded_again"]) == (9, 0, 4, 5)
    (command,) = open_clip_commands(Path(run.root).parent / "out", [tar["file"] for tar in done["tars"]])
    words = shlex.split(command)
    options = dict(zip(words[3::2], words[4::2], strict=True))
    asked = Namespace(
        train_data=options["--train-data"],
        workers=0,
        train_num_samples=None,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        batch_size=1,
        world_size=1,
    )
    assert int(options["--workers"]) <= len(done["tars"]) == 3
    loader = data.get_wds_dataset(asked, np.asarray, is_train=True, tokenizer=lambda text: [text]).dataloader
    assert (loader.num_samples, loader.num_batches) == (9, 9)
    came = {texts[0]: images[0] for images, texts in loader}
    assert sorted(came) == sorted(row["text"] for row in rows[:9])
    for number in (1, 4, 5):  # without loss
        assert np.array_equal(came[rows[number]["text"]], np.asarray(drawn(number)))


def test_export_shards__names_follow_the_bytes_and_the_json_stays(tmp_path):
    run, rows = tar_pool(tmp_path)
    export_shards(*chosen(run, EVERYTHING), tmp_path / "out", scores=True)
    for number, (sample, row) in enumerate(zip(read(tmp_path / "out"), rows, strict=False)):
        kind = PICTURES[number][0]
        (ending,) = sample.keys() & {"jpg", "png", "webp"}
        assert ending == {"JPEG": "jpg", "WEBP": "webp"}.get(kind, "png")
        if kind in ("JPEG", "PNG", "WEBP"):
            assert sample[ending] == image(number, kind)
        facts = json.loads(sample["json"], parse_constant=pytest.fail)
        assert (facts["exif"], facts["face_bboxes"], facts["width"], facts["nan"]) == (
            *('{"Model": "é"}', [[0.1, 0.2]], 24),
            None,
        )
        assert facts["sha256"] == hashlib.sha256(image(number, kind)).hexdigest()
        assert [facts[name] for name in ("uid", "url", "caption")] == [row[name] for name in ("uid", "url", "text")]
        assert facts["key"] == sample["__key__"] == f"{0:08d}{number:08d}"
        assert isinstance(facts["clip_score"], float)


@pytest.mark.parametrize("kind", ["tars", "folder", "packed"])
def test_export_shards__keeps_the_json_of_what_was_embedded(tmp_path, teacher, kind):
    for number in range(3):
        facts = json.dumps(
            {"uid": f"{number + 1:032x}", "key": "k", "exif": "{}", "original_width": 24, "sizes": [number]}
        )
        pair = {f"{number}.png": image(number, "PNG"), f"{number}.txt": b"a text", f"{number}.json": facts.encode()}
        if kind == "folder":
            (tmp_path / "in").mkdir(exist_ok=True)
            for name, content in pair.items():
                (tmp_path / "in" / name).write_bytes(content)
        else:
            write_tar(tmp_path / "in" / f"{number}.tar", pair)
    build(tmp_path / "in", tmp_path / "pool", teacher, pack=kind == "packed")
    run = score(tmp_path / "pool", tmp_path / "run", batch_size=4, device="cpu")
    export_shards(*chosen(run, EVERYTHING), tmp_path / "out")
    samples = read(tmp_path / "out")
    facts = [json.loads(sample["json"]) for sample in samples]
    assert [(fact["sizes"], fact["exif"], fact["original_width"]) for fact in facts] == [
        ([n], "{}", 24) for n in range(3)
    ]
    assert [fact["uid"] for fact in facts] == [f"{number + 1:032x}" for number in range(3)]


def test_export_shards__tars_without_a_uid_are_an_error_with_a_remedy(tmp_path):
    run, _ = tar_pool(tmp_path, with_uids=False)
    expected = r"pool: expected images of the 13 pairs selected, found none: 13 have no image in the pool.*hold .* uid"
    with pytest.raises(ExportError, match=expected):
        export_shards(*chosen(run, EVERYTHING), tmp_path / "out", pairs_per_shard=2)
    assert not (tmp_path / "out").exists()


def test_export_shards__a_shard_that_was_written_again_is_named(tmp_path):
    run, _ = tar_pool(tmp_path)
    parquet = tmp_path / "pool" / "metadata" / "00000000.parquet"
    pq.write_table(pq.read_table(parquet).take([*range(1, 13), 0]), parquet)
    with pytest.raises(PoolFormatError, match=r"00000000\.parquet, row 0: expected the pair that was scored"):
        export_shards(*chosen(run, EVERYTHING), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tar"))
