"""Do exported shards hold the selected pairs, byte for byte, whatever the pool's images lie in?"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import webdataset

from clipsel_core import uids
from clipsel_core.curation.recipes.recipe_files import dump_recipe, parse_recipe
from clipsel_core.curation.selecting import shards
from clipsel_core.curation.selecting.selection import select
from clipsel_core.curation.selecting.shards import export_shards
from clipsel_core.errors import ExportError
from clipsel_core.pool.making.embed import load_teacher
from clipsel_core.runs.local import score
from clipsel_core.runs.store import Run
from tests.conftest import write_shard
from tests.pool.making.test_make import SOURCES, build, table_of
from tests.pool.pictures import image, write_teacher

DEMO = Path(__file__).parents[3] / "data" / "demo"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return load_teacher(f"local-dir:{write_teacher(tmp_path_factory.mktemp('teacher') / '0', 0)}")


def chosen(run, text="steps:\n  - {metric: clip_score, keep_top: 0.8}\n"):
    recipe = parse_recipe(text, metrics=run.metrics)
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
    assert (done.written, done.missing, done.count, len(samples)) == (7, 0, 3, 7)
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
    hashes = dict(zip(*(table_of(run.pool_root)[name].to_pylist() for name in ("uid", "sha256")), strict=True))
    for sample in samples:
        assert hashlib.sha256(sample["jpg"]).hexdigest() == hashes[json.loads(sample["json"])["uid"]]


def test_export_shards__manifest_accounts_for_every_pair(tmp_path, made):
    run, selection, recipe = chosen(made)
    gone = selection.rows[[1, 4]].tolist()
    for row in gone:
        (tmp_path / "in" / f"{row}.png").unlink()
    done = export_shards(run, selection, recipe, tmp_path / "out", pairs_per_shard=2)
    content = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (content["pairs"], content["written"], content["missing"]) == (7, 5, 2)
    assert (done.written, done.missing) == (5, 2)
    lost = [table_of(tmp_path / "pool")["uid"][row].as_py() for row in gone]
    assert (tmp_path / "out" / "missing.txt").read_text().split() == lost
    for tar in content["tars"]:
        data = (tmp_path / "out" / tar["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (tar["size_bytes"], tar["sha256"])
    assert content["recipe"] == dump_recipe(recipe)


@pytest.mark.parametrize("files", [1, 2, 3, 4, 10])  # before settings, tar, its stats, the next tar, manifest
def test_export_shards__stopped_anywhere_ends_with_the_same_bytes(tmp_path, made, monkeypatch, files):
    run, selection, recipe = chosen(made)
    export_shards(run, selection, recipe, tmp_path / "whole", pairs_per_shard=2)
    left = [files]
    for name in ("write_atomically", "write_stats", "write_json"):
        monkeypatch.setattr(shards, name, stopping(getattr(shards, name), left))
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
        run, selection, recipe, tmp_path / "out", pairs_per_shard=2, progress=lambda *counts: told.append(counts)
    )
    assert told == [(2, 7), (4, 7), (6, 7), (7, 7)]


def test_export_shards__pairs_that_are_not_accounted_for_are_named(tmp_path, made):
    run, selection, recipe = chosen(made)
    export_shards(run, selection, recipe, tmp_path / "out")
    stats = tmp_path / "out" / "00000000_stats.json"
    stats.write_text(json.dumps({**json.loads(stats.read_text()), "successes": 6}))
    with pytest.raises(ExportError, match="expected 7 pairs, found 6 written and 0 missing; export into another"):
        export_shards(run, selection, recipe, tmp_path / "out")


def test_numbers__a_score_that_is_missing_is_null():
    assert json.dumps(shards._numbers(np.array([np.nan, 0.5], np.float32))) == "[null, 0.5]"


def test_export_shards__no_room_for_where_the_images_lie(tmp_path, made):
    (made.root / "cache").rename(tmp_path / "moved") if (made.root / "cache").exists() else None
    (made.root / "cache").write_text("no folder, so nothing can be kept in it")
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
