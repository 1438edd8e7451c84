"""What is searched for? A text, an uploaded picture or a pair of the run; a teacher embeds texts and pictures.

The teacher lies in a process of its own: no page loads a model. Each text and picture is embedded once, and its
embedding kept beside the run.
"""

from __future__ import annotations

import base64
import hashlib
import io
import time
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import streamlit as st
from PIL import Image

from clipsel_core import uids
from clipsel_core.curation.exploring.searches import find_row, read_vector
from clipsel_core.errors import ClipselError, PoolFormatError
from clipsel_core.jobs.encoders import Answer, Encoder, TeacherName, encoder_of
from clipsel_core.npy import write_npy
from clipsel_core.pool.making.decode import FORMATS
from clipsel_core.runs.store import Run
from pages.parts import messages, pictures, search_links, sessions, state, words
from pages.parts.catalog import Entry
from pages.parts.gallery import cards, contents
from pages.parts.jobs import folders
from pages.parts.search_links import PICTURE, TEXT

LONGEST_NAME = 60
_LONGEST_TEXT = 1_000
_MOST_MIB = 20
_THUMB = 320
_PAUSE_S = 0.1
# An answer that comes sooner is not announced, which would only flicker.
_SECONDS_UNSAID = 0.4


@dataclass(frozen=True)
class Query:
    """What is searched for.

    name: in words. options: as the command line takes it. vector: (D,) floats; nothing where row says which pair it is.
    keep: writes the files that the options name.
    """

    name: str
    options: dict[str, str]
    vector: np.ndarray | None = None
    row: int = -1
    keep: Callable[[], object] | None = None


@dataclass
class _Session:
    """A session's picture, which Streamlit forgets when the page is left, and its question to the teacher.

    picture: name and bytes. asked: the file that the answer is kept in.
    """

    picture: tuple[str, bytes] | None = None
    asked: Path | None = None
    answer: Answer | None = None
    stopped: bool = False


def is_asked(by: str) -> bool:
    """Whether anything is asked for yet. by: TEXT, PICTURE or PAIR."""
    return sessions.get(_Session).picture is not None if by == PICTURE else bool(_typed("q" if by == TEXT else "like"))


def _typed(key: str) -> str:
    return st.session_state.get(key, "").strip()


def ask_text(run: Run) -> Query | None:
    """What the text field holds; None where it holds nothing or there is no answer, which the page then says."""
    if not _has_teacher(run, "Texts"):
        return None
    text = _typed("q")
    if not text:
        messages.show_note("The teacher compares the text with images or captions; its words need not occur in them.")
        return None
    # As the teacher is asked for it.
    tidy = " ".join(text.replace("\0", " ").split())[:_LONGEST_TEXT]
    file = embedding_file(run, "texts", tidy.encode(errors="replace"))
    vector = _embed(run, file, lambda encoder: encoder.text(tidy))
    if vector is None:
        return None
    return Query(f"“{text[:LONGEST_NAME]}”", {"text": text, "vector": str(file.absolute())}, vector)


def ask_picture(run: Run) -> Query | None:
    """What somebody uploaded; None as ask_text.

    Raises: PoolFormatError on bytes that are no picture, or would unpack to something huge.
    """
    if not _has_teacher(run, "Pictures"):
        return None

    def take() -> None:
        search_links.leave_search()
        given = st.session_state["picture"]
        sessions.get(_Session).picture = None if given is None else (given.name, given.getvalue())

    st.file_uploader(
        "Picture", list(folders.PICTURE_ENDINGS), key="picture", max_upload_size=_MOST_MIB, width=480, on_change=take
    )
    picture = sessions.get(_Session).picture
    if picture is None:
        messages.show_note("The teacher embeds the picture, upright and cut as it cuts all of the pool's.")
        return None
    name, data = picture
    if fault := pictures.fault(data):
        raise PoolFormatError(name, expected="a picture", found=fault, remedy="upload another one")
    with st.container(width=110):
        cards.draw_picture(_thumb(data), key="asked picture")
    kept = embedding_file(run, "pictures", data)
    vector = _embed(run, kept, lambda encoder: encoder.image(data))
    if vector is None:
        return None
    file = folders.upload_file(kept.parent, name, data, folders.PICTURE_ENDINGS)
    options = {"image": str(file.absolute()), "vector": str(kept.absolute())}
    return Query(f"picture {name[:LONGEST_NAME]}", options, vector, keep=partial(folders.write_upload, file, data))


