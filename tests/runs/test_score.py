"""Whole runs: against float64, killed and resumed, refused where they must be."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from clipsel_core import uids
from clipsel_core.errors import PoolFormatError, RunError, ScoringError
from clipsel_core.pool.layout import TeacherInfo, add_teacher, open_pool
from clipsel_core.runs import groups, plan
from clipsel_core.runs.groups import similarity_mismatch
from clipsel_core.runs.local import score
from clipsel_core.runs.store import Run, read_config, score_file
from clipsel_core.scoring.checks import check_precision
from clipsel_core.scoring.s_cliploss import division
from clipsel_core.status import read_status
from tests import reference
from tests.conftest import rewrite_npz, unit_rows, write_shard
from tests.waiting import PATIENCE_S, until

ROOT = Path(__file__).parents[2]
OPTIONS = {"temperature": 0.02, "batch_size": 16, "divisions": 3, "seed": 5}


@pytest.fixture
def target(tmp_path):
    np.save(tmp_path / "task.npy", unit_rows(30, 16, 77))
    return tmp_path / "task.npy"


def files_of(root):
    root = Path(root)
    """Every file that decides or holds scores, by name; of run.json all but how long the run took."""
    said = {name: value for name, value in json.loads((root / "run.json").read_text()).items() if name != "outcome"}
    return {"run.json": said, **{path.name: path.read_bytes() for path in sorted((root / "scores").iterdir())}}


def divisions_of(rows, name):
    args = {"batch_size": OPTIONS["batch_size"], "seed": OPTIONS["seed"], "name": name}
    return [list(division(rows, index=k, **args)) for k in range(OPTIONS["divisions"])]


def test_score__agrees_with_the_formulas_in_float64(pool, tmp_path, target):
    run = score(pool, tmp_path / "run", targets={"task": target}, norms=("inf", "2", "3"), **OPTIONS)
    assert run.finished
    for shard, file in zip(open_pool(pool).shards, run.score_files, strict=True):
        with np.load(shard.npz.path) as archive:
            image, text = archive["l14_img"], archive["l14_txt"]
        scores = pq.read_table(file)
        divisions = divisions_of(len(image), shard.name)
        r_image, r_text, error = reference.normalizer(image, text, OPTIONS["temperature"], divisions)
        expected = {
            "clip_score": reference.clip_score(image, text),
            "r_image": r_image,
            "r_text": r_text,
            "normalizer_se": error,
            "s_cliploss": reference.clip_score(image, text) - r_image - r_text,
            **{f"normsim_{p:g}_task": reference.normsim(image, np.load(target), p) for p in (np.inf, 2.0, 3.0)},
        }
        for name, values in expected.items():
            np.testing.assert_allclose(scores[name].to_numpy(), values, rtol=2e-6, atol=2e-6, err_msg=name)
        hexes = uids.to_hex(uids.from_halves(scores["uid_hi"].to_numpy(), scores["uid_lo"].to_numpy()))
        assert hexes.to_pylist() == pq.read_table(shard.parquet)["uid"].to_pylist()


def test_score__bf16_rounds_the_normalizer_alone(pool, tmp_path, target):
    try:
        check_precision("bf16", "cpu")
    except ScoringError as error:
        pytest.skip(str(error))
    options = {**OPTIONS, "device": "cpu", "targets": {"task": target}}
    runs = [score(pool, tmp_path / precision, precision=precision, **options) for precision in ("exact", "bf16")]
    assert json.loads((tmp_path / "bf16" / "run.json").read_text())["precision"] == "bf16"
    exact, half = (pq.read_table(run.score_files[0]) for run in runs)
    for name in ("uid_hi", "clip_score", "normsim_inf_task", "normsim_2_task"):
        assert exact[name].equals(half[name]), name
    for name in ("s_cliploss", "r_image", "r_text"):
        assert not exact[name].equals(half[name]), name
        np.testing.assert_allclose(half[name].to_numpy(), exact[name].to_numpy(), atol=4e-3)
    with pytest.raises(RunError, match="expected precision 'exact', as begun, found 'bf16'"):
        score(pool, tmp_path / "exact", precision="bf16", **options)


def test_score__refuses_bf16_where_the_cpu_has_none(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.raises(ScoringError, match=r"precision bf16: expected a CPU .*; use exact"):
        score(pool, tmp_path / "run", device="cpu", precision="bf16", **OPTIONS)
    assert not (tmp_path / "run" / "run.json").exists()


def test_score__records_no_tiles_on_a_cpu(pool, tmp_path):
    run = score(pool, tmp_path / "run", device="cpu", **OPTIONS)
    assert run.config.tiles is None
    assert "tiles" not in json.loads((tmp_path / "run" / "run.json").read_text())


def test_score__records_the_tiles_and_goes_on_with_them(pool, tmp_path, monkeypatch):
    """A machine on which other sizes were faster the second time goes on with those that the run was begun with."""
    chosen = {"rows": 128, "columns": 256}
    taken = []

    def take(device, width, sizes):
        taken.append((device, width, dict(sizes)))
        chosen.update(sizes)

    monkeypatch.setattr(plan, "tile_sizes", lambda device, width: dict(chosen))
    monkeypatch.setattr(plan, "use_tile_sizes", take)
    monkeypatch.setattr(groups, "use_tile_sizes", take)
    run = score(pool, tmp_path / "run", device="cpu", **OPTIONS)
    before = files_of(tmp_path / "run")
    assert run.config.tiles == {"rows": 128, "columns": 256}
    Path(run.score_files[1]).unlink()
    chosen["rows"] = 64
    score(pool, tmp_path / "run", device="cpu", **OPTIONS)
    assert files_of(tmp_path / "run") == before
    assert set(map(str, taken)) == {str(("cpu", 16, {"rows": 128, "columns": 256}))}


def test_score__refuses_to_go_on_with_other_kernels(pool, tmp_path, monkeypatch):
    score(pool, tmp_path / "run", device="cpu", **OPTIONS)
    monkeypatch.setattr(plan, "tile_sizes", lambda device, width: {"rows": 128})
    with pytest.raises(RunError, match="expected tiles None, as begun"):
        score(pool, tmp_path / "run", device="cpu", **OPTIONS)


def test_score__a_shard_scores_the_same_alone(pool, tmp_path):
    """Divisions are seeded by the shard's name, so neither its place nor its neighbours matter."""
    whole = score(pool, tmp_path / "whole", **OPTIONS)
    write_shard(tmp_path / "lone", "00000001", 25, seed=1)
    lone = score(tmp_path / "lone", tmp_path / "alone", **OPTIONS)
    assert pq.read_table(lone.score_files[0]).equals(pq.read_table(whole.score_files[1]))


