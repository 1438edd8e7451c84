"""Maps: the same each time, of the sample asked for, and for samples of any size."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.synthetic_run import write_run
from clipsel_core.curation.exploring.map_layout import project
from clipsel_core.curation.exploring.projection import SMOOTHING, CaptionWords, find_regions, read_projection
from clipsel_core.curation.index.index import open_indexed, wait_until_kept
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import RunError
from clipsel_core.pool.layout import open_pool, read_uid_column
from clipsel_core.runs.store import Run
from clipsel_core.uids import from_hex
from tests.conftest import rewrite_npz, write_shard
from tests.curation.conftest import hand_run


def pool_and_run(root, sizes: list[int], nan_rows: tuple[int, ...] = ()) -> Run:
    """A pool of two clusters (even rows, odd rows) and a run of it; nan_rows of the first shard were set aside."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((2, 16))
    shards = []
    for index, size in enumerate(sizes):
        name = f"{index:08d}"
        _, npz = write_shard(root / "pool", name, size, seed=index)
        rows = centres[np.arange(size) % 2] + 0.2 * rng.standard_normal((size, 16))
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        clip_score = np.linspace(0, 1, size)
        if index == 0:
            rows[list(nan_rows)] = np.nan
            clip_score[list(nan_rows)] = np.nan
        rewrite_npz(npz, l14_img=rows.astype(np.float16))
        shards.append((from_hex(read_uid_column(open_pool(root / "pool").shards[index])), {"clip_score": clip_score}))
    return hand_run(root / "run", shards)


def test_read_projection__is_none_before_there_is_one(tmp_path):
    assert read_projection(pool_and_run(tmp_path, [3])) is None


def test_read_projection__leaves_out_pairs_the_run_lacks(tmp_path):
    run = pool_and_run(tmp_path, [3, 3])
    project(run, sample=6)
    Path(run.score_files[0]).unlink()
    assert read_projection(run).rows.tolist() == [0, 1, 2]


@pytest.mark.parametrize("content", [b"nothing", b"PAR1PAR1"])
def test_read_projection__refuses_a_damaged_file(tmp_path, content):
    run = pool_and_run(tmp_path, [3])
    Path(run.projection_file).write_bytes(content)
    with pytest.raises(RunError, match="make it again with"):
        read_projection(run)


def test_read_projection__a_flipped_bit_moves_no_pair(tmp_path):
    run, draw = pool_and_run(tmp_path, [60]), random.Random(0)
    whole, refused = project(run).read_bytes(), []
    expected, table = read_projection(run), ScoreTable.open(run)
    for bit in draw.sample(range(8 * len(whole)), 300):
        Path(run.projection_file).write_bytes(flipped(whole, bit))
        try:
            found = read_projection(run, table)
        except RunError as error:
            refused.append(str(error))
            continue
        for one, other in ((found.rows, expected.rows), (found.x, expected.x), (found.y, expected.y)):
            assert np.array_equal(one, other), bit
    assert len(refused) > 100
    assert not any("\n" in said for said in refused)


