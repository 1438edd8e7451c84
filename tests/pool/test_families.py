"""Does every family of open_clip's embed as a plain call of it does, tokenizer and preprocessing included?"""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, M2M100Config, MT5Config, PreTrainedTokenizerFast, RobertaConfig, XLMRobertaConfig

from clipsel_core.errors import TeacherError
from clipsel_core.pool.making.embed import Teacher, embed_captions, embed_images, framing_of, load_teacher
from clipsel_core.pool.making.embedder import round_weights
from tests.pool.pictures import CONFIG, drawn

WORDS = ["<pad>", "</s>", "<unk>", "<cls>", "a", "boat", "on", "the", "water", "red", "Boat"]
CAPTIONS = ["a boat", "A red boat, on the water!", "water " * 40, "", "un bateau"]
VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 16, "vocab_size": len(WORDS), "width": 32, "heads": 2, "layers": 1}
# What open_clip's configurations say of SigLIP's and of CLIPA's text towers, but for their sizes.
SIGLIP = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "tokenizer_kwargs": {"clean": "canonicalize"}}
CLIPA = {"no_causal_mask": True, "pool_type": "last", "tokenizer_kwargs": {"strip_sep_token": True}}
SMALL = {"vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 3, "eos_token_id": 1}
LAYERS = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
TOWERS = {
    "roberta": RobertaConfig(**SMALL, **LAYERS, max_position_embeddings=90),
    "xlm-roberta": XLMRobertaConfig(**SMALL, **LAYERS, max_position_embeddings=90),
    "bert": BertConfig(**SMALL, **LAYERS, max_position_embeddings=90),
    "mt5": MT5Config(**SMALL, d_model=32, d_kv=16, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0),
    "nllb": M2M100Config(
        **SMALL,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        max_position_embeddings=90,
    ),
}


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer of words as Hugging Face saves one: it closes with </s>, and pads with <pad>."""
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<cls>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return folder


def named(folder: Path, name: str, config: dict[str, Any]) -> str:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    return str(path)


def as_called(teacher: Teacher, picture: Image.Image, caption: str) -> tuple[np.ndarray, np.ndarray]:
    """The unit embeddings that a plain call of the model gives, one by one."""
    with torch.inference_mode():
        image = teacher.model.encode_image(teacher.preprocess(picture)[None])
        text = teacher.model.encode_text(teacher.tokenizer([caption]))
    first, second = (torch.nn.functional.normalize(rows, dim=-1)[0].numpy() for rows in (image, text))
    return first, second


def assert_embeds(teacher: Teacher) -> None:
    rows = embed_captions(teacher, CAPTIONS).astype(np.float32)
    picture = drawn(3)
    for row, said in zip(rows, CAPTIONS, strict=True):
        image, text = as_called(teacher, picture, said)
        assert row @ text > 1 - 1e-3
    assert embed_images(teacher, [picture]).astype(np.float32)[0] @ image > 1 - 1e-3
    assert rows[0] @ rows[1] < 1 - 1e-3


@pytest.mark.parametrize("family", ["siglip", "clipa"])
def test_load_teacher__a_tokenizer_of_hugging_faces(tmp_path, family):
    text = {**TEXT, **(SIGLIP if family == "siglip" else CLIPA), "hf_tokenizer_name": str(write_tokenizer(tmp_path))}
    config = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": text}
    if family == "siglip":
        config |= {"custom_text": True, "init_logit_bias": -10, "init_logit_scale": float(np.log(10))}
    teacher = load_teacher(named(tmp_path, f"small-{family}", config))
    tokens = teacher.tokenizer(["A red Boat!"])[0].tolist()
    # SigLIP's are cleaned first, lower case without punctuation; CLIPA's lose the mark at their end.
    wanted = [4, 9, 5, 1] if family == "siglip" else [2, 9, 10, 2, 0]
    assert (len(tokens), tokens[: len(wanted)], set(tokens[len(wanted) :])) == (16, wanted, {0})
    assert_embeds(teacher)
    if family == "siglip":
        assert teacher.temperature == pytest.approx(0.1)


@pytest.mark.parametrize("family", TOWERS)
def test_load_teacher__a_text_tower_of_hugging_faces(tmp_path, family):
    tower = str(write_tokenizer(tmp_path / "tower"))
    TOWERS[family].save_pretrained(tower)
    pooler = "cls_pooler" if family in ("bert", "nllb") else "mean_pooler"
    text = {"hf_model_name": tower, "hf_tokenizer_name": tower, "hf_pooler_type": pooler, "hf_proj_type": "mlp"}
    config = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": text}
    teacher = load_teacher(named(tmp_path, f"small-{family}", config))
    assert_embeds(teacher)
    rounded = embed_captions(round_weights(replace(teacher, precision="bf16")), CAPTIONS).astype(np.float32)
    assert (rounded * embed_captions(teacher, CAPTIONS)).sum(1).min() > 1 - 2e-3


def test_load_teacher__a_folder_holds_tokenizer_and_preprocessing(tmp_path):
    """As open_clip saves a SigLIP, and as `local-dir:` reads it."""
    text = {**TEXT, **SIGLIP, "hf_tokenizer_name": "nobody/has-this"}
    model = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": text, "custom_text": True, "init_logit_bias": -10}
    look = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    made = load_teacher(named(tmp_path, "made", {**model, "text_cfg": {**text, "hf_tokenizer_name": ""}}))
    folder = write_tokenizer(tmp_path / "teacher")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": look}))
    torch.save(made.model.state_dict(), folder / "open_clip_pytorch_model.bin")
    teacher = load_teacher(f"local-dir:{folder}")
    framing = framing_of(teacher)
    assert framing is not None
    assert (framing.width, framing.height, framing.squash) == (32, 32, True)
    assert framing.resample == Image.Resampling.BILINEAR
    assert_embeds(teacher)


@pytest.mark.parametrize(("model", "tag"), open_clip.list_pretrained())
def test_load_teacher__takes_every_model_and_tag(model, tag, tmp_path, monkeypatch):
    """By their names alone, whatever lies in the folder at hand; as open_clip would load them: no weights are here."""
    monkeypatch.chdir(tmp_path)
    for name in (model, tag):
        (tmp_path / name).mkdir()
    asked: dict[str, Any] = {}
    monkeypatch.setattr("clipsel_core.pool.making.embed.reached_or_cached", nullcontext)
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: asked.update(tokenizer=name))
    monkeypatch.setattr(
        open_clip, "create_model_and_transforms", lambda name, **options: asked.update(options, name=name)
    )
    with pytest.raises(TeacherError):
        load_teacher(model, pretrained=tag)
    assert asked["tokenizer"] == asked["name"] == model
    assert (asked["pretrained"], asked["require_pretrained"]) == (tag, True)


@pytest.mark.parametrize(("model", "tag"), open_clip.list_pretrained())
def test_framing_of__every_tag_is_cut_and_scaled_by_workers(model, tag):
    """What a tag says of its pictures, and the size that its model says, become a framing with the same pixels."""
    said = open_clip.get_pretrained_cfg(model, tag)
    size = open_clip.get_model_config(model)["vision_cfg"]["image_size"]
    known = {name: said[name] for name in ("mean", "std", "interpolation", "resize_mode") if said.get(name)}
    settings = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(size=size), known))
    preprocess = image_transform_v2(settings, is_train=False)
    framing = framing_of(replace(TEACHER, preprocess=preprocess))
    assert framing is not None
    assert (framing.width, framing.squash) == (size, said.get("resize_mode") == "squash")
    assert framing.resample == Image.Resampling[said.get("interpolation", "bicubic").upper()]


TEACHER = Teacher(open_clip.CLIP(**CONFIG["model_cfg"]), torch.nn.Identity(), list, torch.device("cpu"))