def test_score__another_seed_changes_the_normalizer_only(pool, tmp_path):
    a, b = (score(pool, tmp_path / str(seed), **{**OPTIONS, "seed": seed}) for seed in (0, 1))
    first, second = (pq.read_table(run.score_files[0]) for run in (a, b))
    assert first["clip_score"].equals(second["clip_score"])
    assert not first["s_cliploss"].equals(second["s_cliploss"])


def test_score__a_finished_run_is_left_alone(pool, tmp_path):
    run = score(pool, tmp_path / "run", **OPTIONS)
    before = {path: path.stat().st_mtime_ns for path in map(Path, run.score_files)}
    assert score(pool, tmp_path / "run", **OPTIONS).finished
    assert {path: path.stat().st_mtime_ns for path in map(Path, run.score_files)} == before


def test_score__a_finished_run_keeps_the_versions_it_was_made_with(pool, tmp_path, monkeypatch):
    score(pool, tmp_path / "run", **OPTIONS)
    before = files_of(tmp_path / "run")
    monkeypatch.setattr(plan, "versions", lambda: {"torch": "99"})
    assert score(pool, tmp_path / "run", **OPTIONS).finished
    assert files_of(tmp_path / "run") == before
    (tmp_path / "run" / "scores" / "00000001.parquet").unlink()
    with pytest.raises(RunError, match=r"expected versions .*torch=.*as begun, found .*torch=99"):
        score(pool, tmp_path / "run", **OPTIONS)


