"""Is the demo a pool and a run like others, with the pairs that the code says, and is a build the same again?"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clipsel_core import uids
from clipsel_core.curation.exploring.projection import read_projection
from clipsel_core.curation.recipes.recipe import load_recipe
from clipsel_core.curation.selecting.selection import select
from clipsel_core.demo import build
from clipsel_core.demo.build import PAIRS, load_demo_teacher, shard_rows, train_teacher, write_pool, write_target
from clipsel_core.demo.evaluate import fault_shares, markdown
from clipsel_core.demo.pairs import POOL_SHARES, pool_pairs, target_pictures
from clipsel_core.pool.layout import open_pool
from clipsel_core.runs.store import Run

DATA = Path(__file__).parent.parent.parent / "data"
DEMO = DATA / "demo"
POOL = DEMO / "pool"


@pytest.fixture(scope="module")
def table():
    return pa.concat_tables(pq.read_table(path) for path in sorted((POOL / "metadata").glob("*.parquet")))


@pytest.fixture(scope="module")
def teacher():
    return load_demo_teacher(DEMO / "teacher")


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory, teacher):
    root = tmp_path_factory.mktemp("rebuilt")
    write_pool(root, pool_pairs(PAIRS)[:200], teacher)
    return root


def embeddings(root: Path, member: str) -> np.ndarray:
    return np.concatenate([np.load(path)[member] for path in sorted((root / "metadata").glob("*.npz"))])


def test_bundled_pool__uids_captions_and_faults_are_those_of_the_code(table):
    pairs = pool_pairs(PAIRS)
    assert table["uid"].to_pylist() == [pair.uid for pair in pairs]
    assert table["text"].to_pylist() == [pair.caption for pair in pairs]
    assert table["fault"].to_pylist() == [pair.fault for pair in pairs]


def test_bundled_pool__has_its_faults_in_their_shares_and_thousands_of_captions(table):
    counts = Counter(table["fault"].to_pylist())
    assert counts == {fault: round(PAIRS * share) for fault, share in POOL_SHARES.items()}
    assert len(set(table["text"].to_pylist())) > 3000


def test_bundled_pool__opens_as_a_pool():
    pool = open_pool(POOL)
    assert [shard.rows for shard in pool.shards] == [rows.stop - rows.start for rows in shard_rows(PAIRS)]
    assert pool.archs["demo"].width == 64
    assert len(pool.tars) == len(pool.shards)


def test_bundled_pool__tars_hold_each_pair_under_its_uid(table):
    seen = []
    for path in sorted((POOL / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}
        for key in sorted({name.split(".")[0] for name in members}):
            uid = json.loads(members[f"{key}.json"])["uid"]
            seen.append((uid, members[f"{key}.txt"].decode(), hashlib.sha256(members[f"{key}.jpg"]).hexdigest()))
    assert seen == list(zip(*(table[name].to_pylist() for name in ("uid", "text", "sha256")), strict=True))


def test_bundled_pool__embeddings_are_unit_rows_that_give_the_score_column(table):
    image, text = (embeddings(POOL, member).astype(np.float64) for member in ("demo_img", "demo_txt"))
    np.testing.assert_allclose(np.linalg.norm(image, axis=1), 1, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(text, axis=1), 1, atol=2e-3)
    np.testing.assert_allclose(table["clip_demo_similarity_score"].to_numpy(), (image * text).sum(1), atol=1e-5)


def test_write_pool__same_pairs_give_the_bundled_embeddings(rebuilt):
    first = slice(0, 200)
    for member in ("demo_img", "demo_txt"):
        np.testing.assert_allclose(embeddings(rebuilt, member), embeddings(POOL, member)[first], atol=5e-3)


def test_write_pool__same_bytes_again(rebuilt, tmp_path, teacher):
    write_pool(tmp_path, pool_pairs(PAIRS)[:200], teacher)
    files = sorted(path.relative_to(rebuilt) for path in rebuilt.rglob("*") if path.is_file())
    assert len(files) == 16
    assert all((rebuilt / file).read_bytes() == (tmp_path / file).read_bytes() for file in files)


def test_write_pool__images_are_the_bundled_ones_to_the_eye(rebuilt):
    def first_image(root: Path) -> np.ndarray:
        with tarfile.open(root / "shards" / "00000000.tar") as tar:
            return np.asarray(Image.open(io.BytesIO(tar.extractfile("00000000.jpg").read())), dtype=np.int16)

    assert np.abs(first_image(rebuilt) - first_image(POOL)).mean() < 2


def test_write_target__gives_the_bundled_target(tmp_path, teacher):
    write_target(tmp_path / "task.npy", target_pictures(20), teacher)
    bundled = np.load(DEMO / "target" / "task.npy")
    assert bundled.dtype == np.float16
    assert bundled.shape == (500, 64)
    np.testing.assert_allclose(np.load(tmp_path / "task.npy"), bundled[:20], atol=5e-3)


def test_bundled_pool__uids_are_distinct(table):
    assert len(uids.unique(uids.from_hex(table["uid"]))) == PAIRS


def test_data__stays_under_25_mb():
    files = [path for path in DATA.rglob("*") if path.is_file() and not {"exports", "cache"} & set(path.parts)]
    assert sum(path.stat().st_size for path in files) < 25_000_000


@pytest.fixture(scope="module")
def run():
    return Run.open(DEMO / "run")


def test_bundled_run__is_finished_with_both_normsims(run):
    assert run.finished
    assert run.pairs == build.PAIRS
    assert {"clip_score", "s_cliploss", "normsim_inf_task", "normsim_2_task"} <= set(run.metrics)
    assert read_projection(run) is not None


def test_bundled_run__belongs_to_the_bundled_files(run):
    assert Path(run.pool_address) == (DEMO / "pool").resolve()
    assert run.config.targets[0].path == "../target/task.npy"
    assert run.config.temperature == pytest.approx(load_demo_teacher(DEMO / "teacher").temperature, abs=1e-4)


@pytest.mark.parametrize(("name", "share"), [("clip_score_30", 0.3), ("s_cliploss_30", 0.3), ("two_steps", 0.2)])
def test_bundled_recipes__keep_what_they_say(run, name, share):
    recipe = load_recipe(Path(run.recipes_dir) / f"{name}.yaml", columns=run.metrics)
    assert len(select(run, recipe)) == round(share * build.PAIRS)


def test_fault_shares__of_the_pool_are_those_it_was_made_with(run):
    shares = fault_shares(run)
    assert shares["the whole pool"] == pytest.approx(POOL_SHARES, abs=1e-3)
    assert all(sum(row.values()) == pytest.approx(1) for row in shares.values())
    assert len(markdown(shares).splitlines()) == 2 + 1 + 3


def test_build_demo__everything_from_nothing_twice_the_same(tmp_path, monkeypatch):
    small = {"PAIRS": 200, "TARGET_IMAGES": 10, "TRAINING_PICTURES": 64}
    for name, value in small.items():
        monkeypatch.setattr(build, name, value)
    monkeypatch.setattr(build, "train_teacher", _train_shortly)
    told: list[tuple] = []
    for name in ("first", "again"):
        build.build_demo(tmp_path / name, report=lambda *said: told.append(said))
    first, again = (_contents(tmp_path / name) for name in ("first", "again"))
    assert first == again
    assert json.loads((tmp_path / "first" / "run" / "status.json").read_text())["state"] == "done"
    assert pq.read_table(tmp_path / "first" / "run" / "projection.parquet").num_rows == 200
    assert told.count((100, 100, "", "done")) == 2
    shares = [done / total for done, total, *_ in told[: len(told) // 2]]
    assert shares == sorted(shares)


def _train_shortly(directory, pairs, *, report):
    train_teacher(directory, pairs, steps=3, batch_size=16, report=report)


def _contents(root: Path) -> dict[str, bytes]:
    """Every file but the one that holds clock times."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != "status.json")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