def flipped(data: bytes, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def test_read_projection__keeps_the_rows_beside_the_index(tmp_path, monkeypatch):
    run = Run.open(write_run(tmp_path, rows=3_000, shards=3))
    open_indexed(run, fewest=1)
    wait_until_kept()
    table = open_indexed(run, fewest=1)
    looked = []
    look = ScoreTable.rows_of
    monkeypatch.setattr(ScoreTable, "rows_of", lambda table, names: looked.append(len(names)) or look(table, names))
    for pairs in (500, 400):
        drawn = np.sort(np.random.default_rng(pairs).choice(3_000, pairs, replace=False))
        names = table.uids_at(drawn[::-1])
        places = {"x": drawn[::-1].astype(np.float32), "y": np.zeros(pairs, np.float32)}
        halves = {"uid_hi": names["f0"].copy(), "uid_lo": names["f1"].copy()}
        pq.write_table(pa.table(halves | places), run.projection_file)
        for _ in range(2):
            found = read_projection(run, table)
            assert found.rows.tolist() == found.x.tolist() == drawn.tolist()
    assert looked == [500, 400]
    assert len(list(table.index_folder.glob("map-*.npy"))) == 1
    next(table.index_folder.glob("map-*.npy")).write_bytes(b"damaged")
    assert read_projection(run, table).rows.tolist() == drawn.tolist()
    assert looked == [500, 400, 400]


# --- regions

TOPICS = ("boats harbour", "cats sofa", "bread bakery", "planes sky")


def world(seed: int = 0, pairs: int = 800) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """Four clusters of unequal size, each with two words of its own behind words that all share."""
    rng = np.random.default_rng(seed)
    topic = rng.choice(4, pairs, p=[0.4, 0.3, 0.2, 0.1])
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], float)
    places = centres[topic] + 0.6 * rng.standard_normal((pairs, 2))
    fill = ("the", "a", "photo", "of", "with")
    captions = [
        " ".join([*rng.permutation(fill)[:3], *(word for word in TOPICS[t].split() if rng.random() < 0.7)])
        for t in topic
    ]
    return places[:, 0], places[:, 1], captions, topic


def test_find_regions__names_each_cluster_by_its_own_words():
    x, y, captions, topic = world()
    found = find_regions(x, y, CaptionWords(captions), SMOOTHING[0])
    assert [set(region.words) for region in found] == [set(words.split()) for words in TOPICS]
    assert [region.pairs for region in found] == pytest.approx(np.bincount(topic), abs=3)
    for region, (cx, cy) in zip(found, [(0, 0), (10, 0), (0, 10), (10, 10)], strict=True):
        assert np.hypot(region.x - cx, region.y - cy) < 1


def test_find_regions__are_the_same_each_time_and_in_any_order():
    x, y, captions, _ = world()
    first = find_regions(x, y, CaptionWords(captions), SMOOTHING[1])
    assert find_regions(x, y, CaptionWords(captions), SMOOTHING[1]) == first
    order = np.random.default_rng(1).permutation(len(x))
    mixed = find_regions(x[order], y[order], CaptionWords([captions[place] for place in order]), SMOOTHING[1])
    assert [(region.words, region.pairs) for region in mixed] == [(region.words, region.pairs) for region in first]


def test_distinctive__are_those_a_count_by_hand_finds():
    captions = ["red ball"] * 20 + ["red cube"] * 20 + ["tall blue cube"] * 60
    member = np.arange(100) < 20
    assert CaptionWords(captions).distinctive(member) == ("ball", "red")
    # tall, blue and cube are in three of five captions and more: too common to say anything.
    assert CaptionWords(captions).distinctive(~member) == ()


@pytest.mark.parametrize("captions", [[""] * 50, ["1234 5678 ..."] * 50, ["x"] * 50, ["same words here"] * 50])
def test_find_regions__without_words_have_no_name(captions):
    rng = np.random.default_rng(0)
    assert find_regions(*rng.standard_normal((2, 50)), CaptionWords(captions), SMOOTHING[0]) == []


@pytest.mark.parametrize("pairs", [0, 1, 2, 3, 30])
def test_find_regions__of_few_or_equal_places(pairs):
    place = np.ones(pairs)
    assert find_regions(place, place, CaptionWords(["a cat"] * pairs), SMOOTHING[0]) == []


def test_caption_words__leave_out_small_words_but_not_short_nouns_of_other_scripts():
    captions = ["cat at a wall"] * 20 + ["\u732b\u732b by a wall"] * 20 + ["nothing here"] * 60
    first, second = np.arange(100) < 20, (np.arange(100) >= 20) & (np.arange(100) < 40)
    assert CaptionWords(captions).distinctive(first) == ("cat", "wall")
    assert CaptionWords(captions).distinctive(second) == ("\u732b\u732b", "wall")


def test_caption_words__keep_nothing_of_markup():
    hostile = ['<script>alert("x")</script>', "\u202eevil\u202c http://a.example/b.png"] * 10
    said = CaptionWords(hostile + ["plain words"] * 300).distinctive(np.arange(320) < 20, most=20)
    assert said
    assert all(word.isalpha() for word in said)
