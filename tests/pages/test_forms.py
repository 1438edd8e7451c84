"""The forms that start jobs: what they offer, what they refuse, and which command they start in the end."""

from __future__ import annotations

import json
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from clipsel_core import tasks, uids
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import JobError
from clipsel_core.jobs import control
from clipsel_core.jobs.control import listing
from clipsel_core.pool.target_files import split_part
from clipsel_core.runs import targets as core_targets
from clipsel_core.runs.store import Run
from pages.parts import catalog
from pages.parts.jobs import folders, forms, machine
from tests.conftest import unit_rows, write_shard
from tests.jobs import stand_in
from tests.jobs.stand_in import ended
from tests.pages.conftest import press, words
from tests.pages.worlds import add_target_by_hand, make_run
from tests.waiting import PATIENCE_S, until


def button(app, label):
    return next(found for found in app.button if found.label == label)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder with one pool and one target, and a run beside it that is on show."""
    data = tmp_path / "data"
    for seed, rows in enumerate((30, 20)):
        write_shard(data / "birds" / "pool", f"{seed:08d}", rows, seed=seed)
    (data / "birds" / "target").mkdir()
    np.save(data / "birds" / "target" / "task.npy", unit_rows(9, 16, 5))
    monkeypatch.setenv("CLIPSEL_DATA", str(data))
    monkeypatch.setenv("CLIPSEL_RUNS", "")
    monkeypatch.setenv("CLIPSEL_READ", "")
    monkeypatch.setenv("CLIPSEL_READ_ADDRESSES", "")
    return data


@pytest.fixture
def opened(data, tmp_path, open_page, monkeypatch):
    """Opens a page on a run whose jobs the stand-in does."""

    def opener(page: str, behaviour: str = "finish"):
        run = make_run(tmp_path / "world")
        stand_in.install(tmp_path / "home", monkeypatch, behaviour)
        app = open_page(page, run)
        monkeypatch.setenv("CLIPSEL_DATA", str(data))
        return app.run(), run

    return opener


def test_score__begins_with_the_pool_that_was_made(data, opened):
    app, _ = opened("overview")
    for place in ("ants", "cats"):
        write_shard(data / place / "pool", "00000000", 5, seed=3)
    made = data / "cats" / "pool"
    ended(control.start(catalog.jobs_folder(), "embed", [made, made], {}, title="Make pool cats", about=made))
    app.run()
    button(app, "Score it").click().run()
    assert not app.exception
    chosen = next(box for box in app.selectbox if box.label == "Pool")
    assert (chosen.value, chosen.options[0]) == ("cats/pool", "ants/pool")


def test_score__starts_the_command_that_was_filled_in(data, opened, monkeypatch):
    app, _ = opened("overview")
    button(app, "Score a pool").click().run()
    pool = next(box for box in app.selectbox if box.label == "Pool")
    assert "birds/pool" in pool.options
    pool.set_value("birds/pool").run()
    next(box for box in app.multiselect if box.label == "Targets").set_value(["birds/target/task.npy"])
    next(box for box in app.number_input if box.label.startswith("Pairs in a batch")).set_value(64)
    next(box for box in app.text_input if box.label == "Name of the run").set_value("mine")
    app.button(key="start scoring").click().run()
    assert not app.exception
    assert "Not started" not in words(app)
    (job,) = listing(catalog.jobs_folder())
    target = f"--target=task={data / 'birds' / 'target' / 'task.npy'}"
    expected = {"score", str(data / "birds" / "pool"), str(data / "mine"), "--arch=l14", "--batch-size=64", target}
    assert set(job.info.words) == expected
    ended(job)


def test_score__begins_with_the_temperature_of_an_earlier_run(data, opened, monkeypatch):
    """A pool that does not know its teacher's tau: a run of it does."""
    app, run = opened("overview")
    write_shard(data / "more" / "pool", "00000000", 20, seed=0)
    shutil.copytree(run, data / "seen" / "run")
    described = json.loads((run / "run.json").read_text())
    described |= {"pool": str(data / "birds" / "pool"), "arch": "l14", "temperature": 0.05}
    (data / "seen" / "run" / "run.json").write_text(json.dumps(described))
    button(app, "Score a pool").click().run()
    for pool, tau in (("more/pool", 0.01), ("birds/pool", 0.05)):
        next(box for box in app.selectbox if box.label == "Pool").set_value(pool).run()
        assert next(box for box in app.number_input if box.label.startswith("Temperature")).value == tau
    next(box for box in app.text_input if box.label == "Name of the run").set_value("mine")
    app.button(key="start scoring").click().run()
    (job,) = listing(catalog.jobs_folder())
    assert "--temperature=0.05" in job.info.words
    ended(job)


