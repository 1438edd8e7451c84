"""A finished run whose files change later gives what it gave before, or one line that says what is wrong."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import PoolFormatError, RunError
from clipsel_core.runs.added import add_target
from clipsel_core.runs.local import score
from clipsel_core.runs.store import Run
from tests.conftest import rewrite_npz, unit_rows, write_shard

OPTIONS = {"temperature": 0.02, "batch_size": 16, "divisions": 2}


@pytest.fixture
def run(pool, tmp_path) -> Run:
    np.save(tmp_path / "more.npy", unit_rows(5, 16, 77))
    score(pool, tmp_path / "run", **OPTIONS)
    return add_target(tmp_path / "run", "more", tmp_path / "more.npy")


def values_of(run: Run) -> dict[str, bytes]:
    """Every number that a run gives, however it is asked for."""
    table = ScoreTable.open(Run.open(run.root))
    rows, names = np.arange(len(table))[::-3], table.uids()
    found = {metric: table.column(metric).tobytes() + table.take(metric, rows).tobytes() for metric in table.metrics}
    lookups = table.uids_at(rows).tobytes() + table.rows_of(names[::5]).tobytes()
    return {**found, "uids": names.tobytes(), "lookups": lookups}


def files_of(run: Run) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path(run.root).rglob("*.parquet"))}


def rewrite(file, change) -> None:
    """Writes a file's table again after a change, with all that its schema said."""
    table = pq.read_table(file)
    changed = change(table)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), file)


def put(table: pa.Table, name: str, values: list) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values, table.schema.field(name).type))


def test_read__a_flipped_bit_anywhere_changes_nothing_or_is_named(run):
    expected, draw, refused = values_of(run), random.Random(0), 0
    for file in (Path(run.score_files[1]), Path(run.root) / "added" / "more" / "00000001.parquet"):
        whole = file.read_bytes()
        for _ in range(150):
            bit = draw.randrange(8 * len(whole))
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            file.write_bytes(damaged)
            try:
                assert values_of(run) == expected, f"{file.name}, bit {bit}"
            except RunError as error:
                refused += bool(re.search(r"00000001|target\.json", str(error)))
        file.write_bytes(whole)
    assert refused > 150


CHANGES = {
    "rows in another order": lambda table: table.take(pa.array(range(table.num_rows - 1, -1, -1))),
    "uids alike": lambda table: put(table, "uid_lo", [7] * table.num_rows),
    "a uid that is null": lambda table: put(table, "uid_hi", [None, *table["uid_hi"].to_pylist()[1:]]),
    "a score that is null": lambda table: put(table, "s_cliploss", [None, *table["s_cliploss"].to_pylist()[1:]]),
    "a score that is infinite": lambda table: put(table, "r_text", [np.inf, *table["r_text"].to_pylist()[1:]]),
    "two metrics exchanged": lambda table: table.rename_columns(
        {"r_text": "r_image", "r_image": "r_text"} | {n: n for n in table.column_names if not n.startswith("r_")}
    ),
    "float64": lambda table: table.set_column(2, "clip_score", table["clip_score"].cast(pa.float64())),
    "a row less": lambda table: table.slice(1),
    "a metric less": lambda table: table.drop_columns("normalizer_se"),
    "no seal": lambda table: table,
}


@pytest.mark.parametrize("change", CHANGES)
def test_read__a_table_that_was_written_again_is_named(run, change):
    whole = files_of(run)
    rewrite(run.score_files[1], CHANGES[change])
    if change == "no seal":
        pq.write_table(pq.read_table(run.score_files[1]).replace_schema_metadata({}), run.score_files[1])
    with pytest.raises(RunError, match=r"00000001\.parquet: expected scores as written, .*start score again"):
        values_of(run)
    score(run.pool_address, run.root, **OPTIONS)
    assert files_of(run) == whole


@pytest.mark.parametrize("length", [0, 3, 40, 0.5, -1])
@pytest.mark.parametrize("folder", ["scores", "added/more"])
def test_score__makes_a_file_that_was_cut_short_again(run, folder, length, caplog):
    whole, file = files_of(run), Path(run.root) / folder / "00000002.parquet"
    stamps = {path: path.stat().st_mtime_ns for path in Path(run.root).rglob("*.parquet") if path != file}
    data = file.read_bytes()
    file.write_bytes(data[: int(length * len(data)) if isinstance(length, float) else length])
    again = "score" if folder == "scores" else "add-target"
    with pytest.raises(RunError, match=rf"00000002\.parquet: .*start {again} again as before: it makes shard 00000002"):
        values_of(run)
    score(run.pool_address, run.root, **OPTIONS)
    add_target(run.root, "more", Path(run.root).parent / "more.npy")
    assert "00000002.parquet: made again" in caplog.text
    assert files_of(run) == whole
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


