"""A target in each form that people have it in gives the NormSim of its formula, or one line that says why not."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from clipsel_core.curation.exploring.searches import nearest_targets
from clipsel_core.curation.exploring.vectors import vector_of
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import RunError, TargetError, TeacherError
from clipsel_core.pool.layout import open_pool
from clipsel_core.pool.making.embed import load_teacher
from clipsel_core.pool.making.make import make_pool
from clipsel_core.pool.sources.look import open_source
from clipsel_core.runs.added import add_target, check_target
from clipsel_core.runs.local import score
from clipsel_core.runs.plan import plan_run
from clipsel_core.runs.recompute import recompute
from clipsel_core.runs.store import Run
from clipsel_core.runs.targets import load_target
from clipsel_core.tasks import silent
from tests import reference
from tests.conftest import rewrite_npz, unit_rows, write_shard
from tests.pool.pictures import caption, image, write_tar, write_teacher
from tests.pool.servers import upload

OPTIONS = {"temperature": 0.02, "batch_size": 16, "divisions": 2}
PARTS = [unit_rows(rows, 16, 40 + rows).astype("f4") for rows in (30, 41, 25)]
WHOLE = np.concatenate(PARTS)


def images_of(pool):
    return np.concatenate([np.load(path)["l14_img"] for path in sorted((pool / "metadata").glob("*.npz"))])


def write_pts(folder):
    for number, rows in enumerate(PARTS):
        torch.save(
            {"image_features": torch.from_numpy(rows), "labels": torch.zeros(len(rows))}, folder / f"in_{number}.pt"
        )


def write_npys(folder):
    for number, rows in enumerate(PARTS):
        np.save(folder / f"in_{number}.npy", rows)
    (folder / "._in_3.npy").write_bytes(b"AppleDouble")
    (folder / "readme.txt").write_text("not a target")


def write_parquets(folder):
    for number, rows in enumerate(PARTS):
        pq.write_table(pa.table({"embedding": [row.tolist() for row in rows]}), folder / f"in_{number}.parquet")


def write_each_kind(folder):
    np.save(folder / "in_0.npy", PARTS[0])
    np.savez(folder / "in_1.npz", PARTS[1])
    torch.save(torch.from_numpy(PARTS[2]), folder / "in_2.pt")


def write_pool(folder):
    for number, rows in enumerate(PARTS):
        _, npz = write_shard(folder, f"{number:08d}", len(rows), seed=90 + number)
        rewrite_npz(npz, l14_img=rows)


@pytest.mark.parametrize(
    ("write", "given", "kind"),
    [
        *(
            (write, "task", kind)
            for write, kind in ((write_pts, "pt"), (write_npys, "npy"), (write_parquets, "parquet"))
        ),
        *(
            (write_pts, f"task/{pattern}", "pt")
            for pattern in ("in_*.pt", "in_[0-2].pt", "in_{0..2}.pt", "in_{2,0,1}.pt")
        ),
        (write_pts, "task/in_{0..2}.pt#image_features", "pt"),
        (write_each_kind, "task", "npy"),
        (write_pool, "task", "pool"),
    ],
)
def test_score__normsim_of_several_files_is_that_of_the_formula(pool, tmp_path, write, given, kind):
    (tmp_path / "task").mkdir()
    write(tmp_path / "task")
    run = score(pool, tmp_path / "run", targets={"t": tmp_path / given}, **OPTIONS)
    for p in (np.inf, 2):
        found = ScoreTable.open(run).column(f"normsim_{p:g}_t")
        np.testing.assert_allclose(found, reference.normsim(images_of(pool), WHOLE, p), rtol=3e-6)
    (info,) = run.config.targets
    assert (info.kind, info.rows, info.scaled, len(info.files)) == (kind, len(WHOLE), 0, 3)
    folder = tmp_path / "task"
    assert [file.name for file in info.files] == sorted(file.name for file in info.files)
    for file in info.files:
        path = folder / file.name
        assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert file.size == path.stat().st_size
    listing = "".join(f"{file.sha256}  {file.name}\n" for file in info.files)
    assert info.sha256 == hashlib.sha256(listing.encode()).hexdigest()
    assert info.said.startswith("3 files, 96 ")
    assert recompute(run, 20) == ([], [])
    assert add_target(run.root, "again", tmp_path / given).targets[1].sha256 == info.sha256


def test_load_target__counts_rows_of_other_lengths_and_names_a_broken_one(pool, tmp_path, caplog):
    parts = [rows.copy() for rows in PARTS]
    parts[0][3] *= 7
    parts[1][[0, 4]] *= 0.1
    for number, rows in enumerate(parts):
        np.save(tmp_path / f"in_{number}.npy", rows)
    opened = open_pool(pool)
    arguments = ("t", tmp_path / "in_*.npy", opened, opened.arch(), tmp_path / "run")
    info, rows = load_target(*arguments, embedding=silent)
    np.testing.assert_allclose(rows.numpy(), WHOLE / np.linalg.norm(WHOLE, axis=1, keepdims=True), atol=1e-6)
    assert info.scaled == 3
    assert "target t: 3 files, 96 embeddings of width 16, 3 not of unit length" in caplog.text
    for value in (0, np.nan):
        parts[1][7] = value
        np.save(tmp_path / "in_1.npy", parts[1])
        with pytest.raises(TargetError, match=r"in_1\.npy, row 7: expected a row with a length"):
            load_target(*arguments)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (np.ones((3, 8), "f4"), r"odd\.npy: expected width 16, as the pool's, found 8"),
        (np.ones(16, "f4"), r"odd\.npy: expected a shape \(M, 16\) with at least one row, found \(16,\)"),
        (np.zeros(4, "u8,u8"), r"odd\.npy: expected embeddings, as in .*in_0\.npy, found uids"),
        (np.eye(16), r"odd\.npy: expected embeddings, as in .*in_0\.npy, found a second moment; give it alone"),
    ],
)
def test_load_target__names_the_file_that_does_not_fit(pool, tmp_path, odd, said):
    write_npys(tmp_path)
    np.save(tmp_path / "odd.npy", odd)
    opened = open_pool(pool)
    with pytest.raises(TargetError, match=said):
        load_target("t", tmp_path / "*.npy", opened, opened.arch(), tmp_path / "run")


@pytest.mark.parametrize("given", ["in_{0..4}.npy", "in_9*.npy", "nothing", "in_{7..9}.npy", "x" * 5000, "empty"])
def test_load_target__names_what_is_not_there(pool, tmp_path, given):
    write_npys(tmp_path)
    (tmp_path / "empty").mkdir()
    opened = open_pool(pool)
    with pytest.raises(TargetError, match=r"found (no such file|none|File name too long)"):
        load_target("t", tmp_path / given, opened, opened.arch(), tmp_path / "run")


def test_score__goes_on_only_with_the_same_files(pool, tmp_path):
    (tmp_path / "task").mkdir()
    write_pts(tmp_path / "task")
    options = {**OPTIONS, "targets": {"t": tmp_path / "task"}}
    run = score(pool, tmp_path / "run", **options)
    later = add_target(run.root, "later", tmp_path / "task")
    assert score(pool, tmp_path / "run", **options).metrics == later.metrics
    np.save(tmp_path / "task" / "in_3.npy", PARTS[0])
    with pytest.raises(RunError, match="as begun"):
        score(pool, tmp_path / "run", **options)
    with pytest.raises(RunError, match="as begun"):
        add_target(run.root, "later", tmp_path / "task")
    assert "another file" in recompute(run, 5)[0][0]


def write_moment(path, dtype, rows=WHOLE):
    moment = (rows.astype("f8").T @ rows.astype("f8")).astype(dtype)
    if path.suffix == ".pt":
        torch.save({"second_moment": torch.from_numpy(moment)}, path)
    else:
        np.save(path, moment)
    return moment.astype("f8")


@pytest.mark.parametrize(("name", "dtype"), [("m.npy", "f8"), ("m.npy", "f4"), ("m.pt", "f4"), ("m.npy", "f2")])
def test_score__normsim_2_of_a_second_moment_is_that_of_the_formula(pool, tmp_path, name, dtype, caplog):
    moment = write_moment(tmp_path / name, dtype)
    np.save(tmp_path / "rows.npy", WHOLE)
    targets = {"m": tmp_path / name, "rows": tmp_path / "rows.npy"}
    run = score(pool, tmp_path / "run", targets=targets, **OPTIONS)
    assert run.metrics[-3:] == ["normsim_2_m", "normsim_inf_rows", "normsim_2_rows"]
    x = images_of(pool).astype("f8")
    table = ScoreTable.open(run)
    np.testing.assert_allclose(table.column("normsim_2_m"), np.sqrt(((x @ moment) * x).sum(1)), rtol=3e-6)
    if dtype != "f2":
        np.testing.assert_allclose(table.column("normsim_2_m"), table.column("normsim_2_rows"), rtol=3e-6)
    assert (run.config.targets[0].kind, run.config.norms) == ("moment", ("inf", "2"))
    assert "target m: a second moment of width 16: NormSim_2 only" in caplog.text
    assert recompute(run, 20) == ([], [])
    alone = score(pool, tmp_path / "alone", targets={"m": tmp_path / name}, **OPTIONS)
    assert alone.config.norms == ("2",)
    later = add_target(alone.root, "later", tmp_path / name)
    assert later.metrics[-1] == "normsim_2_later"
    both = ScoreTable.open(later)
    np.testing.assert_array_equal(both.column("normsim_2_m"), both.column("normsim_2_later"))
    with pytest.raises(TargetError, match="a target of images, found a second moment"):
        nearest_targets(both, "m", vector_of(both, 0))


def test_score__refuses_another_norm_of_a_second_moment(pool, tmp_path):
    write_moment(tmp_path / "m.npy", "f8")
    options = {**OPTIONS, "targets": {"m": tmp_path / "m.npy"}}
    with pytest.raises(TargetError, match="target m: expected --norm 2, as it is a second moment, found --norm inf"):
        score(pool, tmp_path / "run", norms=("2", "inf"), **options)
    assert not (tmp_path / "run").exists()
    run = score(pool, tmp_path / "run", norms=("2.0",), **options)
    assert run.metrics[-1] == "normsim_2_m"
    with pytest.raises(TargetError, match="second moment"):
        check_target(run.root, "again", tmp_path / "m.npy", norms=["inf"])


def test_load_target__tells_a_second_moment_from_as_many_embeddings(pool, tmp_path, caplog):
    opened = open_pool(pool)

    def load(array):
        np.save(tmp_path / "t.npy", array)
        return load_target("t", tmp_path / "t.npy", opened, opened.arch(), tmp_path / "run", embedding=silent)

    info, rows = load(unit_rows(16, 16, 3))
    assert (info.kind, rows.dtype) == ("npy", torch.float16)
    assert "16 embeddings of width 16, no second moment as it is not symmetric" in caplog.text
    moment = WHOLE.astype("f8").T @ WHOLE.astype("f8")
    tilted = moment.copy()
    tilted[0, 1] *= 1.001
    assert load(tilted)[0].kind == "npy"
    assert load(moment * (1 + 1e-9 * np.arange(16)))[0].kind == "moment"
    lowered = moment - 1.5 * np.linalg.eigvalsh(moment)[0] * np.eye(16)
    with pytest.raises(
        TargetError, match=r"t\.npy: expected a second moment, as it is symmetric: no negative eigenvalue"
    ):
        load(lowered)
    with pytest.raises(TargetError, match="only zeros"):
        load(np.zeros((16, 16)))


def test_load_target__a_pool_of_another_width_or_teacher(pool, tmp_path):
    write_shard(tmp_path / "narrow", "00000000", 5, width=8)
    write_shard(tmp_path / "other", "00000000", 5, arch="b32")
    opened = open_pool(pool)

    def load(path):
        return load_target("t", path, opened, opened.arch(), tmp_path / "run")

    with pytest.raises(TargetError, match=r"narrow/metadata/00000000\.npz: expected width 16"):
        load(tmp_path / "narrow")
    assert load(f"{tmp_path / 'other'}#b32")[0].rows == 5
    for root, weights in ((pool, "1" * 32), (tmp_path / "other", "2" * 32)):
        (root / "teachers.json").write_text(
            json.dumps({"l14": {"model": "a", "temperature": 0.01, "weights": weights}})
        )
    (tmp_path / "other" / "metadata" / "00000000.npz").unlink()
    write_shard(tmp_path / "other", "00000000", 5)
    with pytest.raises(TargetError, match="found a, with other weights"):
        load(tmp_path / "other")


def test_nearest_targets__of_several_files_and_of_a_pool(pool, tmp_path):
    (tmp_path / "task").mkdir()
    write_parquets(tmp_path / "task")
    write_pool(tmp_path / "theirs")
    targets = {"files": tmp_path / "task", "pool": tmp_path / "theirs"}
    table = ScoreTable.open(score(pool, tmp_path / "run", targets=targets, **OPTIONS))
    for name in targets:
        found = nearest_targets(table, name, vector_of(table, 7), limit=3)
        products = WHOLE.astype("f8") @ images_of(pool)[7].astype("f8")
        assert found.rows.tolist() == np.argsort(-np.abs(products))[:3].tolist()
        assert abs(found.similarity[0]) == pytest.approx(table.column(f"normsim_inf_{name}")[7], abs=1e-6)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "clip", 5)


@pytest.fixture
def drawn_pool(tmp_path, teacher):
    """A pool of pictures that knows its teacher, and the folder that it was made of."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:03d}.jpg").write_bytes(image(number))
        (folder / f"{number:03d}.txt").write_text(caption(number))
    loaded = load_teacher(f"local-dir:{teacher}")
    make_pool(open_source(folder), tmp_path / "drawn", loaded, arch="tiny", model=f"local-dir:{teacher}")
    return tmp_path / "drawn"


