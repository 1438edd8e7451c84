"""What does the teacher make of a text? A process of its own asks it, since the pages never load a model.

Each text is asked once: its embedding is kept beside the run. Nothing is downloaded on the way.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import streamlit as st

from clipsel_core.curation.searches import read_vector
from clipsel_core.errors import ClipselError, TeacherError
from clipsel_core.pool.teachers import find_teacher
from clipsel_core.runs.store import Run
from pages.parts import catalog

_LONGEST_S = 120
_PAUSE_S = 0.1
_LONGEST_TEXT = 1_000
# Models that are not on this machine are not fetched while somebody waits for an answer. The few that open_clip fetches
# from plain addresses know no such switch; they meet a proxy that is not there.
_NOWHERE = "http://127.0.0.1:9"
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "http_proxy": _NOWHERE, "https_proxy": _NOWHERE}


# A model may take gigabytes: however many people search, one is loaded at a time.
_alone = threading.Lock()


def missing(run: Run) -> str:
    """Why a text cannot be embedded, in a sentence; "" where the teacher's model is known."""
    if not (run.pool_root / "metadata").is_dir():
        return "The pool is not where the run remembers it."
    try:
        known = find_teacher(run.pool_root, run.config.arch)
    except ClipselError as error:
        return str(error)
    why = f"Nobody says which model {run.config.arch} is: pools that the command embed made do, in teachers.json."
    return "" if known else why


def vector_of_text(run: Run, text: str) -> np.ndarray:
    """The embedding of a text by the teacher of the run's pool: (D,) float32. Leaving the page stops the waiting.

    Raises: TeacherError where the teacher cannot be asked or takes longer than two minutes.
    """
    kept = kept_file(run, text)
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with _turn():
            if not kept.is_file():
                _ask(run, _tidy(text), kept)
    return read_vector(kept)


def kept_file(run: Run, text: str) -> Path:
    """Where a text's embedding is kept: another model, another file."""
    text = _tidy(text)
    model = repr(find_teacher(run.pool_root, run.config.arch))
    digest = hashlib.sha256(f"{model}\n{text}".encode(errors="replace")).hexdigest()
    return run.cache_dir / "texts" / f"{digest[:32]}.npy"


def _tidy(text: str) -> str:
    """The text as the teacher is asked for it."""
    return " ".join(text.replace("\0", " ").split())[:_LONGEST_TEXT]


@contextmanager
def _turn() -> Iterator[None]:
    """Waits until nobody else asks the teacher."""
    note = st.empty()
    while not _alone.acquire(timeout=_PAUSE_S):
        note.caption("Somebody else asks the teacher …")
    try:
        note.empty()
        yield
    finally:
        _alone.release()


def _ask(run: Run, text: str, out: Path) -> None:
    words = ["encode", str(run.root.absolute()), f"--text={text}", f"--out={out.absolute()}"]
    command = [sys.executable, "-m", "clipsel_core", *words]
    with tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(
            command,
            cwd=catalog.HOME,
            env={**os.environ, **_OFFLINE},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
        )
        try:
            _wait(child, run)
        finally:
            child.kill()
            child.wait()
        complaints.seek(0)
        said = complaints.read().decode(errors="replace").strip()
    if child.returncode or not out.is_file():
        found = said.split("\n")[-1] or f"exit code {child.returncode}"
        raise TeacherError(run.pool_root, expected="the teacher to embed a text", found=found)


def _wait(child: subprocess.Popen[bytes], run: Run) -> None:
    """Waits for an answer, and says how long. By writing to the page it also learns that nobody waits any more."""
    start, note = time.monotonic(), st.empty()
    while child.poll() is None:
        waited = time.monotonic() - start
        if waited > _LONGEST_S:
            note.empty()
            raise TeacherError(run.pool_root, expected=f"an answer within {_LONGEST_S} s", found="none")
        note.caption(f"The teacher reads the text … {waited:.0f} s")
        time.sleep(_PAUSE_S)
    note.empty()