def test_score__what_a_killed_process_left_half_written_is_removed(pool, tmp_path):
    score(pool, tmp_path / "run", **OPTIONS)
    before = files_of(tmp_path / "run")
    (tmp_path / "run" / "scores" / ".00000001.parquet.1-2.partial").write_bytes(b"half")
    (tmp_path / "run" / ".status.json.1-2.partial").write_bytes(b"half")
    score(pool, tmp_path / "run", **OPTIONS)
    assert files_of(tmp_path / "run") == before
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_score__one_uid_on_two_rows_stops_before_anything_is_scored(tmp_path):
    for name in ("0", "1"):
        write_shard(tmp_path / "pool", name, 5, seed=3)
    with pytest.raises(
        PoolFormatError, match=r"at 0\.parquet row \d and 1\.parquet row \d; remove one of the two rows"
    ):
        score(tmp_path / "pool", tmp_path / "run", **OPTIONS)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"temperature": 0.03}, r"expected temperature 0\.02, as begun, found 0\.03; score into another folder"),
        ({"batch_size": 17}, "expected batch_size 16, as begun, found 17"),
        ({"divisions": 4}, "expected divisions 3, as begun, found 4"),
        ({"seed": 6}, "expected seed 5, as begun, found 6"),
        ({"on_bad_rows": "skip"}, "expected on_bad_rows 'error', as begun, found 'skip'"),
    ],
)
def test_score__another_config_is_refused_with_both_values(pool, tmp_path, changed, message):
    score(pool, tmp_path / "run", **OPTIONS)
    with pytest.raises(RunError, match=message):
        score(pool, tmp_path / "run", **{**OPTIONS, **changed})


def test_score__another_target_under_the_same_name_is_refused(pool, tmp_path, target):
    score(pool, tmp_path / "run", targets={"task": target}, **OPTIONS)
    np.save(target, unit_rows(30, 16, 78))
    with pytest.raises(RunError, match="expected targets sha256="):
        score(pool, tmp_path / "run", targets={"task": target}, **OPTIONS)


def test_score__a_pool_that_grew_is_refused(pool, tmp_path):
    score(pool, tmp_path / "run", **OPTIONS)
    write_shard(pool, "00000009", 5, seed=9)
    with pytest.raises(RunError, match="expected 3 shards, 126 pairs, as begun, found 4 shards, 131 pairs"):
        score(pool, tmp_path / "run", **OPTIONS)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"temperature": 0.0}, "--temperature"),
        ({"temperature": float("nan")}, "--temperature"),
        ({"batch_size": 0}, "--batch-size"),
        ({"divisions": 0}, "--divisions"),
        ({"seed": -1}, "--seed"),
        ({"on_bad_rows": "ignore"}, "--on-bad-rows"),
        ({"precision": "half"}, "--precision"),
        ({"device": "abacus"}, "--device"),
    ],
)
def test_score__options_out_of_range_are_named(pool, tmp_path, options, where):
    with pytest.raises(ScoringError, match=f"^{where}: expected"):
        score(pool, tmp_path / "run", **options)
    assert not (tmp_path / "run" / "run.json").exists()


def test_score__bad_rows_set_aside_are_nan_and_take_no_part(tmp_path):
    _, npz = write_shard(tmp_path / "pool", "0", 20)
    with np.load(npz) as archive:
        image, text = archive["l14_img"].copy(), archive["l14_txt"].copy()
    rewrite_npz(npz, l14_img=np.delete(image, [3, 9], 0), l14_txt=np.delete(text, [3, 9], 0))
    image[3], text[9] = 0, np.nan
    bad = {"l14_img": image, "l14_txt": text}
    rewrite_npz(npz, **bad)
    options = {**OPTIONS, "batch_size": 100}
    with pytest.raises(PoolFormatError, match="shard 0, row 3"):
        score(tmp_path / "pool", tmp_path / "stopped", **options)
    run = score(tmp_path / "pool", tmp_path / "run", on_bad_rows="skip", **options)
    scores = pq.read_table(run.score_files[0])
    good = np.delete(np.arange(20), [3, 9])
    one_batch = [[np.arange(18)]]
    r_image, *_ = reference.normalizer(image[good], text[good], OPTIONS["temperature"], one_batch)
    np.testing.assert_allclose(scores["r_image"].to_numpy()[good], r_image, atol=2e-6)
    for name in run.metrics:
        assert np.flatnonzero(np.isnan(scores[name].to_numpy())).tolist() == [3, 9]
    assert run.config.skipped_rows == 2