def test_score__says_what_the_check_found(opened):
    app, _ = opened("overview", "fail")
    button(app, "Score a pool").click().run()
    next(box for box in app.selectbox if box.label == "Pool").set_value("birds/pool").run()
    app.button(key="start scoring").click().run()
    assert "Not started" in words(app)
    assert "pool: expected shards, found none" in [code.value for code in app.code]
    assert listing(catalog.jobs_folder()) == []


@pytest.mark.parametrize("typed", ["/etc", "../world/pool/..", "birds/link", "nothing", "birds/target"])
def test_score__takes_no_pool_from_elsewhere(data, opened, typed, monkeypatch):
    (data / "birds" / "link").symlink_to("/etc")
    monkeypatch.setattr(folders, "pools", lambda: [typed])
    monkeypatch.setattr(folders, "short_path", str)
    app, _ = opened("overview")
    button(app, "Score a pool").click().run()
    assert next(box for box in app.selectbox if box.label == "Pool").value == typed
    assert not app.exception
    assert "cannot be scored" in words(app)
    assert "start scoring" not in [found.key for found in app.button]


def test_target__from_a_file(data, opened):
    app, run = opened("overview")
    button(app, "Add a target").click().run()
    next(box for box in app.selectbox if box.label == "Path").set_value("birds/target/task.npy").run()
    name = next(box for box in app.text_input if box.label == "Name")
    assert name.value == "task-2"
    name.set_value("task").run()
    app.button(key="add target").click().run()
    assert "one that the run has" in words(app)
    next(box for box in app.text_input if box.label == "Name").set_value("birds").run()
    app.button(key="add target").click().run()
    (job,) = listing(catalog.jobs_folder())
    assert job.info.words == ("add-target", str(run), f"--target=birds={data / 'birds' / 'target' / 'task.npy'}")
    ended(job)


def test_column__from_a_file_that_is_typed_or_uploaded(data, opened):
    app, run = opened("overview")
    (data / "scores.csv").write_text("uid,dfn,other\n")
    button(app, "Add a column").click().run()
    field(app, "text_input", "Or its path").set_value("scores.csv").run()
    assert field(app, "text_input", "Name").value == "scores"
    field(app, "text_input", "Column in the file").set_value(" dfn ").run()
    assert field(app, "text_input", "Name").value == "dfn"
    app.segmented_control[-1].set_value("higher").run()
    app.button(key="add column").click().run()
    assert not app.exception
    (job,) = listing(catalog.jobs_folder())
    assert job.info.words == ("add-column", str(run), f"dfn={data / 'scores.csv'}#dfn", "--direction=higher")
    assert job.info.about == str(run)
    ended(job)
    button(app, "Add a column").click().run()
    app.file_uploader[0].upload("mine.csv", b"uid,x\n", "text/csv").run()
    app.button(key="add column").click().run()
    assert not app.exception
    (file,) = (run / "columns").iterdir()
    assert file.read_bytes() == b"uid,x\n"
    last, _ = listing(catalog.jobs_folder())
    assert last.info.words == ("add-column", str(run), f"mine={file}")
    ended(last)


def test_column__that_is_computed(opened):
    app, run = opened("overview")
    button(app, "Add a column").click().run()
    field(app, "selectbox", "Where its values come from").set_value("caption_words").run()
    assert "Words in the caption" in words(app)
    app.button(key="add column").click().run()
    (job,) = listing(catalog.jobs_folder())
    assert job.info.words == ("add-column", str(run), "caption_words")
    ended(job)


@pytest.mark.parametrize(
    ("path", "name", "said"),
    [
        ("../world/run/run.json", "x", "expected a path inside"),
        ("gone.csv", "x", "found nothing"),
        ("a.csv", "a=b", "name:"),
    ],
)
def test_column__what_cannot_be_read_or_named_is_said_and_not_started(data, opened, path, name, said):
    app, run = opened("overview")
    (data / "a.csv").write_text("uid,x\n")
    (run.parent.parent / "elsewhere").mkdir()
    button(app, "Add a column").click().run()
    field(app, "text_input", "Or its path").set_value(path.replace("world/run/run.json", "elsewhere")).run()
    field(app, "text_input", "Name").set_value(name).run()
    app.button(key="add column").click().run()
    assert "Not started" in words(app)
    assert said in words(app)
    assert listing(catalog.jobs_folder()) == []


