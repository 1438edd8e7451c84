"""A column added to a finished run: its values, what is said of it, what is refused, and what a kill leaves."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsel_core import uids
from clipsel_core.columns import adding, keyed_values
from clipsel_core.columns.adding import (
    add_normsim_2d,
    add_together,
    check_computed,
    check_import,
    compute_column,
    import_column,
    plan_computed,
    plan_imports,
    remove_column,
)
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import parse_recipe
from clipsel_core.curation.selecting.export import export
from clipsel_core.curation.selecting.selection import select
from clipsel_core.curation.selecting.verify import verify
from clipsel_core.errors import ClipselError, ColumnError, RecipeError, RunError, ScoringError, TargetError
from clipsel_core.places import Place
from clipsel_core.processes import child_environment
from clipsel_core.runs.added import add_target
from clipsel_core.runs.local import score, sole_worker
from clipsel_core.runs.store import Run, SealedFiles, description_files
from clipsel_core.runs.whole_pool import normsim_2d_of_run
from tests.conftest import unit_rows
from tests.waiting import PATIENCE_S

PAIRS = 126


@pytest.fixture
def run(pool, tmp_path) -> Run:
    return score(pool, tmp_path / "run", temperature=0.02, batch_size=16, divisions=2)


def names_of(run: Run) -> list[str]:
    return uids.to_hex(ScoreTable.open(run).uids()).to_pylist()


def write_values(file: Path, run: Run, values: object, column: str = "x") -> str:
    """A csv with a value of each of the first pairs, in random order."""
    frame = pd.DataFrame({column: values})
    frame.insert(0, "uid", names_of(run)[: len(frame)])
    frame.sample(frac=1, random_state=1).to_csv(file, index=False)
    return str(file)


def files_of(folder: str | os.PathLike[str]) -> dict[Path, bytes]:
    folder = Path(folder)
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def added_files(run: Run) -> dict[Path, bytes]:
    return files_of(Path(run.root) / "added")


def test_import_column__is_a_column_like_any_other(run, tmp_path):
    values = np.random.default_rng(1).standard_normal(PAIRS).astype(np.float32)
    values[::9] = np.nan
    source = write_values(tmp_path / "a.csv", run, values)
    before, told = files_of(Path(run.root) / "scores"), []
    said = {"direction": "higher", "unit": "points", "least": -10, "most": float(np.nanmax(values))}
    added = import_column(run.root, "dfn", source, **said, report=lambda *said: told.append(said))
    opened = Run.open(run.root)
    table = ScoreTable.open(opened)
    np.testing.assert_array_equal(table.column("dfn"), values)
    assert opened.metrics == [*run.metrics, "dfn"]
    column = opened.columns["dfn"]
    assert (column.kind, column.direction, column.origin, column.shown) == ("number", "higher", "imported", "dfn")
    assert column.help == f"Imported from a.csv, column x. Values: -10 to {np.nanmax(values):g} points."
    assert added.counts == {"matched": PAIRS, "missing": 14, "unknown": 0, "repeated": 0, "rounded": 0}
    assert added.made["path"] == source
    assert told[-1][0] == PAIRS
    assert files_of(Path(run.root) / "scores") == before
    recipe = parse_recipe("steps: [{column: dfn, keep_top: 0.1}]", columns=table.columns)
    best = np.argsort(-np.nan_to_num(values, nan=-9), kind="stable")[: PAIRS // 10]
    assert set(select(opened, recipe, table).rows.tolist()) == set(best.tolist())


def test_import_column__counts_what_has_no_partner_on_either_side(run, tmp_path):
    names = names_of(run)
    rows = [*((name, 1) for name in names[:100]), ("ff" * 16, 2), (names[0], 1), (names[1], "")]
    pd.DataFrame(rows, columns=["uid", "x"]).to_csv(tmp_path / "a.csv", index=False)
    added = import_column(run.root, "x", f"{tmp_path}/a.csv")
    assert added.counts == {"matched": 100, "missing": 26, "unknown": 1, "repeated": 2, "rounded": 0}


def test_import_column__texts_are_a_category(run, tmp_path):
    texts = np.random.default_rng(2).choice(["en", "fr", "de"], PAIRS).tolist()
    import_column(run.root, "language", write_values(tmp_path / "a.csv", run, texts), title="Language")
    table = ScoreTable.open(Run.open(run.root))
    column = table.columns["language"]
    assert (column.kind, column.values, column.shown) == ("category", ("de", "en", "fr"), "Language")
    recipe = parse_recipe("steps: [{column: language, in: [fr]}]", columns=table.columns)
    assert select(table.run, recipe, table).mask().tolist() == [text == "fr" for text in texts]


def test_import_column__of_another_run_takes_over_what_is_said_there(run, pool, tmp_path):
    other = score(pool, tmp_path / "b32", temperature=0.5, batch_size=16, divisions=2)
    texts = np.random.default_rng(2).choice(["en", "fr"], PAIRS).tolist()
    import_column(other.root, "language", write_values(tmp_path / "a.csv", run, texts), measures="Of the caption.")
    for name, column in (("s_cliploss_b32", "s_cliploss"), ("language_b32", "language")):
        import_column(run.root, name, f"{other.root}#{column}")
    table, theirs = ScoreTable.open(Run.open(run.root)), ScoreTable.open(Run.open(other.root))
    assert not np.array_equal(table.column("s_cliploss_b32"), table.column("s_cliploss"))
    for name, column in (("s_cliploss_b32", "s_cliploss"), ("language_b32", "language")):
        np.testing.assert_array_equal(table.column(name), theirs.column(column))
        here, there = table.columns[name], theirs.columns[column]
        assert here.title == f"{there.shown} · b32"
        assert here.origin == "run"
        same = ("measures", "misleads", "kind", "direction", "unit", "values")
        assert [getattr(here, field) for field in same] == [getattr(there, field) for field in same]
    # What decides the other run's values decides whether it is the same column.
    assert import_column(run.root, "s_cliploss_b32", f"{other.root}#s_cliploss")
    with pytest.raises(ColumnError, match="a column that was added from something else"):
        import_column(run.root, "s_cliploss_b32", f"{run.root}#s_cliploss")


def test_import_column__values_for_every_pair_may_be_asked_for(run, tmp_path):
    source = write_values(tmp_path / "a.csv", run, np.arange(PAIRS - 1))
    with pytest.raises(ColumnError, match=r"expected a value for every pair, found none for 1 of 126; leave out"):
        import_column(run.root, "x", source, missing="error")
    assert not (Path(run.root) / "added").exists()
    full = write_values(tmp_path / "b.csv", run, np.arange(PAIRS))
    assert import_column(run.root, "x", full, missing="error").counts["missing"] == 0


def refused_files(run: Run, tmp_path: Path) -> dict[str, tuple[str, str]]:
    """A file for each way to be wrong, and what is said of it."""
    names = names_of(run)

    def write(name: str, rows: list[tuple[object, object]]) -> str:
        pd.DataFrame(rows, columns=["uid", "x"]).to_csv(tmp_path / name, index=False)
        return str(tmp_path / name)

    return {
        "strangers": (write("a.csv", [("ff" * 16, 1)]), "expected uids of the run, such as .*, found none of them"),
        "two values": (
            write("b.csv", [(name, 1) for name in names] + [(names[3], 2)]),
            f"expected one value a uid, found 1 and 2 in x for {names[3]}; remove all rows of it but one",
        ),
        "a text": (
            write("c.csv", [(name, 1) for name in names[:-1]] + [(names[-1], "many")]),
            "line 127: expected a number in x, found 'many'; leave it empty where there is no value",
        ),
        "no uid": (write("d.csv", [("dog", 1)]), "expected .*hex digits.*, found 'dog'"),
        "no file": (f"{tmp_path}/none.parquet", "found no such file"),
        "no column": (f"{tmp_path}/a.csv#y", "expected a column 'y', found 'uid', 'x'"),
        "too large": (write("e.csv", [(names[0], 1e39)]), "expected a number that float32 holds"),
    }


@pytest.mark.parametrize(("least", "most", "found"), [(0, 0.5, "0.6 and 2 others"), (-0.5, 0.7, "-0.75")])
def test_import_column__a_value_out_of_bounds_is_refused(run, tmp_path, least, most, found):
    source = write_values(tmp_path / "a.csv", run, [0.6, -0.75, 0.7, *[0.25] * (PAIRS - 3)])
    with pytest.raises(ColumnError, match=f"a.csv: expected values: {least} to {most}, found {found} outside"):
        import_column(run.root, "x", source, least=least, most=most)
    assert not (Path(run.root) / "added").exists()


def test_import_column__a_category_has_no_bounds(run, tmp_path):
    source = write_values(tmp_path / "a.csv", run, ["a", "b"] * (PAIRS // 2))
    with pytest.raises(ColumnError, match="expected numbers, which lie between others, found categories"):
        import_column(run.root, "x", source, least=0, most=1)


@pytest.mark.parametrize("kind", ["strangers", "two values", "a text", "no uid", "no file", "no column", "too large"])
def test_import_column__what_does_not_fit_is_one_line_and_leaves_nothing(run, tmp_path, kind):
    source, said = refused_files(run, tmp_path)[kind]
    before = files_of(run.root)
    with pytest.raises(ClipselError, match=said) as refused:
        import_column(run.root, "x", source)
    assert str(tmp_path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert {**files_of(run.root), Path(".lock"): b""} == {**before, Path(".lock"): b""}
    assert not (Path(run.root) / "added").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("clip_score", "'clip_score', a score of the run; choose another"),
        ("text", "'text', a column of the pool's table; choose another"),
        ("more", "'more', a target; choose another"),
        ("half", "'half', a target; choose another"),
        ("normsim_2_more", "'normsim_2_more', a score of the run"),
        ("dfn", "'dfn', a column that was added from something else; choose another, or first: clipsel remove-column"),
        ("a/b", "expected a name of letters, digits, _ and -, at most 64"),
        ("..", "expected a name of letters"),
        ("", "expected a name of letters"),
        ("uid", "'uid', what a list of uids calls a column of its own; choose another"),
        ("UID_HI", "'UID_HI', what a list of uids calls a column of its own"),
        ("count", "'count', what a list of uids calls a column of its own"),
        ("x" * 65, "expected a name of letters"),
    ],
)
def test_import_column__a_name_that_is_taken_or_none(run, tmp_path, name, said):
    np.save(tmp_path / "more.npy", unit_rows(5, 16, 1))
    add_target(run.root, "more", tmp_path / "more.npy")
    (Path(run.root) / "added" / "half").mkdir()
    begun = (
        (Path(run.root) / "added" / "more" / "target.json").read_text().replace('"complete": true', '"complete": false')
    )
    (Path(run.root) / "added" / "half" / "target.json").write_text(begun)
    import_column(run.root, "dfn", write_values(tmp_path / "a.csv", run, np.arange(PAIRS)))
    before, source = added_files(run), write_values(tmp_path / "b.csv", run, np.arange(PAIRS) + 1)
    for work in (import_column, check_import):
        if name != "dfn" or work is import_column:  # Whether it is the same column, only its values say.
            with pytest.raises(ColumnError, match=said):
                work(run.root, name, source)
    assert added_files(run) == before


def test_add_target__not_under_the_name_of_a_column(run, tmp_path):
    np.save(tmp_path / "more.npy", unit_rows(5, 16, 1))
    for name, said in (("dfn", "found dfn, an added column"), ("normsim_2_dfn2", "a second normsim_2_dfn2")):
        import_column(run.root, name, f"{run.root}#clip_score")
        before = added_files(run)
        with pytest.raises(TargetError, match=said):
            add_target(run.root, name.removeprefix("normsim_2_"), tmp_path / "more.npy")
        assert added_files(run) == before


def test_add__an_unfinished_run_or_one_that_is_worked_on(run, tmp_path):
    source = write_values(tmp_path / "a.csv", run, np.arange(PAIRS))
    with sole_worker(run.root), pytest.raises(RunError, match="found a run going on"):
        import_column(run.root, "x", source)
    Path(run.score_files[1]).unlink()
    for work in (import_column, check_import):
        with pytest.raises(RunError, match="expected a finished run, found 2 of 3 shards scored"):
            work(run.root, "x", source)
    with pytest.raises(RunError, match="expected a finished run"):
        check_computed(run.root, "caption_words")


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_add__a_full_disk_leaves_no_folder(run, tmp_path, monkeypatch, at):
    """The file of a shard cannot be written, or, of three, the description after them."""
    source, written = write_values(tmp_path / "a.csv", run, np.arange(PAIRS)), []

    def full(real):
        def write(*arguments, **options):
            written.append(1)
            if len(written) > at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a disk")
            return real(*arguments, **options)

        return write

    with monkeypatch.context() as patched:
        patched.setattr(SealedFiles, "write", full(SealedFiles.write))
        patched.setattr(Place, "write_json", full(Place.write_json))
        said = "a disk: expected to write a column, found No space left on device; make room, then start it again"
        with pytest.raises(RunError, match=said):
            import_column(run.root, "x", source)
    assert not (Path(run.root) / "added").exists()
    assert import_column(run.root, "x", source).complete


_KILLED = """
import os, signal, sys
from clipsel_core.columns.adding import import_column
from clipsel_core.runs.store import SealedFiles
left, real = int(sys.argv[4]), SealedFiles.write