def lengthened(pool, factor):
    """Gives the images of a pool another length."""
    for npz in (pool / "metadata").glob("*.npz"):
        with np.load(npz) as archive:
            image = archive["l14_img"]
        rewrite_npz(npz, l14_img=image * np.float16(factor))


def pool_with_similarities(root, change, column="clip_l14_similarity_score", rows=400):
    """A pool of one shard that stores its similarities. change: what becomes of them."""
    _, npz = write_shard(root, "0", rows)
    with np.load(npz) as archive:
        similarity = reference.clip_score(archive["l14_img"], archive["l14_txt"])
    write_shard(root, "0", rows, columns={column: change(similarity)})
    return root


NOISE = np.random.default_rng(8).standard_normal(400)


@pytest.mark.parametrize(
    ("column", "change", "found"),
    [
        ("clip_l14_similarity_score", lambda s: s, ""),
        ("clip_l14_similarity_score", lambda s: np.roll(s, 1), "with 1 rows between"),
        ("clip_l14_similarity_score", lambda s: np.roll(s, -30), "with 30 rows between"),
        ("clip_l14_similarity_score", np.sort, "a correlation of"),
        ("clip_l14_similarity_score", lambda s: np.full(len(s), 0.3), ""),
        ("clip_l14_similarity_score", lambda s: np.where(np.arange(len(s)) % 2, np.nan, s), ""),
        ("clip_b32_similarity_score", lambda s: s + 0.5 * s.std() * NOISE, ""),
        ("clip_b32_similarity_score", lambda s: s + 10 * s.std() * NOISE, ""),
        ("clip_b32_similarity_score", lambda s: np.roll(s + 0.5 * s.std() * NOISE, 7), "with 7 rows between"),
    ],
)
def test_score__similarities_that_the_pool_stores_must_fit_its_rows(tmp_path, column, change, found):
    root = pool_with_similarities(tmp_path / "pool", change, column)
    if found:
        with pytest.raises(PoolFormatError, match=f"shard 0: expected similarities .* in {column}, found .*{found}"):
            score(root, tmp_path / "run", **OPTIONS)
    assert score(root, tmp_path / "run", check_similarity=not found, **OPTIONS).finished


def test_score__workers_compare_stored_similarities_too(tmp_path):
    root = pool_with_similarities(tmp_path / "pool", lambda s: np.roll(s, 1))
    write_shard(root, "1", 9, seed=1)
    with pytest.raises(PoolFormatError, match="shard 0: expected similarities"):
        score(root, tmp_path / "run", device="cpu,cpu", **OPTIONS)
    assert score(root, tmp_path / "run", device="cpu,cpu", check_similarity=False, **OPTIONS).finished


def test_disagreement__hardly_ever_is_a_false_alarm():
    """Another teacher's similarities in a pool that was filtered until they say nothing of each other."""
    rng = np.random.default_rng(3)
    numbers = rng.standard_normal((2000, 2, 60))
    assert [similarity_mismatch(a, b, same_teacher=False) for a, b in numbers] == [""] * 2000
    same = [similarity_mismatch(a, a + 0.5 * b, same_teacher=True) for a, b in numbers]
    assert same == [""] * 2000
    unrelated = [similarity_mismatch(a, b, same_teacher=True) for a, b in numbers]
    assert np.mean([bool(found) for found in unrelated]) > 0.9