def write_class_folders(folder):
    for number in range(20):
        (folder / f"class{number // 7}").mkdir(exist_ok=True)
        (folder / f"class{number // 7}" / f"{number:03d}.jpg").write_bytes(image(number))
    (folder / "labels.csv").write_text("name,label\n000,1\n")


def write_one_folder(folder):
    for number in range(20):
        (folder / f"{number:03d}.JPG").write_bytes(image(number))


def write_picture_tars(folder):
    for part in range(2):
        write_tar(folder / f"{part}.tar", {f"n{n}/{n:03d}.jpg": image(n) for n in range(10 * part, 10 * part + 10)})


def write_picture_parquet(folder):
    values = [{"bytes": image(number), "path": f"{number}.jpg"} for number in range(20)]
    for part in range(2):
        pq.write_table(pa.table({"image": values[10 * part : 10 * part + 10]}), folder / f"{part}.parquet")


def write_as_img2dataset(folder):
    """Tars with tables that describe them, and what else it leaves."""
    write_picture_tars(folder)
    for part in range(2):
        pq.write_table(
            pa.table({"url": ["x"] * 10, "uid": [f"{n:032x}" for n in range(10)]}), folder / f"{part}.parquet"
        )
        (folder / f"{part}_stats.json").write_text("{}")