@pytest.mark.parametrize("folder", ["scores", "added/more"])
def test_read__exchanged_files_are_named(run, folder):
    one, other = (Path(run.root) / folder / f"0000000{number}.parquet" for number in (0, 1))
    shards = json.loads((Path(run.root) / "run.json").read_text())["shards"]
    assert shards[0]["rows"] != shards[1]["rows"]
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    with pytest.raises(RunError, match=r"0000000\d\.parquet: expected scores as written, found \d+ rows"):
        values_of(run)


def test_read__exchanged_files_of_equal_length_are_named(tmp_path):
    for seed in range(2):
        write_shard(tmp_path / "pool", f"{seed}", 30, seed=seed)
    run = score(tmp_path / "pool", tmp_path / "run", **OPTIONS)
    one, other = map(Path, run.score_files)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    with pytest.raises(RunError, match=r"found those of shard"):
        values_of(run)


@pytest.mark.parametrize(
    "edit",
    [
        {"temperature": 0.03},
        {"batch_size": 17},
        {"seed": 3},
        {"arch": "b32"},
        {"on_bad_rows": "skip"},
        {"metrics": ["clip_score", "s_cliploss", "r_text", "r_image", "normalizer_se"]},
        {"pairs": 3},
    ],
)
def test_read__an_edit_of_run_json_is_named(run, edit):
    path = Path(run.root) / "run.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, **edit}))
    with pytest.raises(RunError, match=r"run\.json: expected what shard .* was scored with, found other settings"):
        values_of(run)
    options = {**OPTIONS, **{key: value for key, value in edit.items() if key in OPTIONS}}
    with pytest.raises((RunError, PoolFormatError)):
        score(run.pool_address, run.root, **options)
    assert len(Run.open(run.root).score_files) == 3


@pytest.mark.parametrize("change", ["one less", "another order", "other rows"])
def test_read__an_edited_list_of_shards_is_named(run, change):
    path = Path(run.root) / "run.json"
    said = json.loads(path.read_text())
    shards = said["shards"]
    said["shards"] = {
        "one less": shards[1:],
        "another order": shards[::-1],
        "other rows": [{**shards[0], "rows": 4}, *shards[1:]],
    }[change]
    path.write_text(json.dumps(said))
    with pytest.raises(RunError, match=r"run\.json: expected|where the run has 4"):
        values_of(run)


def test_read__paths_may_be_edited(run, tmp_path):
    expected, path = values_of(run), Path(run.root) / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pool": "/elsewhere"}))
    assert values_of(run) == expected


def test_score__goes_on_with_a_run_of_a_version_without_seals(pool, tmp_path):
    run = score(pool, tmp_path / "run", **OPTIONS)
    expected = values_of(run)
    for file in map(Path, run.score_files):
        table = pq.read_table(file)
        counts = {key: value for key, value in table.schema.metadata.items() if key == b"clipsel_counts"}
        pq.write_table(table.replace_schema_metadata(counts), file)
    said = json.loads((Path(run.root) / "run.json").read_text())
    for shard in said["shards"]:
        del shard["digest"]
    (Path(run.root) / "run.json").write_text(json.dumps(said))
    assert values_of(run) == expected
    Path(run.score_files[1]).unlink()
    assert values_of(score(pool, tmp_path / "run", **OPTIONS)) == expected
    Path(run.score_files[2]).write_bytes(Path(run.score_files[2]).read_bytes()[:500])
    with pytest.raises(RunError, match=r"00000002\.parquet"):
        values_of(run)
    assert values_of(score(pool, tmp_path / "run", **OPTIONS)) == expected