@pytest.mark.parametrize("way", ["skip", "scale"])
def test_score__says_what_can_be_done_where_no_row_is_sound(pool, tmp_path, way):
    lengthened(pool, 0)
    with pytest.raises(PoolFormatError, match=r"found all 126 pairs set aside; see what") as caught:
        score(pool, tmp_path / "run", **OPTIONS, on_bad_rows=way)
    assert ("--on-bad-rows scale" in str(caught.value)) == (way == "skip")


def test_score__rows_of_another_length_are_scaled_on_request_in_the_same_folder(pool, tmp_path):
    sound = score(pool, tmp_path / "sound", **OPTIONS)
    lengthened(pool, 8)  # exact in float16
    with pytest.raises(PoolFormatError, match=r"found length 8.*; scale such rows .* with --on-bad-rows scale"):
        score(pool, tmp_path / "run", **OPTIONS)
    with pytest.raises(PoolFormatError, match="expected a pair that can be scored, found all 126 pairs set aside"):
        score(pool, tmp_path / "run", on_bad_rows="skip", **OPTIONS)
    run = score(pool, tmp_path / "run", on_bad_rows="scale", **OPTIONS)
    assert (run.config.on_bad_rows, run.config.skipped_rows, run.scaled_rows) == ("scale", 0, 126)
    for ours, theirs in zip(run.score_files, sound.score_files, strict=True):
        found, expected = pq.read_table(ours), pq.read_table(theirs)
        for name in run.metrics:
            np.testing.assert_allclose(found[name].to_numpy(), expected[name].to_numpy(), atol=2e-3)


def test_score__an_option_may_change_while_nothing_has_been_scored(pool, tmp_path):
    lengthened(pool, 8)
    with pytest.raises(PoolFormatError, match="scale such rows"):
        score(pool, tmp_path / "run", **OPTIONS)
    run = score(pool, tmp_path / "run", on_bad_rows="scale", **{**OPTIONS, "seed": 6})
    assert (run.config.seed, read_config(tmp_path / "run").seed) == (6, 6)
    with pytest.raises(RunError, match="expected seed 6, as begun, found 7"):
        score(pool, tmp_path / "run", on_bad_rows="scale", **{**OPTIONS, "seed": 7})


def test_score__another_pools_finished_run_is_not_taken_for_nothing(pool, tmp_path):
    score(pool, tmp_path / "run", **OPTIONS)
    write_shard(tmp_path / "other", "elsewhere", 9)
    with pytest.raises(RunError, match="as begun"):
        score(tmp_path / "other", tmp_path / "run", **OPTIONS)


def test_score__a_shard_of_only_bad_rows_is_all_nan(tmp_path):
    write_shard(tmp_path / "pool", "0", 5)
    _, npz = write_shard(tmp_path / "pool", "1", 5, seed=1)
    rewrite_npz(npz, l14_img=np.zeros((5, 16), "f2"))
    run = score(tmp_path / "pool", tmp_path / "run", on_bad_rows="skip", **OPTIONS)
    assert np.isnan(pq.read_table(run.score_files[1])["s_cliploss"].to_numpy()).all()
    assert run.config.skipped_rows == 5


def test_score__rows_off_unit_length_are_scaled_with_one_warning(pool, tmp_path, caplog):
    for npz in (pool / "metadata").glob("*.npz"):
        with np.load(npz) as archive:
            image = archive["l14_img"]
        rewrite_npz(npz, l14_img=image * np.float16(1.008))
    score(pool, tmp_path / "run", **OPTIONS)
    assert [record.message for record in caplog.records] == [
        "shard 00000000: 40 rows a little off unit length were scaled to it"
    ]


@pytest.mark.parametrize("rows", [1, 2])
def test_score__a_pool_of_next_to_nothing(tmp_path, rows):
    write_shard(tmp_path / "pool", "0", rows)
    run = score(tmp_path / "pool", tmp_path / "run")
    assert np.isfinite(pq.read_table(run.score_files[0])["s_cliploss"].to_numpy()).all()