def test_target__more_like_the_pairs_kept_by_hand(opened):
    app, run = opened("gallery")
    assert "More like these" not in [found.label for found in app.button]
    element = next(part for part in app.get("bidi_component") if part.proto.component_name == "clipsel_cards")
    names = ScoreTable.open(Run.open(run)).uids_at(np.array([59]))
    uid = uids.to_hex(names)[0].as_py()
    press(app, element.proto.id, "keep", uid=uid)
    button(app, "More like these").click().run()
    app.button(key="add target").click().run()
    assert not app.exception
    (job,) = listing(catalog.jobs_folder())
    (file,) = (run / "targets").iterdir()
    assert file.name.startswith("picked-")
    assert job.info.words == ("add-target", str(run), f"--target=picked={file}")
    assert uids.read_subset(file).tolist() == names.tolist()
    ended(job)


def test_inside__reads_the_allowed_folders_alone(data, tmp_path, monkeypatch):
    (tmp_path / "more" / "pool").mkdir(parents=True)
    (data / "link").symlink_to(tmp_path / "more")
    refused = ("/etc/passwd", "../more/pool", "link/pool", "birds/../../more", "~root", "birds\0", "~nobody-here/x")
    for text in (*refused, "x" * 5000, "loop/x"):
        (data / "loop").unlink(missing_ok=True)
        (data / "loop").symlink_to(data / "loop")
        with pytest.raises(JobError):
            folders.inside(text)
    assert folders.inside("birds/pool") == data / "birds" / "pool"
    monkeypatch.setenv("CLIPSEL_READ", str(tmp_path / "more"))
    assert folders.inside("../more/pool") == tmp_path / "more" / "pool"
    assert folders.short_path(data / "birds") == "birds"
    assert folders.target("birds/pool#part") == data / "birds" / "pool#part"
    with pytest.raises(JobError):
        folders.target("/etc/passwd#birds/pool")


def test_inside__names_few_of_many_folders(data, tmp_path, monkeypatch):
    more = [data / "birds", *(tmp_path / f"more{number}" for number in range(5))]
    monkeypatch.setattr(folders, "roots", lambda: [data, *more])
    first = f"{data}, {tmp_path / 'more0'}, {tmp_path / 'more1'} or 3 more folders"
    with pytest.raises(JobError, match=re.escape(f"inside {first}, found another")):
        folders.inside("/etc/passwd")


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-rf", "a b", "x" * 65, "birds"])
def test_new__takes_plain_names_that_are_free(data, name):
    with pytest.raises(JobError):
        folders.new(name)
    assert folders.new("mine") == data / "mine"


def test_pool_to_make__is_new_or_a_pool_that_a_teacher_may_join(data):
    assert folders.pool_to_make("mine") == data / "mine"
    (data / "birds" / "pool").rename(data / "downloaded")
    assert folders.pool_to_make("downloaded") == data / "downloaded"
    for name in ("birds", "../downloaded", ""):
        with pytest.raises(JobError):
            folders.pool_to_make(name)


def test_names__are_made_of_what_is_there(data):
    assert folders.free_name("birds") == "birds-2"
    assert folders.free_name("my <b>pool") == "my-b-pool"
    assert folders.target_name("/x/tás k.npy", ["t-s-k"]) == "t-s-k-2"
    assert folders.target_name("..npy", []) == "target"
    assert [folders.target_name(f"in1k_{signs}.pt", []) for signs in ("*", "{0..4}", "[0-4]")] == ["in1k"] * 3


def test_found__pools_targets_and_sources(data):
    (data / "pictures").mkdir()
    (data / ".hidden").mkdir()
    (data / "list.csv").touch()
    assert folders.pools() == [data / "birds" / "pool"]
    assert folders.targets() == [data / "birds" / "target" / "task.npy"]
    assert folders.sources() == [data / "list.csv", data / "pictures", data / "birds" / "target"]


def test_check_uploads__names_the_file_itself(data, tmp_path):
    told = []
    look = lambda files: (told.extend(files), "")[1]  # noqa: E731
    assert folders.check_uploads(tmp_path / "targets", [("../../<b>evil.npy", b"abc")], look) == ""
    (kept,) = (tmp_path / "targets").iterdir()
    assert [Path(file) for file in told] == [kept]
    assert kept.read_bytes() == b"abc"
    assert kept.name.startswith("b-evil-")
    with pytest.raises(JobError):
        folders.check_uploads(tmp_path / "targets", [("good.npy", b"x"), ("evil.exe", b"abc")], look)
    assert list((tmp_path / "targets").iterdir()) == [kept]


def test_check_uploads__keeps_nothing_new_that_is_refused(tmp_path):
    folder, files = tmp_path / "targets", [("a.npy", b"a"), ("b.npy", b"b")]
    assert folders.check_uploads(folder, files[:1], lambda kept: "") == ""
    before = list(folder.iterdir())
    assert folders.check_uploads(folder, files, lambda kept: "no") == "no"
    assert list(folder.iterdir()) == before
    with pytest.raises(JobError):
        folders.check_uploads(folder, files, lambda kept: folders.inside(""))
    assert list(folder.iterdir()) == before


