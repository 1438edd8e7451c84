"""What does the teacher make of a text or of a picture? Asked of a process that holds it: no page loads a model.

Each text and picture is asked for once: its embedding is kept beside the run.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import streamlit as st

from clipsel_core.curation.exploring.searches import read_vector
from clipsel_core.errors import ClipselError
from clipsel_core.jobs.encoders import Answer, Encoder, TeacherName, encoder_of
from clipsel_core.npy import write_npy
from clipsel_core.pool.teachers import find_teacher
from clipsel_core.runs.store import Run
from pages.parts import empty, facts, words

_PAUSE_S = 0.1
# An answer that comes sooner is not announced, which would only flicker.
_SECONDS_UNSAID = 0.4
_LONGEST_TEXT = 1_000
_ASKED, _STOPPED = "teacher asked", "teacher stopped"


def missing(run: Run) -> str:
    """Why the teacher cannot be asked, in a sentence; "" where its model is known."""
    if not (run.pool_root / "metadata").is_dir():
        return "The pool is not where the run remembers it."
    try:
        known = find_teacher(run.pool_root, run.config.arch)
    except ClipselError as error:
        return str(error)
    arch = run.config.arch
    why = f"The pool does not say which model {arch} is; one that the command embed made does, in teachers.json."
    return "" if known else why


def warm(run: Run) -> None:
    """Has the teacher loaded, so that the first search need not wait for all of it. For runs that miss nothing."""
    _encoder(run).warm()


def of_text(run: Run, text: str) -> np.ndarray | None:
    """The embedding of a text by the teacher of the run's pool: (D,) float32.

    None where somebody stopped it or it failed; the page then says so, with a button that asks again.
    """
    return _embedding(run, kept_text(run, text), lambda encoder: encoder.text(_tidy(text)))


def of_picture(run: Run, data: bytes) -> np.ndarray | None:
    """The embedding of an encoded picture, as of_text."""
    return _embedding(run, kept_picture(run, data), lambda encoder: encoder.image(data))


def kept_text(run: Run, text: str) -> Path:
    """Where a text's embedding is kept: another model, another file."""
    return _kept(run, "texts", _tidy(text).encode(errors="replace"))


def kept_picture(run: Run, data: bytes) -> Path:
    """Where a picture's embedding is kept: another model, another file."""
    return _kept(run, "pictures", data)


def _kept(run: Run, folder: str, asked: bytes) -> Path:
    model = repr(find_teacher(run.pool_root, run.config.arch))
    digest = hashlib.sha256(f"{model}\n".encode() + asked).hexdigest()
    return run.cache_dir / folder / f"{digest[:32]}.npy"


def _tidy(text: str) -> str:
    """The text as the teacher is asked for it."""
    return " ".join(text.replace("\0", " ").split())[:_LONGEST_TEXT]


def _encoder(run: Run) -> Encoder:
    found = find_teacher(run.pool_root, run.config.arch)
    assert found is not None, "asked for although it is missing"
    return encoder_of(TeacherName(*found, run.config.width))


def _embedding(run: Run, kept: Path, ask: Callable[[Encoder], Answer]) -> np.ndarray | None:
    if kept.is_file():
        return read_vector(kept)
    encoder = _encoder(run)
    known, answer = st.session_state.get(_ASKED, ("", None))
    if known != kept.name or answer is None:
        # Only what was asked last is waited for.
        if answer is not None:
            answer.cancel()
        answer = ask(encoder)
        st.session_state[_ASKED] = kept.name, answer
        st.session_state.pop(_STOPPED, None)
    if st.session_state.get(_STOPPED) == kept.name:
        facts.show_note("Stopped before the teacher had answered.")
        _offer_again("Search")
        return None
    _wait(encoder, answer, kept.name)
    try:
        write_npy(kept, answer.result())
    except ClipselError as error:
        empty.show_error(error, "The teacher could not be asked")
        _offer_again("Try again")
        return None
    return read_vector(kept)


def _wait(encoder: Encoder, answer: Answer, name: str) -> None:
    """Waits for an answer, says how long, and offers to stop. Drawing on the page notices that somebody went away."""
    if wait([answer], timeout=_SECONDS_UNSAID).done:
        return
    start, slot = time.monotonic() - _SECONDS_UNSAID, st.empty()
    with slot.container(horizontal=True, vertical_alignment="center"):
        st.button("Stop", icon=":material/stop:", key="stop teacher", on_click=_stop, args=(encoder, answer, name))
        note = st.empty()
    while not wait([answer], timeout=_PAUSE_S).done:
        what = "The teacher looks at it" if encoder.ready else "The teacher is being loaded, once for all searches"
        note.caption(f"{what} … {words.duration(time.monotonic() - start)}")
    slot.empty()


def _stop(encoder: Encoder, answer: Answer, name: str) -> None:
    encoder.stop(answer)
    st.session_state[_STOPPED] = name


def _offer_again(label: str) -> None:
    st.button(label, icon=":material/refresh:", key="ask teacher again", on_click=_forget)


def _forget() -> None:
    st.session_state.pop(_ASKED, None)