def test_score__a_missing_npz_stops_before_anything_is_scored(pool, tmp_path):
    (pool / "metadata" / "00000002.npz").unlink()
    with pytest.raises(PoolFormatError, match=r"00000002\.npz: expected the embeddings of 00000002\.parquet"):
        score(pool, tmp_path / "run", **OPTIONS)
    assert not (tmp_path / "run" / "scores").exists()


def test_score__what_was_finished_stays_when_a_later_shard_fails(pool, tmp_path):
    _, npz = write_shard(pool, "00000002", 61, seed=2)
    with np.load(npz) as archive:
        sound = dict(archive)
    rewrite_npz(npz, l14_img=np.zeros((61, 16), "f2"))
    with pytest.raises(PoolFormatError, match="shard 00000002, row 0"):
        score(pool, tmp_path / "run", **OPTIONS)
    run = Run.open(tmp_path / "run")
    assert [path.stem for path in map(Path, run.score_files)] == ["00000000", "00000001"]
    assert not run.finished
    said = read_status(Path(run.root) / "status.json")
    assert (said.state, said.note) == ("failed", "2 of 3 shards")
    np.savez(npz, **sound)
    score(pool, tmp_path / "run", **OPTIONS)
    score(pool, tmp_path / "undisturbed", **OPTIONS)
    assert files_of(tmp_path / "run") == files_of(tmp_path / "undisturbed")


def test_score__a_full_disk_is_one_line_and_keeps_what_is_done(pool, tmp_path, monkeypatch):
    write, written = pq.write_table, []

    def write_two(table, path, **options):
        if len(written) == 2:
            path.unlink()
            path.symlink_to("/dev/full")  # which Arrow would remove
        written.append(path)
        write(table, path, **options)

    monkeypatch.setattr(pq, "write_table", write_two)
    said = r"/scores/00000002.parquet: expected to write the run, found No space left on device; make room"
    with pytest.raises(RunError, match=said):
        score(pool, tmp_path / "run", **OPTIONS)
    assert [path.name for path in sorted((tmp_path / "run" / "scores").iterdir())] == [
        "00000000.parquet",
        "00000001.parquet",
    ]
    assert read_status(tmp_path / "run" / "status.json").state == "failed"
    monkeypatch.undo()
    score(pool, tmp_path / "run", **OPTIONS)
    score(pool, tmp_path / "undisturbed", **OPTIONS)
    assert files_of(tmp_path / "run") == files_of(tmp_path / "undisturbed")


def test_score__two_at_once_in_one_folder(pool, tmp_path):
    def meanwhile(*_):
        with pytest.raises(RunError, match="expected a folder nobody works in"):
            score(pool, tmp_path / "run", **OPTIONS)

    score(pool, tmp_path / "run", report=meanwhile, **OPTIONS)


def test_score__status_counts_up_to_the_whole(pool, tmp_path):
    seen = []
    file = tmp_path / "run" / "status.json"
    score(pool, tmp_path / "run", report=lambda *said: seen.append((*said, read_status(file).state)), **OPTIONS)
    done = [pairs for pairs, *_ in seen]
    assert done == sorted(done)
    assert (done[0], seen[-1]) == (0, (126, 126, "pairs", "3 of 3 shards", "running"))
    said = read_status(file)
    assert (said.state, said.what, said.done, said.total, said.unit) == ("done", "scoring", 126, 126, "pairs")


def test_group_scorer__tells_shares_up_to_the_whole(pool, tmp_path, target):
    planned = plan.plan_run(pool, tmp_path / "run", targets={"task": target}, device="cpu", **OPTIONS)
    scorer = groups.GroupScorer(planned, "cpu")
    (group, *_), shares = plan.groups_left(planned.pool.shards, 1, ()), []
    scorer.score(scorer.read(group), lambda done, total, *_: shares.append(done / total))
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.5
    assert shares[-1] == pytest.approx(1)