def test_target_endings__are_those_that_the_core_reads():
    assert set(folders.TARGET_ENDINGS) == set(core_targets._KINDS)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("birds/a#b/task.npz", "birds/a#b/task.npz"),
        ("birds/a#b/task.npz#img/x#y", "birds/a#b/task.npz#img/x#y"),
        ("birds/a#b/c#d.npy", "birds/a#b/c#d.npy"),
        ("birds/../birds/a#b/c#d.npy#e", "birds/a#b/c#d.npy#e"),
        ("birds/target/task.npy#e", "birds/target/task.npy#e"),
    ],
)
def test_target__finds_the_file_as_the_core_does(data, typed, expected):
    (data / "birds" / "a#b").mkdir()
    for name in ("task.npz", "c#d.npy"):
        (data / "birds" / "a#b" / name).touch()
    found = folders.target(typed)
    assert found == data / expected
    assert split_part(found)[0].is_file()


def test_target__no_link_leads_out_by_a_sign_in_its_name(data, tmp_path):
    (tmp_path / "secret.npy").touch()
    (data / "a#b.npy").symlink_to(tmp_path / "secret.npy")
    with pytest.raises(JobError, match="inside"):
        folders.target("a#b.npy")


def test_target__takes_folders_and_patterns_whose_files_all_lie_inside(data, tmp_path):
    task = data / "birds" / "parts"
    task.mkdir()
    for number in range(3):
        np.save(task / f"in_{number}.npy", unit_rows(3, 16, number))
    for typed in ("birds/parts", "birds/parts/in_*.npy", "birds/parts/in_{0..2}.npy", "birds/*/in_0.npy#x"):
        assert folders.target(typed) == data / typed
    with pytest.raises(JobError, match="found nothing"):
        folders.target("birds/parts/out_*.npy")
    np.save(tmp_path / "secret.npy", unit_rows(3, 16, 1))
    for typed in ("../secret*.npy", "birds/../../secret*.npy", "{../secret.npy,birds/parts/in_0.npy}"):
        with pytest.raises(JobError, match=r"found (another|nothing)"):
            folders.target(typed)
    (task / "in_3.npy").symlink_to(tmp_path / "secret.npy")
    with pytest.raises(JobError, match="found another"):
        folders.target("birds/parts/in_*.npy")
    with pytest.raises(JobError, match="found nothing"):
        folders.inside("birds/parts/in_*.npy")


def test_recognised__is_what_the_core_takes_it_for(data, monkeypatch):
    monkeypatch.setenv("CLIPSEL_READ", "")
    task, pool = data / "birds" / "parts", data / "birds" / "pool"
    task.mkdir()
    for number in range(2):
        np.save(task / f"in_{number}.npy", unit_rows(3, 16, number) * np.float16(1 + number))
    asked = (pool, "l14", str(task), (0,), tuple(folders.job_roots()))
    assert forms._recognised(*asked) == ("2 files, 6 embeddings of width 16, 3 not of unit length", "")
    (task / "in_2.npy").symlink_to("/etc/passwd")
    said, wrong = forms._recognised(*asked[:3], (1,), asked[4])
    assert (said, "outside of the places" in wrong) == ("", True)


def test_target__says_what_a_path_was_taken_for(data, opened, monkeypatch):
    monkeypatch.setattr(
        folders, "targets", lambda: [data / "birds" / "target" / "task.npy", data / "birds" / "absent*.npy"]
    )
    app, _ = opened("overview")
    button(app, "Add a target").click().run()
    field(app, "selectbox", "Path").set_value("birds/target/task.npy").run()
    assert "task: 9 embeddings of width 16" in words(app)
    field(app, "selectbox", "Path").set_value("birds/absent*.npy").run()
    assert field(app, "text_input", "Name").value == "absent"
    assert "This cannot be a target" in words(app)
    assert "found nothing" in words(app)
    assert not app.exception


def test_score__says_what_each_target_was_taken_for(data, opened):
    app, _ = opened("overview")
    (data / "birds" / "target" / "more").mkdir()
    button(app, "Score a pool").click().run()
    next(box for box in app.selectbox if box.label == "Pool").set_value("birds/pool").run()
    box = next(box for box in app.multiselect if box.label == "Targets")
    assert "birds/target/more" in box.options
    box.set_value(["birds/target/task.npy", "birds/target/more"]).run()
    assert "task: 9 embeddings of width 16" in words(app)
    assert "more: 9 embeddings of width 16" in words(app)


