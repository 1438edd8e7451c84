"""The doctor names what is missing, what is too old and which teachers are on disk."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
from typer.testing import CliRunner

from clipsel_core import cli, doctor

ROOT = Path(__file__).parents[1]


def by_name(findings):
    return {finding.name: finding for finding in findings}


def test_packages__those_for_other_machines_are_left_out():
    lines = ["numpy-nowhere>=2; sys_platform == 'nowhere'", "pillow>=99; sys_platform != 'nowhere'"]
    found = by_name(doctor._required(lines))
    assert "numpy-nowhere" not in found
    assert found["pillow"].remedy == "pip install 'pillow>=99'"


def test_packages__missing_and_old_are_wrong_with_the_command_that_helps():
    found = by_name(doctor._required(["numpy>=1", "numpy-nowhere>=2", "pillow<1", "nowhere; extra == 's3'"]))
    assert set(found) == {"numpy", "numpy-nowhere", "pillow"}
    assert found["numpy"].state == "ok"
    assert (found["numpy-nowhere"].state, found["numpy-nowhere"].value) == ("wrong", "not installed")
    assert found["pillow"].state == "wrong"
    assert "pip install 'pillow<1'" in found["pillow"].remedy


def test_teachers__own_and_downloaded_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".cache" / "clip").mkdir(parents=True)
    (tmp_path / ".cache" / "clip" / "ViT-B-32.pt").touch()
    found = by_name(doctor._teachers(ROOT / "data"))
    assert f"local-dir:{ROOT / 'data' / 'demo' / 'teacher'}" in found
    assert "ViT-B-32 openai" in found
    model, tag = ["ViT-B-32", "openai"]
    assert (model, tag) in open_clip.list_pretrained()
    assert "ViT-L-14 openai" not in found


@pytest.mark.parametrize("tokenizer", [True, False])
def test_teachers__a_tokenizer_that_is_not_there_is_said(tmp_path, monkeypatch, tokenizer):
    there = {("timm/ViT-B-16-SigLIP", "open_clip_model.safetensors")}
    there |= {("timm/ViT-B-16-SigLIP", "tokenizer_config.json")} if tokenizer else set()
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *asked: "there" if asked in there else None)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = by_name(doctor._cached_teachers())["ViT-B-16-SigLIP webli"]
    assert found.remedy == ("" if tokenizer else "its tokenizer comes from huggingface.co when it is first used")


def test_teachers__none_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_cached_teachers", list)
    (found,) = doctor._teachers(tmp_path)
    assert (found.state, found.value) == ("absent", "none")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_doctor__exits_by_what_it_found(monkeypatch, options):
    result = CliRunner().invoke(cli.app, ["doctor", *options])
    assert result.exit_code == 0
    assert "torch" in result.output
    if options:
        areas = {one["area"] for one in json.loads(result.output)}
        assert areas == {"packages", "devices", "teachers", "cache", "extras"}
    wrong = doctor.Finding("packages", "numpy", "not installed", "wrong", "pip install numpy")
    monkeypatch.setattr(doctor, "examine", lambda folder: [wrong])
    result = CliRunner().invoke(cli.app, ["doctor", *options])
    assert result.exit_code == 1
    assert "pip install numpy" in result.output
