"""A text becomes what the pool's own teacher makes of it, or somebody says which teacher is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from clipsel_core.errors import TeacherError
from clipsel_core.pool.embed import embed_captions, load_teacher, weights_digest
from clipsel_core.pool.query_text import query_of_text
from clipsel_core.pool.teachers import TeacherInfo, add_teacher
from tests.pool.pictures import write_teacher

DEMO = Path(__file__).parents[2] / "data" / "demo"


def test_query_of_text__is_what_the_noted_teacher_says(tmp_path):
    folder = write_teacher(tmp_path / "model", 0)
    teacher = load_teacher(f"local-dir:{folder}")
    pool = tmp_path / "pool"
    noted = TeacherInfo(model=f"local-dir:{folder}", temperature=0.07, weights=weights_digest(teacher))
    add_teacher(pool, "l14", noted)
    expected = embed_captions(teacher, ["a red bird"])[0]
    found = query_of_text("a red bird", pool, "l14", len(expected))
    assert found.dtype == np.float32
    assert found.tolist() == expected.astype(np.float32).tolist()
    with pytest.raises(TeacherError, match="embeddings of width 7"):
        query_of_text("a red bird", pool, "l14", 7)
    with pytest.raises(TeacherError, match="to know which model b32 is"):
        query_of_text("a red bird", pool, "b32", len(expected))


def test_query_of_text__refuses_other_weights_than_embedded_the_pool(tmp_path):
    folder = write_teacher(tmp_path / "model", 0)
    add_teacher(tmp_path, "l14", TeacherInfo(model=f"local-dir:{folder}", temperature=0.07, weights="0" * 32))
    with pytest.raises(TeacherError, match="the weights that embedded the pool"):
        query_of_text("a red bird", tmp_path, "l14", 8)


def test_query_of_text__finds_the_demos_teacher_beside_its_pool():
    found = query_of_text("two red birds", DEMO / "pool", "demo", 64)
    images = np.load(DEMO / "pool" / "metadata" / "00000000.npz")["demo_img"].astype(np.float32)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-3)
    assert (images @ found).max() > 0.5


def test_query_of_text__says_that_the_model_is_gone(tmp_path):
    folder = write_teacher(tmp_path / "model", 0)
    add_teacher(tmp_path, "l14", TeacherInfo(model=f"local-dir:{folder}", temperature=0.07))
    shutil.rmtree(folder)
    assert json.loads((tmp_path / "teachers.json").read_text())
    with pytest.raises(TeacherError, match="a teacher that open_clip can load"):
        query_of_text("a red bird", tmp_path, "l14", 8)