def test_found__nothing_that_is_hidden(data):
    hidden = (data / ".trash" / "targets", data / ".trash" / "pool" / "metadata", data / ".trash" / "clip")
    for folder in hidden:
        folder.mkdir(parents=True)
    for file in (hidden[0] / "a.npy", hidden[1] / "0.parquet", hidden[2] / "open_clip_config.json"):
        file.touch()
    (data / "birds" / "target" / "._task.npy").touch()
    (data / "birds" / "target" / "more.PTH").touch()
    (data / "apple" / "metadata").mkdir(parents=True)
    (data / "apple" / "metadata" / "._0.parquet").touch()
    assert folders.targets() == [data / "birds" / "target" / name for name in ("more.PTH", "task.npy")]
    assert folders.pools() == [data / "birds" / "pool"]
    assert folders.teachers() == []


def test_targets__of_uploads_only_those_that_were_used(data, opened):
    """Files that were refused before uploads were checked, or given up later, are offered to nobody."""
    _, run = opened("overview")
    for folder in (run / "targets", data / "targets"):
        folder.mkdir()
        for name in ("mine", "refused-0123456789ab", "used-0123456789ab"):
            np.save(folder / f"{name}.npy", unit_rows(3, 8, 1))
    add_target_by_hand(run, "used-0123456789ab")
    described = json.loads((run / "run.json").read_text())
    described["targets"][0]["path"] = str(data / "targets" / "used-0123456789ab.npy")
    (run / "run.json").write_text(json.dumps(described))
    there = [data / "targets", run / "targets"]
    expected = [folder / f"{name}.npy" for folder in there for name in ("mine", "used-0123456789ab")]
    assert folders.targets() == sorted([data / "birds" / "target" / "task.npy", *expected])


def upload(app, name, content=b"abc"):
    app.file_uploader[-1].set_value((name, content, "application/octet-stream")).run()


@pytest.mark.parametrize("behaviour", ["finish", "fail"])
def test_target__an_upload_stays_only_where_the_check_accepts_it(data, opened, behaviour):
    app, run = opened("overview", behaviour)
    button(app, "Add a target").click().run()
    upload(app, "mine.npy")
    app.button(key="add target").click().run()
    assert not app.exception
    found = listing(catalog.jobs_folder())
    if behaviour == "fail":
        assert "Not started" in words(app)
        assert "pool: expected shards, found none" in words(app)
        assert (found, list((run / "targets").iterdir())) == ([], [])
        return
    (kept,) = (run / "targets").iterdir()
    assert found[0].info.words == ("add-target", str(run), f"--target=mine={kept}")
    ended(found[0])


def test_target__what_the_check_refuses_is_said_and_not_started(data, opened):
    app, _ = opened("overview", "fail")
    button(app, "Add a target").click().run()
    field(app, "selectbox", "Path").set_value("birds/target/task.npy").run()
    app.button(key="add target").click().run()
    assert "pool: expected shards, found none" in words(app)
    assert listing(catalog.jobs_folder()) == []
    assert (data / "birds" / "target" / "task.npy").exists()


@pytest.mark.parametrize("behaviour", ["finish", "fail"])
def test_score__an_upload_stays_only_where_the_check_accepts_it(data, opened, behaviour):
    app, _ = opened("overview", behaviour)
    button(app, "Score a pool").click().run()
    app.file_uploader[-1].set_value([("mine.npy", b"abc", "application/octet-stream")]).run()
    app.button(key="start scoring").click().run()
    assert not app.exception
    kept = list((data / "targets").iterdir())
    assert len(kept) == len(listing(catalog.jobs_folder())) == (behaviour == "finish")
    for job in listing(catalog.jobs_folder()):
        assert f"--target={kept[0].stem}={kept[0]}" in job.info.words
        ended(job)


@pytest.mark.parametrize(("choice", "option"), [("error", None), ("skip", "skip"), ("scale", "scale")])
def test_score__asks_what_becomes_of_bad_rows(data, opened, choice, option):
    app, _ = opened("overview")
    button(app, "Score a pool").click().run()
    box = field(app, "selectbox", "Rows without")
    assert box.value == "error"
    box.set_value(choice).run()
    app.button(key="start scoring").click().run()
    (job,) = listing(catalog.jobs_folder())
    said = [word for word in job.info.words if word.startswith(("--on-bad-rows", "--temperature"))]
    assert said == ([f"--on-bad-rows={option}"] if option else [])
    ended(job)