def write_as_hugging_face(folder):
    (folder / "data").mkdir()
    write_picture_parquet(folder / "data")
    (folder / "README.md").write_text("a data set")


FORMS = [
    *((write, "task") for write in (write_as_img2dataset, write_as_hugging_face)),
    *((write, "task") for write in (write_class_folders, write_one_folder, write_picture_tars, write_picture_parquet)),
    *((write_picture_tars, "task/{0,1}.tar"), (write_picture_parquet, "task/*.parquet#image")),
]


@pytest.mark.parametrize(("write", "given"), FORMS)
def test_score__embeds_pictures_as_embed_does(drawn_pool, tmp_path, write, given):
    (tmp_path / "task").mkdir()
    write(tmp_path / "task")
    told = []
    note = lambda *said: told.append(said)  # noqa: E731
    options = {**OPTIONS, "targets": {"t": tmp_path / given}}
    assert (
        plan_run(drawn_pool, tmp_path / "run", **options)
        .config.targets[0]
        .said.startswith("20 pictures, which are embedded")
    )
    assert not (tmp_path / "run").exists()
    run = score(drawn_pool, tmp_path / "run", embedding=note, **options)
    (info,) = run.config.targets
    stored = np.load(next((drawn_pool / "metadata").glob("*.npz")))["tiny_img"]
    np.testing.assert_array_equal(np.load(Path(run.root) / info.path), stored)
    np.testing.assert_allclose(
        ScoreTable.open(run).column("normsim_2_t"), reference.normsim(stored, stored, 2), rtol=3e-6
    )
    assert (info.kind, info.rows, info.rejected) == ("pictures", 20, 0)
    assert (Path(run.root) / info.given).resolve() == (tmp_path / given.partition("#")[0]).resolve() or "#" in given
    assert told
    assert told[-1][0] == told[-1][1]
    told.clear()
    assert score(drawn_pool, tmp_path / "run", embedding=note, **options).config == run.config
    assert told == []
    assert recompute(run, 5) == ([], [])
    there = sorted((tmp_path / "task").rglob("*.*"), key=lambda path: path.suffix == ".parquet")
    file = next(path for path in there if path.suffix.lower() in (".jpg", ".tar", ".parquet"))
    if file.suffix == ".parquet":
        pq.write_table(pq.read_table(file).slice(1), file)
    else:
        file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(RunError, match="as begun"):
        score(drawn_pool, tmp_path / "run", embedding=note, **options)
    assert told == []