@pytest.mark.parametrize("begun", ["shards", "a target"])
@pytest.mark.parametrize("change", ["image", "text", "uids", "both orders"])
def test_score__a_pool_that_changed_meanwhile_is_not_mixed(run, pool, begun, change):
    """What is scored already stays as it is, and nothing is added to it."""
    whole, (parquet, npz) = files_of(run), (pool / "metadata" / f"00000001.{end}" for end in ("parquet", "npz"))
    with np.load(npz) as archive:
        image, text = archive["l14_img"], archive["l14_txt"]
    if change in ("image", "both orders"):
        rewrite_npz(npz, l14_img=image[::-1])
    if change in ("text", "both orders"):
        rewrite_npz(npz, l14_txt=text[::-1])
    if change in ("uids", "both orders"):
        table = pq.read_table(parquet)
        pq.write_table(table.take(pa.array(range(table.num_rows - 1, -1, -1))), parquet)
    expected = r"shard 00000001: expected the uids and embeddings that were scored, found others; bring"
    if begun == "shards":
        Path(run.score_files[2]).unlink()
        with pytest.raises(RunError, match=expected):
            score(pool, run.root, **OPTIONS)
    else:
        with pytest.raises(RunError, match=expected):
            add_target(run.root, "third", Path(run.root).parent / "more.npy")
    left = files_of(run)
    assert left.items() <= whole.items()
    assert len(left) == len(whole) - (begun == "shards")


@pytest.mark.parametrize("together", [1, 3])
def test_score__a_shard_may_be_mended_until_something_of_it_is_used(pool, tmp_path, together):
    """Also one whose uids change; with shards that share batches, until one of them is scored."""
    run = score(pool, tmp_path / "run", mix_shards=together, **OPTIONS)
    Path(run.score_files[2]).unlink()
    write_shard(pool, "00000002", 61, seed=9)
    if together > 1:
        with pytest.raises(RunError, match="shard 00000002: expected the uids and embeddings that were scored"):
            score(pool, run.root, mix_shards=together, **OPTIONS)
        return
    mended = score(pool, run.root, **OPTIONS)
    assert values_of(mended) == values_of(score(pool, tmp_path / "new", **OPTIONS))
    assert mended.config.shards == Run.open(tmp_path / "new").config.shards
    Path(run.score_files[2]).unlink()
    write_shard(pool, "00000002", 61, seed=0)
    with pytest.raises(PoolFormatError, match="each uid on one row"):
        score(pool, run.root, **OPTIONS)


def test_score__a_shard_that_an_added_target_was_compared_with_is_used(run, pool):
    """Its scores alone are gone: made of other rows, they would stand beside what belongs to those before."""
    Path(run.score_files[1]).unlink()
    parquet, whole = pool / "metadata" / "00000001.parquet", files_of(run)
    table = pq.read_table(parquet)
    pq.write_table(table.take(pa.array(range(table.num_rows - 1, -1, -1))), parquet)
    with pytest.raises(RunError, match="shard 00000001: expected the uids and embeddings that were scored"):
        score(pool, run.root, **OPTIONS)
    assert files_of(run) == whole


def test_score__a_pool_that_was_copied_or_got_another_teacher_is_the_same(run, pool):
    Path(run.score_files[0]).unlink()
    for shard in range(3):
        parquet, npz = (pool / "metadata" / f"0000000{shard}.{end}" for end in ("parquet", "npz"))
        table = pq.read_table(parquet)
        pq.write_table(table.append_column("more", pa.array(range(table.num_rows))), parquet, compression="zstd")
        rewrite_npz(
            npz, compressed=shard == 1, b32_img=unit_rows(table.num_rows, 8), b32_txt=unit_rows(table.num_rows, 8)
        )
    assert score(pool, run.root, arch="l14", **OPTIONS).finished


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float64, "fortran"])
def test_score__a_flipped_bit_of_an_npz_is_named(pool, tmp_path, compressed, dtype):
    """Also one that leaves the row a unit row; rows that are converted are compared, too."""
    npz = pool / "metadata" / "00000001.npz"
    with np.load(npz) as archive:
        image = archive["l14_img"]
    changed = np.asfortranarray(image) if dtype == "fortran" else image.astype(dtype)
    rewrite_npz(npz, compressed=compressed, l14_img=changed)
    data = bytearray(npz.read_bytes())
    data[npz.stat().st_size // 4] ^= 1
    npz.write_bytes(data)
    with pytest.raises(PoolFormatError, match=r"00000001\.npz: expected a whole \.npz, found .*; download it again"):
        score(pool, tmp_path / "run", **OPTIONS)


def test_score__keeps_a_file_that_the_disk_does_not_give(pool, run, monkeypatch):
    """A disk that fails for a moment is no reason to score a shard again."""
    files, opened = files_of(run), pq.ParquetFile

    def fail(file, *given, **options):
        if file == str(run.score_files[1]):
            raise OSError(5, "Input/output error")
        return opened(file, *given, **options)

    monkeypatch.setattr(pq, "ParquetFile", fail)
    with pytest.raises(RunError, match=r"00000001\.parquet: expected scores as written, found Input/output error"):
        score(pool, run.root, **OPTIONS)
    assert files_of(run) == files