def test_pool__starts_embed_with_source_and_teacher(data, opened, monkeypatch):
    (data / "pictures").mkdir()
    (data / "clip").mkdir()
    (data / "clip" / "open_clip_config.json").touch()
    monkeypatch.setattr(machine, "downloaded_teachers", lambda: ["ViT-B-32 openai"])
    app, _ = opened("overview")
    button(app, "Make a pool").click().run()
    assert app.button(key="start pool").disabled
    teacher = next(box for box in app.selectbox if box.label == "Teacher")
    assert teacher.options[:2] == ["clip", "ViT-B-32 openai"]
    teacher.set_value("ViT-B-32 openai")
    next(box for box in app.selectbox if box.label == "Source").set_value("pictures").run()
    assert [box.value for box in app.text_input if box.label.endswith(("short name", "the pool"))] == [
        "b32",
        "pictures-2",
    ]
    app.button(key="start pool").click().run()
    assert not app.exception
    (job,) = listing(catalog.jobs_folder())
    expected = ("embed", str(data / "pictures"), str(data / "pictures-2"), "--arch=b32")
    assert job.info.words == (*expected, "--model=ViT-B-32", "--pretrained=openai")
    ended(job)


def test_pool__from_an_address_that_the_server_allows(data, opened, monkeypatch):
    monkeypatch.setattr(machine, "downloaded_teachers", lambda: ["ViT-B-32 openai"])
    app, _ = opened("overview")
    monkeypatch.setenv("CLIPSEL_READ_ADDRESSES", "https://host:8/photos")
    button(app, "Make a pool").click().run()
    next(box for box in app.selectbox if box.label == "Teacher").set_value("ViT-B-32 openai")
    next(box for box in app.selectbox if box.label == "Source").set_value("https://host:8/photos").run()
    app.button(key="start pool").click().run()
    assert not app.exception
    (job,) = listing(catalog.jobs_folder())
    assert job.info.words[:3] == ("embed", "https://host:8/photos", str(data / "photos"))
    ended(job)


@pytest.mark.parametrize(
    "typed",
    [
        "https://host:8/photosynthesis/x.csv",
        "https://host:8/photos/../secret",
        "https://host:8/photos/%2e%2E/secret",
        "https://host:8/photos/..%2fsecret",
        "https://host:8/photos\\..\\secret",
        "https://host:8/photos/x?to=//10.0.0.1/",
        "https://host:8@10.0.0.1/photos/x.csv",
        "https://host/photos/x.csv",
        "http://host:8/photos/x.csv",
        "simplecache::https://host:8/photos/x.csv",
        "https://host:8/photos/x.zip::file:///etc/x.zip",
        "zip://x::/etc/x.zip",
        "file:///etc",
        "s3://photos",
        "https://host:8/photos/x\n.csv",
    ],
)
def test_addresses__only_below_the_allowed_ones(typed, data, monkeypatch):
    monkeypatch.setenv("CLIPSEL_READ_ADDRESSES", "https://host:8/photos/ s3://bucket")
    with pytest.raises(JobError):
        folders.source(typed)


def test_addresses__the_allowed_ones_and_below(data, monkeypatch):
    catalog.allow([], ["https://host:8/photos/", data / "birds", "s3://bucket", f"file://{data}"])
    for address in ("https://host:8/photos/", "https://host:8/photos/a/b.tar", "s3://bucket/x.csv"):
        assert folders.source(f" {address} ") == address
    assert catalog.readable_folders() == [data / "birds", data]
    assert folders.source("birds/pool") == data / "birds" / "pool"
    monkeypatch.setenv("CLIPSEL_READ_ADDRESSES", "")
    with pytest.raises(JobError, match="no address is allowed here"):
        folders.source("https://host:8/photos/")


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("ViT-B-32 openai", {"model": "ViT-B-32", "pretrained": "openai"}),
        ("hf-hub:timm/some", {"model": "hf-hub:timm/some"}),
        ("birds/target", {"model": "local-dir:{data}/birds/target"}),
        ("my clip", {"model": "local-dir:{data}/my clip"}),
        ("ViT-B-32 birds/own.pt", {"model": "ViT-B-32", "pretrained": "{data}/birds/own.pt"}),
        (forms._NO_TEACHER, {}),
        ("ViT-B-32", None),
        ("ViT-B-32 /etc/own.pt", None),
        ("local-dir:/etc", None),
        ("../model.json openai", None),
    ],
)
def test_pool__teachers_are_names_or_allowed_paths(data, typed, named):
    (data / "birds" / "own.pt").touch()
    (data / "my clip").mkdir()
    (data / "my clip" / "open_clip_config.json").touch()
    if named is None:
        with pytest.raises(JobError):
            forms._teacher_options(typed)
    else:
        assert forms._teacher_options(typed) == {key: value.format(data=data) for key, value in named.items()}


