"""Does training repeat itself, and is the bundled teacher as good and as imperfect as it should be?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from clipsel_core.demo.build import embed_pairs, load_demo_teacher, reproducible_torch, train_teacher
from clipsel_core.demo.pairs import CAPTION_FAULTS, draw_jpegs, training_pairs
from clipsel_core.pool.making.embed import embed_captions
from tests.demo.test_pairs import clean_pairs

DEMO = Path(__file__).parent.parent.parent / "data" / "demo"
WEIGHTS = "open_clip_model.safetensors"


def auc(higher: np.ndarray, lower: np.ndarray) -> float:
    """The chance that a value drawn from `higher` exceeds one drawn from `lower`; ties count half. 0.5 is no better
    than chance."""
    ordered = np.sort(lower)
    below = np.searchsorted(ordered, higher, "left") + np.searchsorted(ordered, higher, "right")
    return float(below.mean() / (2 * len(lower)))


@pytest.fixture(scope="module")
def teacher():
    return load_demo_teacher(DEMO / "teacher")


def test_train_teacher__same_seed_same_bytes_other_seed_others(tmp_path):
    pairs = training_pairs(48)
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        train_teacher(tmp_path / name, pairs, steps=2, batch_size=16, seed=seed)
    first, again, other = ((tmp_path / name / WEIGHTS).read_bytes() for name in ("first", "again", "other"))
    assert first == again
    assert first != other


def test_train_teacher__what_it_writes_loads_and_embeds(tmp_path):
    said = []
    train_teacher(tmp_path, training_pairs(32), steps=50, batch_size=4, report=lambda *told: said.append(told))
    teacher = load_demo_teacher(tmp_path)
    assert [told[:3] for told in said] == [(50, 50, "steps")]
    assert said[0][3].startswith("training the teacher: step 50 of 50, loss ")
    assert embed_captions(teacher, ["a red cat"]).shape == (1, 64)


def test_reproducible_torch__leaves_no_trace():
    torch.manual_seed(3)
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.random.get_rng_state())
    with reproducible_torch(seed=9):
        torch.rand(4)
    after = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.random.get_rng_state())
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_bundled_teacher__is_float16_and_at_most_10_mb():
    path = DEMO / "teacher" / WEIGHTS
    assert path.stat().st_size <= 10_000_000
    assert all(value.dtype != torch.float32 for value in load_file(path).values())


def test_bundled_teacher__keeps_its_temperature(teacher):
    assert 0.01 <= teacher.temperature <= 0.1


def test_bundled_teacher__tells_matched_from_mismatched_on_clean_held_out_scenes(teacher):
    pairs = clean_pairs(600)
    jpegs = list(draw_jpegs((pair.picture for pair in pairs), workers=2))
    sides = embed_pairs(teacher, jpegs, [pair.caption for pair in pairs])
    image, text = (side.astype(np.float32) for side in sides)
    similarity = image @ text.T
    matched, mismatched = np.diag(similarity), similarity[~np.eye(len(pairs), dtype=bool)]
    assert auc(matched, mismatched) >= 0.97


def test_bundled_pool__clip_score_tells_good_pairs_from_faulty_captions_but_imperfectly():
    shards = [pq.read_table(path) for path in sorted((DEMO / "pool" / "metadata").glob("*.parquet"))]
    score = np.concatenate([shard["clip_demo_similarity_score"].to_numpy() for shard in shards])
    fault = np.concatenate([shard["fault"].to_numpy(zero_copy_only=False) for shard in shards])
    assert 0.80 <= auc(score[fault == "good"], score[np.isin(fault, CAPTION_FAULTS)]) <= 0.95


def test_auc__counted_by_hand():
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert auc(np.array([0.0]), np.array([0.0])) == 0.5
    assert auc(np.array([0.0, 2.0]), np.array([1.0])) == 0.5