def ask_pair(entry: Entry) -> Query | None:
    """The pair whose uid the field holds; None where it holds nothing. Raises UidError or RunError on another."""
    typed = _typed("like")
    if not typed:
        messages.show_note("Open a pair anywhere, then its look-alikes; or put its uid here.")
        return None
    table = state.open_table(entry)
    row = find_row(table, typed)
    uid = uids.to_hex(table.uids_at(np.array([row])))[0].as_py()
    known = contents.read_texts(entry, np.array([row]), contents.text_columns(entry))
    with st.container(horizontal=True, vertical_alignment="center", key="asked pair"):
        with st.container(width=110):
            src = contents.addresses(entry, [uid], known.get("url"))[0]
            cards.draw_picture(src, key="asked picture", lack=contents.placeholder(entry))
        st.text(known["caption"][0][: contents.LONGEST_TEXT] or "no caption")
    return pair_query(uid, row)


def pair_query(uid: str, row: int) -> Query:
    """A pair of the run. row: its row number."""
    return Query(f"pair {uid[:8]}…", {"uid": uid}, row=row)


def embedding_file(run: Run, folder: str, asked: bytes) -> Path:
    """Where the embedding of a text or picture is kept: another model, another file. folder: "texts" or "pictures"."""
    model = repr(state.teacher_of(run))
    digest = hashlib.sha256(f"{model}\n".encode() + asked).hexdigest()
    return run.cache_dir / folder / f"{digest[:32]}.npy"


@st.cache_data(max_entries=16, show_spinner=False)
def _thumb(data: bytes) -> str:
    """A small copy of a picture that was checked, drawn anew, as an address that holds it."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        picture.thumbnail((_THUMB, _THUMB))
        file = io.BytesIO()
        picture.convert("RGBA").save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _has_teacher(run: Run, what: str) -> bool:
    """Whether the teacher can be asked, which is loaded meanwhile; where it cannot, the page says why."""
    arch = run.config.arch
    missing = f"The pool does not say which model {arch} is; one that the command embed made does, in teachers.json."
    try:
        if not (run.may_read_pool and state.files_stamp(run.pool_root, "metadata")[0][1]):
            missing = "The pool is not where the run remembers it."
        elif state.teacher_of(run):
            _encoder(run).warm()
            return True
    except ClipselError as error:
        missing = str(error)
    st.markdown(f"**{what} cannot be searched for in this run**")
    messages.show_note(missing)
    st.caption("Search by a pair needs no teacher: its uid is in every opened pair.")
    return False


def _encoder(run: Run) -> Encoder:
    found = state.teacher_of(run)
    assert found is not None, "asked for although it is missing"
    return encoder_of(TeacherName(*found, run.config.width))


def _embed(run: Run, file: Path, ask: Callable[[Encoder], Answer]) -> np.ndarray | None:
    """The teacher's embedding: (D,) float32, kept in a file.

    None where somebody stopped it or it failed; the page then says so, with a button that asks again.
    """
    if file.is_file():
        return read_vector(file)
    encoder, session = _encoder(run), sessions.get(_Session)
    if session.asked != file or session.answer is None:
        # Only what was asked last is waited for.
        if session.answer is not None:
            session.answer.cancel()
        session.asked, session.answer, session.stopped = file, ask(encoder), False
    if session.stopped:
        messages.show_note("Stopped before the teacher had answered.")
        _offer_again("Search")
        return None
    _wait(encoder, session.answer)
    try:
        write_npy(file, session.answer.result())
    except ClipselError as error:
        messages.show_error(error, "The teacher could not be asked")
        _offer_again("Try again")
        return None
    return read_vector(file)


def _wait(encoder: Encoder, answer: Answer) -> None:
    """Waits for an answer, says how long, and offers to stop. Drawing on the page notices that somebody went away."""
    if wait([answer], timeout=_SECONDS_UNSAID).done:
        return
    start, slot = time.monotonic() - _SECONDS_UNSAID, st.empty()
    with slot.container(horizontal=True, vertical_alignment="center"):
        st.button("Stop", icon=":material/stop:", key="stop teacher", on_click=_stop, args=(encoder, answer))
        note = st.empty()
    while not wait([answer], timeout=_PAUSE_S).done:
        what = "The teacher looks at it" if encoder.ready else "The teacher is being loaded, once for all searches"
        note.caption(f"{what} … {words.duration(time.monotonic() - start)}")
    slot.empty()


def _stop(encoder: Encoder, answer: Answer) -> None:
    encoder.stop(answer)
    session = sessions.get(_Session)
    session.stopped = session.answer is answer


def _offer_again(label: str) -> None:
    def forget_answer() -> None:
        sessions.get(_Session).answer = None

    st.button(label, icon=":material/refresh:", key="ask teacher again", on_click=forget_answer)
