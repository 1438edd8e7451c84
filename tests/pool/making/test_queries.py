"""A text or a picture becomes what the pool's own teacher makes of it, or somebody says what is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from clipsel_core.errors import PoolFormatError, TeacherError
from clipsel_core.places import Place
from clipsel_core.pool.layout import TeacherInfo, add_teacher
from clipsel_core.pool.making.decoders import Preparer, Wanted
from clipsel_core.pool.making.embed import embed_captions, embed_pixels, framing_of, load_teacher, weights_digest
from clipsel_core.pool.making.queries import QueryTeacher
from tests.pool.pictures import drawn, encoded, write_teacher

DEMO = Path(__file__).parents[3] / "data" / "demo"


def test_query_teacher__is_what_the_noted_teacher_says(tmp_path):
    folder = write_teacher(tmp_path / "model", 0)
    teacher = load_teacher(f"local-dir:{folder}")
    pool = tmp_path / "pool"
    noted = TeacherInfo(model=f"local-dir:{folder}", temperature=0.07, weights=weights_digest(teacher))
    add_teacher(pool, "l14", noted)
    expected = embed_captions(teacher, ["a red bird"])[0]
    found = QueryTeacher.of_pool(pool, "l14", len(expected)).of_text("a red bird")
    assert found.dtype == np.float32
    assert found.tolist() == expected.astype(np.float32).tolist()
    with pytest.raises(TeacherError, match="embeddings of width 7"):
        QueryTeacher.of_pool(pool, "l14", 7).of_text("a red bird")
    with pytest.raises(TeacherError, match="to know which model b32 is"):
        QueryTeacher.of_pool(pool, "b32", len(expected))


def test_query_teacher__refuses_other_weights_than_embedded_the_pool(tmp_path):
    folder = write_teacher(tmp_path / "model", 0)
    add_teacher(tmp_path, "l14", TeacherInfo(model=f"local-dir:{folder}", temperature=0.07, weights="0" * 32))
    with pytest.raises(TeacherError, match="the weights that embedded the pool"):
        QueryTeacher.of_pool(tmp_path, "l14", 8)


def test_query_teacher__finds_the_demos_teacher_beside_its_pool():
    found = QueryTeacher.of_pool(DEMO / "pool", "demo", 64).of_text("two red birds")
    images = np.load(DEMO / "pool" / "metadata" / "00000000.npz")["demo_img"].astype(np.float32)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-3)
    assert (images @ found).max() > 0.5


def test_query_teacher__says_that_the_model_is_gone(tmp_path):
    folder = write_teacher(tmp_path / "model", 0)
    add_teacher(tmp_path, "l14", TeacherInfo(model=f"local-dir:{folder}", temperature=0.07))
    shutil.rmtree(folder)
    assert json.loads((tmp_path / "teachers.json").read_text())
    with pytest.raises(TeacherError, match="a teacher that open_clip can load"):
        QueryTeacher.of_pool(tmp_path, "l14", 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_query_teacher__embeds_a_picture_as_embed_does(tmp_path, kind):
    """Also one so large that its JPEG is decoded at a part of its size."""
    folder, data = write_teacher(tmp_path / "model", 0), encoded(drawn(3, (400, 300)), kind)
    teacher = load_teacher(f"local-dir:{folder}")
    found = QueryTeacher(teacher, 16).of_image(data)
    preparer = Preparer(Place.of(tmp_path), framing_of(teacher), framing_of(teacher).enough, 10**6)
    prepared = preparer(Wanted("a", 0, None, data))
    expected = embed_pixels(teacher, torch.from_numpy(prepared.pixels)[None])[0]
    assert found.tolist() == expected.astype(np.float32).tolist()


@pytest.mark.parametrize("content", [b"", b"no picture", encoded(drawn(1))[:200]])
def test_query_teacher__refuses_what_is_no_picture(tmp_path, content):
    teacher = QueryTeacher(load_teacher(f"local-dir:{write_teacher(tmp_path / 'model', 0)}"), 16)
    with pytest.raises(PoolFormatError, match=r"a\.jpg: expected a picture"):
        teacher.of_image(content, "a.jpg")