def write(self, *arguments, **options):
    global left
    real(self, *arguments, **options)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

SealedFiles.write = write
import_column(*sys.argv[1:4])
"""


@pytest.mark.parametrize("shards", [1, 3])
def test_add__killed_it_is_seen_by_nobody_and_ends_with_the_same_bytes(run, tmp_path, shards):
    """A process that is killed behind the first shard, and behind the last, before the description."""
    source = write_values(tmp_path / "a.csv", run, np.random.default_rng(1).standard_normal(PAIRS))
    import_column(run.root, "x", source)
    whole = added_files(run)
    remove_column(run.root, "x")
    # What was begun with other values does not stay.
    other = write_values(tmp_path / "b.csv", run, np.arange(PAIRS))
    for file in (other, source):
        command = [sys.executable, "-c", _KILLED, str(run.root), "x", file, str(shards)]
        ended = subprocess.run(command, env=child_environment(), capture_output=True, timeout=PATIENCE_S)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert len(list((Path(run.root) / "added" / "x").iterdir())) >= shards
        left = Run.open(run.root)
        assert (left.metrics, left.added) == (run.metrics, ())
        assert verify(left).problems == []
    import_column(run.root, "x", source)
    assert added_files(run) == whole


def test_add__the_same_again_mends_what_was_damaged(run, tmp_path, caplog):
    source = write_values(tmp_path / "a.csv", run, np.random.default_rng(1).standard_normal(PAIRS))
    import_column(run.root, "x", source)
    whole = added_files(run)
    import_column(run.root, "x", source)
    assert added_files(run) == whole
    file = Path(run.root) / "added" / "x" / "00000001.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    (problem,) = verify(Run.open(run.root)).problems
    assert "start add-column again as before" in problem
    import_column(run.root, "x", source)
    assert added_files(run) == whole
    assert "made again" in caplog.text
    with pytest.raises(ColumnError, match="added in another way"):
        import_column(run.root, "x", source, direction="lower")


def test_add__whoever_has_the_run_open_can_notice(run, tmp_path):
    before = description_files(run.root)
    import_column(run.root, "x", write_values(tmp_path / "a.csv", run, np.arange(PAIRS)))
    assert set(description_files(run.root)) - set(before) == {run.root / "added" / "x" / "column.json"}
    remove_column(run.root, "x")
    assert description_files(run.root) == before


def test_compute_column__says_what_there_is(run):
    added = compute_column(run.root, "caption_words")
    assert (added.counts, added.made) == ({"matched": PAIRS, "missing": 0}, {"computed": "caption_words"})
    assert ScoreTable.open(Run.open(run.root)).column("caption_words").tolist() == [4] * PAIRS
    for work in (compute_column, check_computed):
        with pytest.raises(
            ColumnError, match=r"one of caption_characters, .*, neighbour_rank_NAME, found 'caption_length'"
        ):
            work(run.root, "caption_length")


def test_add_normsim_2d__is_that_of_the_pairs_that_the_recipe_keeps(run, tmp_path):
    recipe = tmp_path / "start.yaml"
    recipe.write_text("steps: [{column: clip_score, keep_top: 0.5}]")
    added = add_normsim_2d(run.root, "normsim_2d", recipe, Decimal("0.2"), rounds=5)
    best = np.sort(np.argsort(-ScoreTable.open(run).column("clip_score"))[: PAIRS // 2])
    expected = normsim_2d_of_run(run, best, keep=PAIRS // 5, rounds=5)
    np.testing.assert_array_equal(ScoreTable.open(Run.open(run.root)).column("normsim_2d"), expected)
    assert added.counts == {"matched": 63, "missing": 63}
    assert (added.column.direction, "start.yaml" in added.column.misleads) == ("higher", True)
    recipe.write_text("steps: [{column: clip_score, keep_top: 0.6}]")
    with pytest.raises(ColumnError, match="added from something else"):
        add_normsim_2d(run.root, "normsim_2d", recipe, Decimal("0.2"), rounds=5)


@pytest.mark.parametrize(
    ("recipe", "keep", "rounds", "kind"),
    [
        ("steps: [{column: none, keep_top: 0.5}]", "0.2", 5, RecipeError),
        ("steps: [{column: clip_score, keep_top: 0}]", "0.2", 5, ScoringError),
        ("steps: [{column: clip_score, keep_top: 0.5}]", "0.6", 5, ScoringError),
        ("steps: [{column: clip_score, keep_top: 0.5}]", "1.5", 5, ScoringError),
        ("steps: [{column: clip_score, keep_top: 0.5}]", "0.2", 0, ScoringError),
    ],
)
def test_add_normsim_2d__what_does_not_fit_leaves_nothing(run, tmp_path, recipe, keep, rounds, kind):
    (tmp_path / "start.yaml").write_text(recipe)
    with pytest.raises(kind):
        add_normsim_2d(run.root, "normsim_2d", tmp_path / "start.yaml", Decimal(keep), rounds=rounds)
    assert not (Path(run.root) / "added").exists()


def test_remove_column__takes_columns_alone(run, tmp_path):
    np.save(tmp_path / "more.npy", unit_rows(5, 16, 1))
    add_target(run.root, "more", tmp_path / "more.npy")
    before = added_files(run)
    import_column(run.root, "x", write_values(tmp_path / "a.csv", run, np.arange(PAIRS)))
    for name in ("more", "clip_score", "text", "../scores", ".", "", "none"):
        with pytest.raises(ColumnError, match="expected one of the columns that were added: x, found"):
            remove_column(run.root, name)
    remove_column(run.root, "x")
    assert added_files(run) == before
    assert not (Path(run.root) / "added" / "x").exists()
    with pytest.raises(ColumnError, match="there is none"):
        remove_column(run.root, "x")


def test_export__names_the_columns_that_were_added_and_verify_follows(run, tmp_path):
    source = write_values(tmp_path / "a.csv", run, np.random.default_rng(1).standard_normal(PAIRS))
    import_column(run.root, "x", source)
    compute_column(run.root, "caption_words")
    opened = Run.open(run.root)
    recipe = parse_recipe("steps: [{column: x, keep_top: 0.5}, {column: caption_words, at_least: 2}]")
    for ending in ("npy", "parquet"):
        manifest = export(opened, select(opened, recipe), recipe, Path(opened.exports_dir) / f"subset.{ending}")
    named = {column["column"]["name"]: column for column in manifest.content["added_columns"]}
    assert set(named) == {"x", "caption_words"}
    assert named["x"]["made"]["sha256"]
    exported = pq.read_table(Path(opened.exports_dir) / "subset.parquet")
    assert pa.types.is_float32(exported.schema.field("x").type)
    found = verify(opened)
    assert (found.problems, found.notes, found.exports, found.files) == ([], [], 2, 9)
    file = Path(run.root) / "added" / "x" / "00000002.parquet"
    table = pq.read_table(file)
    changed = table["x"].to_numpy().copy()
    changed[0] += 1
    pq.write_table(table.set_column(2, "x", pa.array(changed)), file)
    (problem,) = verify(opened).problems
    assert "other values of x" in problem


def several(run: Run, folder: Path) -> dict[str, str]:
    """Two columns of a parquet, one of a csv, one of a run; a third of the parquet's rows gone, in random order."""
    draw = np.random.default_rng(5)
    table = pd.DataFrame({"uid": names_of(run), "a": draw.standard_normal(PAIRS), "b": draw.choice(["x", "y"], PAIRS)})
    table.sample(frac=2 / 3, random_state=2).to_parquet(folder / "ab.parquet")
    ab, csv = folder / "ab.parquet", write_values(folder / "c.csv", run, draw.integers(0, 9, PAIRS))
    return {"first": f"{ab}#a", "c": csv, "second": f"{ab}#b", "other": f"{run.root}#clip_score"}