def test_pool__its_form_is_there_while_the_machine_is_examined(opened, monkeypatch):
    said = [{"area": "teachers", "name": "ViT-B-32 openai", "value": "downloaded", "state": "ok", "remedy": ""}]
    asked, answer = [], threading.Event()

    def ask(command, options):
        asked.append(command)
        answer.wait(PATIENCE_S)
        return json.dumps(said)

    monkeypatch.setattr(control, "ask", ask)
    machine._examination.clear()
    app, _ = opened("overview")
    button(app, "Make a pool").click().run()
    assert app.button(key="start pool").disabled
    assert "downloaded teachers" in words(app)
    answer.set()
    until(lambda: "ViT-B-32 openai" in machine.downloaded_teachers())
    app.run()
    teacher = next(box for box in app.selectbox if box.label == "Teacher")
    assert "ViT-B-32 openai" in teacher.options
    assert "downloaded teachers" not in words(app)
    assert asked == ["doctor"]
    machine._examination.clear()


def test_machine__is_examined_by_who_asks(opened, monkeypatch):
    said = [{"area": "packages", "name": "numpy", "value": "none", "state": "wrong", "remedy": "pip install numpy"}]
    asked = []
    monkeypatch.setattr(machine, "findings", lambda: (asked.append(1), said)[1])
    app, _ = opened("overview")
    assert not asked
    app.session_state["machine"] = True
    app.run()
    assert "clipsel cannot work as it is: numpy" in words(app)


def test_machine__what_fails_while_the_panel_is_drawn_is_said(opened, monkeypatch):
    go_on = threading.Event()

    class Late(machine.Task):
        @property
        def active(self):
            if self._thread is not None:
                go_on.set()
                self.wait(PATIENCE_S)
            return super().active

    def ask(command, options):
        go_on.wait(PATIENCE_S)
        raise JobError(command, expected="an answer", found="none")

    monkeypatch.setattr(tasks, "_AT_ONCE_S", 0)
    monkeypatch.setattr(machine, "Task", Late)
    monkeypatch.setattr(control, "ask", ask)
    machine._examination.clear()
    app, _ = opened("overview")
    app.session_state["machine"] = True
    assert "doctor: expected an answer, found none" in words(app.run())
    machine._examination.clear()


def field(app, kind, label):
    return next(box for box in app.get(kind) if box.label.startswith(label))


BLANK = ("   ", "\t", "\u00a0\u2003", "")


@pytest.mark.parametrize("typed", BLANK)
@pytest.mark.parametrize("read", [folders.inside, folders.source, folders.target])
def test_inside__a_blank_is_no_path(data, typed, read):
    with pytest.raises(JobError, match="path: expected a file or a folder, found"):
        read(typed)


@pytest.mark.parametrize("typed", ["   ", "\u00a0\u2003"])
def test_pool__a_blank_source_is_refused(data, opened, monkeypatch, typed):
    monkeypatch.setattr(machine, "downloaded_teachers", lambda: ["ViT-B-32 openai"])
    monkeypatch.setattr(folders, "sources", lambda: [typed])
    monkeypatch.setattr(folders, "short_path", str)
    app, _ = opened("overview")
    button(app, "Make a pool").click().run()
    field(app, "selectbox", "Teacher").set_value("ViT-B-32 openai").run()
    field(app, "selectbox", "Source").set_value(typed).run()
    field(app, "text_input", "Name of the pool").set_value(" mine ").run()
    app.button(key="start pool").click().run()
    assert not app.exception
    assert "path: expected a file or a folder, found blanks" in words(app)
    assert listing(catalog.jobs_folder()) == []


@pytest.mark.parametrize(
    ("label", "typed", "said"),
    [
        ("Teacher", "   ", "expected a model and its tag or checkpoint"),
        ("Name of the pool", "   ", "expected a name of up to 64 letters"),
        ("Teacher's short name", "   ", ""),
        ("Column of images", "   ", ""),
        ("Column of captions", " text ", ""),
        ("Further columns", " none ", ""),
    ],
)
def test_pool__blanks_around_what_is_typed_are_nothing(data, opened, monkeypatch, label, typed, said):
    (data / "pictures").mkdir()
    monkeypatch.setattr(machine, "downloaded_teachers", lambda: ["ViT-B-32 openai", "   "])
    app, _ = opened("overview")
    button(app, "Make a pool").click().run()
    field(app, "selectbox", "Teacher").set_value("ViT-B-32 openai").run()
    field(app, "selectbox", "Source").set_value("pictures").run()
    kind = "selectbox" if label == "Teacher" else "text_input"
    next(box for box in app.get(kind) if box.label == label).set_value(typed).run()
    app.button(key="start pool").click().run()
    assert not app.exception
    jobs = listing(catalog.jobs_folder())
    assert said in words(app)
    assert bool(jobs) == (not said)
    for job in jobs:
        assert not [word for word in job.info.words if word.endswith(" ") or word == "--image-column="]
        assert label != "Column of captions" or "--text-column=text" in job.info.words
        assert label != "Further columns" or "--columns=none" in job.info.words
        ended(job)