def test_score__every_form_on_two_workers_as_on_one(drawn_pool, tmp_path):
    (tmp_path / "shown").mkdir()
    write_one_folder(tmp_path / "shown")
    write_npys(tmp_path)
    write_moment(tmp_path / "m.npy", "f8")
    targets = {"shown": tmp_path / "shown", "parts": tmp_path / "in_*.npy", "m": tmp_path / "m.npy", "pool": drawn_pool}
    one, two = (
        ScoreTable.open(score(drawn_pool, tmp_path / f"run{len(device)}", targets=targets, device=device, **OPTIONS))
        for device in ("cpu", "cpu,cpu")
    )
    assert one.metrics == two.metrics
    assert len(one.metrics) == 5 + 7
    for metric in one.metrics:
        np.testing.assert_array_equal(one.column(metric), two.column(metric))
    np.testing.assert_array_equal(one.column("normsim_inf_shown"), one.column("normsim_inf_pool"))


@pytest.mark.parametrize(("write", "given"), [FORMS[2], FORMS[4], FORMS[7]])
def test_load_target__pictures_in_a_store_are_those_on_disk(drawn_pool, tmp_path, write, given):
    (tmp_path / "task").mkdir()
    write(tmp_path / "task")
    upload(tmp_path / "task", "memory://forms/task")
    pool, found = open_pool(drawn_pool), []
    for name, base in (("here", tmp_path), ("there", "memory://forms")):
        found.append(load_target("t", f"{base}/{given}", pool, pool.arch(), tmp_path / name, embedding=silent))
    (here, rows_here), (there, rows_there) = found
    assert torch.equal(rows_here, rows_there)
    assert (here.files, here.sha256, here.rejected) == (there.files, there.sha256, there.rejected)
    assert there.pictures == f"memory://forms/{given}"