def test_add_together__gives_the_bytes_of_one_after_another_and_reads_a_file_once(run, tmp_path, monkeypatch):
    sources, opened, joined = several(run, tmp_path), [], []
    for name, source in sources.items():
        import_column(run.root, name, source)
    compute_column(run.root, "caption_words")
    expected = added_files(run)
    for name in (*sources, "caption_words"):
        remove_column(run.root, name)
    open_file, join_group = keyed_values.open_file, adding.join_group
    monkeypatch.setattr(keyed_values, "open_file", lambda place, names: opened.append(names) or open_file(place, names))
    monkeypatch.setattr(adding, "join_group", lambda *args, **more: joined.append(1) or join_group(*args, **more))
    added = add_together(run.root, [*plan_imports(sources), plan_computed("caption_words")])
    assert [each.column.name for each in added] == ["first", "second", "c", "other", "caption_words"]
    assert added_files(run) == expected
    assert (opened, len(joined)) == ([["a", "b"], [""]], 3)
    assert Run.open(run.root).columns["second"].values == ("x", "y")


@pytest.mark.parametrize("fault", ["a late text", "a uid with two values", "no common uid", "missing", "stopped"])
def test_add_together__adds_nothing_where_one_cannot_be(run, tmp_path, monkeypatch, fault):
    sources, options = several(run, tmp_path), {}
    bad = tmp_path / "bad.csv"
    uid = names_of(run)[0]
    if fault == "a late text":
        bad.write_text("uid,x\n" + f"{uid},1\n" * 3000 + f"{uid},much\n")
    elif fault == "a uid with two values":
        bad.write_text(f"uid,x\n{uid},1\n{uid},2\n")
    elif fault == "no common uid":
        bad.write_text("uid,x\n5,1\n")
    else:
        bad.write_text(f"uid,x\n{uid},1\n")
        options = {"missing": "error"} if fault == "missing" else {}
    import_column(run.root, "before", sources["c"])
    before = added_files(run)
    if fault == "stopped":
        written, real = [], Place.write_json
        monkeypatch.setattr(
            Place, "write_json", lambda *a: written.append(1) or (real if len(written) < 4 else stop)(*a)
        )
    with pytest.raises(KeyboardInterrupt if fault == "stopped" else ColumnError):
        add_together(run.root, plan_imports({**sources, "bad": str(bad), "before": sources["c"]}, **options))
    assert added_files(run) == before
    assert [path.name for path in (Path(run.root) / "added").iterdir()] == ["before"]


def stop(*_):
    raise KeyboardInterrupt


def test_add_together__killed_between_two_names_is_finished_by_the_same_command(run, tmp_path):
    sources = several(run, tmp_path)
    add_together(run.root, plan_imports(sources))
    whole = added_files(run)
    for name in ("second", "other"):
        (Path(run.root) / "added" / name / "column.json").unlink()
    assert {column.column.name for column in Run.open(run.root).added_columns} == {"first", "c"}
    add_together(run.root, plan_imports(sources))
    assert added_files(run) == whole
