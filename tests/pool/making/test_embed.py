"""Do images and captions become unit rows, whatever the batch size?"""

from __future__ import annotations

import json
import socket

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clipsel_core.errors import TeacherError
from clipsel_core.pool.making.embed import embed_captions, embed_images, load_teacher, weights_digest
from tests.pool.pictures import CONFIG, drawn, write_teacher


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


def test_embed_captions__a_word_without_end_takes_no_longer_than_the_context_asks(teacher):
    endless = embed_captions(teacher, ["".join(chr(97 + number * number % 26) for number in range(200_000)), "word"])
    assert np.isfinite(endless).all()


def test_load_teacher__random_weights_are_always_the_same(tmp_path):
    config = tmp_path / "tiny-random.json"
    config.write_text(json.dumps(CONFIG["model_cfg"]))
    one, two = load_teacher(str(config)), load_teacher(str(config))
    assert weights_digest(one) == weights_digest(two)
    torch.save(one.model.state_dict(), tmp_path / "weights.pt")
    assert weights_digest(load_teacher(str(config), pretrained=str(tmp_path / "weights.pt"))) == weights_digest(one)


def test_load_teacher__a_folder_by_any_of_its_names(tmp_path):
    folder = write_teacher(tmp_path / "teacher", 3)
    digests = {weights_digest(load_teacher(name)) for name in (str(folder), f"local-dir:{folder}")}
    assert digests == {weights_digest(load_teacher("ViT-B-32", pretrained=f"local-dir:{folder}"))}


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        ("ViT-B32", None, "ViT-B32: expected a teacher that .* load, found no model of that name, but .*ViT-B-32"),
        ("zzz", None, "found no model of that name; see open_clip"),
        ("RN50", "no_tag", "RN50 no_tag: .* found neither a tag nor a file no_tag; RN50 has openai, yfcc15m"),
        ("local-dir:/nowhere", None, "local-dir:/nowhere: .* found Directory specified"),
        ("missing.json", None, "missing.json: .* found no such file"),
    ],
)
def test_load_teacher__says_what_is_missing(model, pretrained, message):
    with pytest.raises(TeacherError, match=message):
        load_teacher(model, pretrained=pretrained)


def test_load_teacher__a_folder_without_weights_is_no_teacher(tmp_path):
    (tmp_path / "open_clip_config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(TeacherError):
        load_teacher(f"local-dir:{tmp_path}")


def test_load_teacher__refuses_a_pickled_checkpoint(tmp_path):
    config = tmp_path / "tiny-pickled.json"
    config.write_text(json.dumps(CONFIG["model_cfg"]))
    torch.save({"state_dict": print}, tmp_path / "weights.pt")
    with pytest.raises(TeacherError, match="can load, found Weights only load failed"):
        load_teacher(str(config), pretrained=str(tmp_path / "weights.pt"))


@pytest.mark.parametrize("precision", ["fp16", "double"])
def test_load_teacher__a_precision_that_the_device_lacks(precision):
    with pytest.raises(TeacherError, match=f"--precision: expected auto, float32, bf16 on cpu, found {precision}"):
        load_teacher("ViT-B-32", precision=precision)


@pytest.mark.parametrize("model", ["ViT-B-16-SigLIP", "roberta-ViT-B-32"])
def test_load_teacher__says_what_to_do_where_a_tokenizer_cannot_be_downloaded(model, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        TeacherError, match=r"found .*huggingface\.co.*; once it was downloaded it is kept; or give local"
    ):
        load_teacher(model)


@pytest.mark.parametrize(("model", "tag"), [("ViT-B-16-SigLIP", "webli"), ("ViT-B-32", "openai"), ("hf-hub:a/b", None)])
def test_load_teacher__without_a_network_is_soon_said(model, tag, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it was asked for again"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr("clipsel_core.pool.making.embed.getproxies", dict)
    with pytest.raises(TeacherError, match=r"found no connection to 127\.0\.0\.1, and not all of it was downloaded"):
        load_teacher(model, pretrained=tag)
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_load_teacher__asks_for_no_network_where_it_needs_none(monkeypatch, teacher_folders):
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: pytest.fail("it went to the network"))
    load_teacher(f"local-dir:{teacher_folders[0]}")
    load_teacher("RN50")


@pytest.mark.parametrize("family", ["coca", "custom text with a bias"])
def test_load_teacher__other_families_embed_as_a_plain_call(tmp_path, family):
    """Built small from a configuration, as open_clip's own of these families are built large."""
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    }
    if family == "coca":
        text |= {"embed_cls": True, "output_tokens": True}
        many = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1, "attn_pooler_heads": 2}
        config |= {"multimodal_cfg": many, "custom_text": True}
        config["vision_cfg"] |= {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    else:
        text |= {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}
        config |= {"custom_text": True, "init_logit_bias": -10}
    path = tmp_path / f"{family.replace(' ', '-')}.json"
    path.write_text(json.dumps({**config, "text_cfg": text}))
    teacher = load_teacher(str(path))
    picture = drawn(3)
    with torch.inference_mode():
        wanted = teacher.model.encode_image(teacher.preprocess(picture)[None])[0]
        said = teacher.model.encode_text(teacher.tokenizer(["a boat"]))[0]
    for rows, plain in ((embed_images(teacher, [picture]), wanted), (embed_captions(teacher, ["a boat"]), said)):
        plain = torch.nn.functional.normalize(plain, dim=-1).numpy()
        assert float(rows[0].astype(np.float32) @ plain) > 1 - 1e-3