def test_add_target__of_pictures_leaves_broken_ones_out_and_lists_them(drawn_pool, tmp_path):
    (tmp_path / "task").mkdir()
    write_one_folder(tmp_path / "task")
    (tmp_path / "task" / "004.JPG").write_bytes(b"no picture")
    run = score(drawn_pool, tmp_path / "run", **OPTIONS)
    assert check_target(run.root, "t", tmp_path / "task").said.startswith(
        "20 pictures, which are embedded with local-dir:"
    )
    assert not (Path(run.root) / "targets").exists()
    added = add_target(run.root, "t", tmp_path / "task")
    (info,) = added.targets
    assert (info.rows, info.rejected) == (19, 1)
    stored = np.load(next((drawn_pool / "metadata").glob("*.npz")))["tiny_img"]
    np.testing.assert_array_equal(np.load(Path(run.root) / info.path), np.delete(stored, 4, axis=0))
    (listed,) = (Path(run.root) / "targets").glob("*_rejected.parquet")
    assert pq.read_table(listed).to_pylist()[0]["key"] == "004.JPG"
    assert check_target(run.root, "t2", tmp_path / "task").sha256 == ""
    assert Run.open(run.root).metrics[-2:] == ["normsim_inf_t", "normsim_2_t"]


def test_load_target__of_pictures_asks_for_a_teacher_that_is_known(pool, drawn_pool, tmp_path):
    (tmp_path / "task").mkdir()
    write_one_folder(tmp_path / "task")
    with pytest.raises(
        TeacherError, match=r"expected to know which model l14 is, found no teachers\.json; embed them with"
    ):
        plan_run(pool, tmp_path / "run", targets={"t": tmp_path / "task"})
    np.save(tmp_path / "task" / "a.npy", WHOLE)
    with pytest.raises(TargetError, match=r"found pictures and a\.npy; give the files alone"):
        plan_run(drawn_pool, tmp_path / "run", targets={"t": tmp_path / "task"})
    (tmp_path / "task" / "a.npy").unlink()
    shutil.rmtree(tmp_path / "teacher", ignore_errors=True)
    teachers = json.loads((drawn_pool / "teachers.json").read_text())
    teachers["tiny"]["weights"] = "0" * 32
    (drawn_pool / "teachers.json").write_text(json.dumps(teachers))
    with pytest.raises(TeacherError, match="expected the weights that embedded"):
        score(drawn_pool, tmp_path / "run", targets={"t": tmp_path / "task"}, **OPTIONS)
    assert not (tmp_path / "run" / "targets").exists()