def test_score__keeps_what_was_chosen_when_another_pool_appears(data, opened):
    app, _ = opened("overview")
    write_shard(data / "birds" / "pool", "00000000", 30, seed=0, arch="zoo")
    write_shard(data / "birds" / "pool", "00000001", 20, seed=1, arch="zoo")
    button(app, "Score a pool").click().run()
    assert field(app, "selectbox", "Pool").value == "birds/pool"
    field(app, "text_input", "Name of the run").set_value("mine").run()
    chosen = {"Pool": "birds/pool", "Teacher": field(app, "selectbox", "Teacher").value}
    write_shard(data / "ants" / "pool", "00000000", 5, seed=3)
    write_shard(data / "mine-2" / "pool", "00000000", 5, seed=3)
    app.run()
    assert field(app, "selectbox", "Pool").options[0] == "ants/pool"
    assert {label: field(app, "selectbox", label).value for label in chosen} == chosen
    assert field(app, "text_input", "Name of the run").value == "mine"


def test_score__keeps_what_it_began_with_when_another_pool_or_run_appears(data, opened):
    """Nobody has touched anything yet: what is read there and then started is the same."""
    app, run = opened("overview")
    button(app, "Score a pool").click().run()
    labels = (("selectbox", "Pool"), ("selectbox", "Teacher"), ("text_input", "Name"), ("number_input", "Temperature"))
    before = [field(app, *label).value for label in labels]
    assert before[0] == "birds/pool"
    write_shard(data / "ants" / "pool", "00000000", 5, seed=3)
    (data / before[2]).mkdir()
    shutil.copytree(run, data / "seen" / "run")
    described = json.loads((run / "run.json").read_text())
    described |= {"pool": str(data / "birds" / "pool"), "arch": "l14", "temperature": 0.05}
    (data / "seen" / "run" / "run.json").write_text(json.dumps(described))
    app.run()
    assert [field(app, *label).value for label in labels] == before


def test_score__suggests_a_name_until_somebody_types_one(data, opened):
    write_shard(data / "ants" / "pool", "00000000", 5, seed=3)
    app, _ = opened("overview")
    button(app, "Score a pool").click().run()
    names = []
    for place, typed in (("ants/pool", None), ("birds/pool", None), ("ants/pool", "mine"), ("birds/pool", None)):
        field(app, "selectbox", "Pool").set_value(place).run()
        if typed:
            field(app, "text_input", "Name").set_value(typed).run()
        names.append(field(app, "text_input", "Name").value)
    assert names == ["pool-l14", "pool-l14", "mine", "mine"]


def test_pool__keeps_what_was_chosen_when_a_teacher_appears(data, opened, monkeypatch):
    (data / "pictures").mkdir()
    monkeypatch.setattr(machine, "downloaded_teachers", lambda: ["ViT-B-32 openai"])
    app, _ = opened("overview")
    button(app, "Make a pool").click().run()
    field(app, "selectbox", "Source").set_value("pictures").run()
    field(app, "selectbox", "Teacher").set_value("ViT-B-32 openai").run()
    field(app, "text_input", "Name").set_value("mine").run()
    field(app, "text_input", "Column of captions").set_value("title").run()
    for place in ("a teacher", "a source"):
        (data / place).mkdir()
        (data / place / "open_clip_config.json").touch()
    app.run()
    assert field(app, "selectbox", "Teacher").options[0] == "a source"
    held = [box.value for kind in ("selectbox", "text_input") for box in app.get(kind)]
    assert {"pictures", "ViT-B-32 openai", "b32", "mine", "title"} <= set(held)


def test_target__keeps_what_was_chosen_when_another_file_appears(data, opened):
    app, _ = opened("overview")
    button(app, "Add a target").click().run()
    field(app, "selectbox", "Path").set_value("birds/target/task.npy").run()
    field(app, "text_input", "Name").set_value("mine").run()
    np.save(data / "birds" / "target" / "other.npy", unit_rows(9, 16, 5))
    app.run()
    assert field(app, "selectbox", "Path").value == "birds/target/task.npy"
    assert field(app, "text_input", "Name").value == "mine"


def test_form__opened_again_begins_anew(data, opened):
    app, _ = opened("overview")
    for _ in range(2):
        button(app, "Score a pool").click().run()
        assert field(app, "text_input", "Name").value == "pool-l14"
        field(app, "text_input", "Name").set_value("mine").run()
