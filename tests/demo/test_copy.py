"""Does a copy of the demo hold all of it, and nothing else?"""

from __future__ import annotations

import pytest

from clipsel_core.commands import workspace
from clipsel_core.commands.workspace import copy_demo
from clipsel_core.errors import RunError


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A small bundle, somebody's leftovers in it."""
    demo = tmp_path / "bundle" / "data" / "demo"
    for name in ("pool/a.parquet", "run/run.json", "run/recipes/mine.yaml", "target/task.npy"):
        (demo / name).parent.mkdir(parents=True, exist_ok=True)
        (demo / name).write_text(name)
    for name in ("run/.lock", "run/index/a", "run/exports/a", "run/recipes/lists/a", "run/.run.json.7.partial"):
        (demo / name).parent.mkdir(parents=True, exist_ok=True)
        (demo / name).write_text("made")
    monkeypatch.setattr(workspace, "bundled", lambda: tmp_path / "bundle")
    return demo


def contents(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("there", [False, True])
def test_copy_demo__leaves_out_what_was_made_of_it(bundle, tmp_path, there):
    target = tmp_path / "copies" / "demo"
    if there:
        target.mkdir(parents=True)
    copy_demo(target)
    assert contents(target) == ["pool/a.parquet", "run/recipes/mine.yaml", "run/run.json", "target/task.npy"]
    assert (target / "run" / "run.json").read_text() == "run/run.json"
    assert [path.name for path in target.parent.iterdir()] == ["demo"]


def test_copy_demo__one_that_fails_leaves_nothing(bundle, tmp_path, monkeypatch):
    def stop(source, aside, **_):
        (aside / "pool").mkdir(parents=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workspace.shutil, "copytree", stop)
    with pytest.raises(RunError, match="a folder for the demo, found No space left on device"):
        copy_demo(tmp_path / "copies" / "demo")
    assert list((tmp_path / "copies").iterdir()) == []


def test_copy_demo__says_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "bundled", lambda: tmp_path)
    with pytest.raises(RunError, match="expected the bundled demo, found no such folder"):
        copy_demo(tmp_path / "demo")


def test_copy_demo__not_over_the_folder_one_is_in(bundle, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(RunError, match="found the folder you are in"):
        copy_demo(".")
