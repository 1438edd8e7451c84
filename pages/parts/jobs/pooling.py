"""How is a pool made from the dashboard? A form that names images and a teacher, then a job."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

import streamlit as st

from clipsel_core.errors import ClipselError, JobError
from clipsel_core.jobs.control import Option
from clipsel_core.pool.sources.record import FORMATS
from pages.parts import catalog, empty, facts
from pages.parts.jobs import folders, forms, health, jobs

_NO_TEACHER = "none: the source holds embeddings"
_LOOKED = "told by looking"
_USUAL_SHARD = 100_000


@forms.form("Make a pool", width="medium")
def ask() -> None:
    """The form of a new pool; starts it and closes where nothing is wrong."""
    facts.show_note("Images with captions, or embeddings that are there already, become a pool that can be scored.")
    sources = [*(folders.shown(path) for path in folders.sources()), *catalog.readable_addresses()]
    source = st.selectbox(
        "Source",
        sources,
        index=None,
        key=forms.key("Source"),
        accept_new_options=True,
        placeholder="choose one, or type its path or address",
        help="Webdataset tars, a folder of images with a .txt beside each, a table of paths, parquets with images.",
        **forms.STAYS,
    )
    st.caption(
        f"Paths count from {catalog.data_folder()}. Another folder, or an address such as `https://host/folder` or "
        "`s3://bucket/folder`, is allowed with `--read` when the server starts."
    )
    teacher = _ask_for_teacher()
    left, right = st.columns(2)
    named = "Its columns' name: l14, b32."
    arch = forms.ask_for_name(left, "Teacher's short name", teacher, lambda: _short(teacher or ""), help=named)
    name = forms.ask_for_name(right, "Name of the pool", source, lambda: _free_name(source or ""))
    options = _ask_for_details()
    lacking, icon = not (source and teacher), ":material/play_arrow:"
    asked = st.button("Check and start", type="primary", icon=icon, key="start pool", disabled=lacking)
    if asked and source and teacher:
        _start(source, name, teacher, {"arch": arch, **options})


def _ask_for_teacher() -> str | None:
    own = [folders.shown(path) for path in folders.teachers()]
    try:
        cached = health.teachers()
    except ClipselError:
        cached = []
    return st.selectbox(
        "Teacher",
        [*own, *cached, _NO_TEACHER],
        index=None,
        key=forms.key("Teacher"),
        accept_new_options=True,
        placeholder="choose one on disk, or type model and tag: ViT-B-32 openai",
        help="A tag of open_clip that is not on disk is downloaded. A folder or a checkpoint of your own works, too.",
        **forms.STAYS,
    )


def _ask_for_details() -> dict[str, Option]:
    with st.expander("Format, columns, shards"):
        kind = st.selectbox("Format", [_LOOKED, *FORMATS], key=forms.key("Format"), **forms.STAYS)
        left, right = st.columns(2)
        guessed: dict[str, Any] = {"placeholder": "guessed", **forms.STAYS}
        image = left.text_input("Column of images", key=forms.key("Column of images"), **guessed)
        text = right.text_input("Column of captions", key=forms.key("Column of captions"), **guessed)
        size = left.number_input(
            "Pairs in a shard",
            1,
            None,
            _USUAL_SHARD,
            10_000,
            key=forms.key("Pairs in a shard"),
            help="A pool that is there keeps its own.",
            **forms.STAYS,
        )
    return {
        "format": kind if kind != _LOOKED else None,
        "image-column": image.strip() or None,
        "text-column": text.strip() or None,
        # Unsaid, so that another teacher can join a pool of whatever shards.
        "shard-size": int(size) if size != _USUAL_SHARD else None,
    }


def _start(source: str, name: str, teacher: str, options: dict[str, Option]) -> None:
    try:
        pool = folders.pool_to_make(name)
        paths = [folders.source(source), pool]
        options |= _named(teacher)
        with st.spinner("Looking at the source …"):
            wrong = jobs.check("embed", paths, options)
    except (ClipselError, OSError) as error:
        wrong = str(empty.not_written(error, catalog.data_folder()))
    if wrong:
        empty.show_error(wrong, "Not started")
    elif jobs.launch("embed", paths, options, title=f"Make pool {name}", about=pool):
        forms.leave()
    else:
        jobs.show_failure()


def _named(teacher: str) -> dict[str, Option]:
    """What was chosen or typed, as embed takes it. Raises JobError on a path from elsewhere, or without a tag."""
    if teacher == _NO_TEACHER:
        return {}
    if teacher in [folders.shown(path) for path in folders.teachers()]:
        return {"model": f"local-dir:{folders.inside(teacher)}"}
    model, _, tag = teacher.strip().partition(" ")
    words = [_located(word) for word in (model, tag.strip()) if word]
    if len(words) < 2 and not (words and words[0].startswith(("local-dir:", "hf-hub:"))):
        expected = "a model and its tag or checkpoint, such as ViT-B-32 openai, or a teacher's folder"
        raise JobError("teacher", expected=expected, found=repr(teacher), remedy="without a tag its weights are random")
    return dict(zip(("model", "pretrained"), words, strict=False))


def _located(word: str) -> str:
    """A part of a teacher's name: as it is, or where it is a path the path, made sure to be an allowed one."""
    if word.startswith("hf-hub:"):
        return word
    path = word.removeprefix("local-dir:")
    if path == word and "/" not in word and not word.endswith((".json", ".pt", ".bin", ".safetensors")):
        return word
    found = folders.inside(path)
    return f"local-dir:{found}" if found.is_dir() else str(found)


def _free_name(source: str) -> str:
    """What the pool of a source may be called, "" where there is none."""
    return folders.free_name(PurePath(source.strip().rstrip("/")).stem) if source.strip() else ""


def _short(teacher: str) -> str:
    """What a teacher may be called in columns: ViT-B-32 openai is b32."""
    if not teacher.strip() or teacher == _NO_TEACHER:
        return ""
    model = teacher.split()[0].rstrip("/").rpartition("/")[2]
    return re.sub(r"[^a-z0-9]+", "", re.sub(r"^ViT-", "", model).lower())[:64]