def test_score__interrupted_says_so_and_goes_on(pool, tmp_path):
    def interrupt(done, total, unit, shards):
        if shards == "1 of 3 shards":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(pool, tmp_path / "run", report=interrupt, **OPTIONS)
    assert read_status(tmp_path / "run" / "status.json").state == "stopped"
    assert score(pool, tmp_path / "run", **OPTIONS).finished


def test_score__killed_five_times_gives_the_same_bytes(tmp_path):
    """A real process, killed with SIGKILL five times: while it begins, between and within shards."""
    for seed in range(6):
        write_shard(tmp_path / "pool", f"{seed:08d}", 3000, width=64, seed=seed)
    run, whole = tmp_path / "run", tmp_path / "whole"
    options = ["--batch-size", "1500", "--divisions", "8", "--temperature", "0.05"]

    def start(root):
        command = [sys.executable, "-m", "clipsel_core", "score", str(tmp_path / "pool"), str(root), *options]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start(whole).wait(PATIENCE_S) == 0
    moments = random.Random(0)
    for shards in (0, 1, 2, 3, 5):
        process = start(run)
        wanted = [run / "run.json", *(score_file(run, f"{seed:08d}") for seed in range(shards))]
        until(lambda there=wanted, at=process: all(path.exists() for path in there) or at.poll() is not None)
        with suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0, 0.1))
        process.kill()
        process.wait(PATIENCE_S)
        assert all(path.exists() for path in wanted)
    assert start(run).wait(PATIENCE_S) == 0
    assert files_of(run) == files_of(whole)


def test_run__a_folder_that_is_none(tmp_path):
    with pytest.raises(RunError, match=r"expected a run's folder, found no run\.json in it; make one with"):
        Run.open(tmp_path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "JSON: Invalid JSON"),
        ('{"pool": 3, "arch": "x"}', "pool: Input should"),
        ('{"pool": "a\\u0000b", "arch": "x"}', "pool: Value error, a path cannot hold a NUL"),
    ],
)
def test_run__a_damaged_description_is_named(tmp_path, text, found):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match=f"expected a run's description, found {found}"):
        read_config(tmp_path)


def test_run__pool_is_found_again_when_both_are_moved(pool, tmp_path):
    score(pool, tmp_path / "run", **OPTIONS)
    (tmp_path / "elsewhere").mkdir()
    for name in ("pool", "run"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    assert Run.open(tmp_path / "elsewhere" / "run").pool_address == str((tmp_path / "elsewhere" / "pool").resolve())


@pytest.mark.parametrize(("noted", "given", "used"), [(0.07, None, 0.07), (0.07, 0.02, 0.02), (None, None, 0.01)])
def test_score__temperature_is_the_teachers_unless_given(pool, tmp_path, noted, given, used):
    add_teacher(pool, "other", TeacherInfo(model="x", temperature=0.5))
    if noted:
        add_teacher(pool, "l14", TeacherInfo(model="y", temperature=noted))
    run = score(pool, tmp_path / "run", temperature=given, batch_size=16, divisions=1)
    assert run.config.temperature == used


def test_score__goes_on_at_the_temperature_it_was_begun_with(pool, tmp_path):
    score(pool, tmp_path / "run", temperature=0.02, batch_size=16, divisions=1)
    add_teacher(pool, "l14", TeacherInfo(model="y", temperature=0.07))
    assert score(pool, tmp_path / "run", batch_size=16, divisions=1).config.temperature == 0.02
    with pytest.raises(RunError, match=r"expected temperature 0\.02, as begun, found 0\.07"):
        score(pool, tmp_path / "run", temperature=0.07, batch_size=16, divisions=1)


def test_score__a_device_without_memory_is_named(pool, tmp_path, monkeypatch):
    """Even the smallest tiles do not fit: one line, the run failed, and what was finished stays."""

    def no_room(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(torch, "mm", no_room)
    with pytest.raises(ScoringError, match="device cpu: expected memory to score, found that it is out of memory; end"):
        score(pool, tmp_path / "run", **OPTIONS)
    assert read_status(tmp_path / "run" / "status.json").state == "failed"
