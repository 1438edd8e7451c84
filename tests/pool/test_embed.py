"""Do images and captions become unit rows, whatever the batch size?"""

from __future__ import annotations

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clipsel_core.pool.embed import embed_captions, embed_images, load_teacher

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {},
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(0)
    model = open_clip.CLIP(**CONFIG["model_cfg"])
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return load_teacher(f"local-dir:{folder}")


def images(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)) for _ in range(count)]


def test_load_teacher__knows_its_temperature(teacher):
    assert teacher.temperature == pytest.approx(0.07, rel=1e-3)
    assert not teacher.model.training


def test_embed_images__unit_rows_in_float16(teacher):
    rows = embed_images(teacher, images(5))
    assert (rows.shape, rows.dtype) == ((5, 16), np.float16)
    np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float64), axis=1), 1, atol=2e-3)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_embed__ragged_batches_equal_one(teacher, batch_size):
    captions = [f"caption {number}" for number in range(7)]
    for embed, items in ((embed_images, images(7)), (embed_captions, captions)):
        whole, chunked = embed(teacher, items), embed(teacher, items, batch_size=batch_size)
        np.testing.assert_allclose(chunked.astype(np.float32), whole.astype(np.float32), atol=1e-3)


def test_embed_images__takes_an_iterator_and_reads_no_further_than_a_batch_ahead(teacher):
    assert np.array_equal(embed_images(teacher, iter(images(3))), embed_images(teacher, images(3)))


def test_embed_images__grey_and_transparent_images_too(teacher):
    made = [Image.new("L", (9, 30), 100), Image.new("RGBA", (30, 9), (1, 2, 3, 4))]
    assert np.isfinite(embed_images(teacher, made)).all()


def test_embed_captions__hostile_and_endless_ones(teacher):
    rows = embed_captions(teacher, ["", "<script>alert(1)</script>", "ü 猫 🐈", "word " * 500])
    assert np.isfinite(rows).all()
    assert rows.shape == (4, 16)


def test_embed__nothing_gives_no_rows(teacher):
    assert len(embed_images(teacher, [])) == 0
    assert len(embed_captions(teacher, [])) == 0
