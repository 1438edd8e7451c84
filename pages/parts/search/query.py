"""What is searched for? A text, a picture that somebody uploads, or a pair of the run."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import streamlit as st
from PIL import Image

from clipsel_core import uids
from clipsel_core.curation.exploring.searches import find_row
from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.making.decode import FORMATS
from clipsel_core.runs.store import Run
from pages.parts import facts, leading, pictures, state
from pages.parts.catalog import Entry
from pages.parts.gallery import cards, images, texts
from pages.parts.jobs import folders
from pages.parts.leading import PICTURE, TEXT
from pages.parts.search import teacher

LONGEST_NAME = 60
_MOST_MIB = 20
_UPLOADED = "uploaded picture"
_THUMB = 320


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
    keep: Callable[[], object] = lambda: None


def asked(by: str) -> bool:
    """Whether anything is asked for yet. by: TEXT, PICTURE or PAIR."""
    return _UPLOADED in st.session_state if by == PICTURE else bool(_typed("q" if by == TEXT else "like"))


def _typed(key: str) -> str:
    return st.session_state.get(key, "").strip()


def of_text(run: Run) -> Query | None:
    """What the text field holds; None where it holds nothing or there is no answer, which the page then says."""
    if _missing(run, "Texts"):
        return None
    text = _typed("q")
    if not text:
        facts.show_note("The teacher compares the text with images or captions; its words need not occur in them.")
        return None
    vector = teacher.of_text(run, text)
    if vector is None:
        return None
    options = {"text": text, "vector": str(teacher.kept_text(run, text).absolute())}
    return Query(f"“{text[:LONGEST_NAME]}”", options, vector)


def of_picture(run: Run) -> Query | None:
    """What somebody uploaded; None as of_text.

    Raises: PoolFormatError on bytes that are no picture, or would unpack to something huge.
    """
    if _missing(run, "Pictures"):
        return None
    st.file_uploader(
        "Picture", list(folders.PICTURE_ENDINGS), key="picture", max_upload_size=_MOST_MIB, width=480, on_change=_take
    )
    if _UPLOADED not in st.session_state:
        facts.show_note("The teacher embeds the picture, upright and cut as it cuts all of the pool's.")
        return None
    name, data = st.session_state[_UPLOADED]
    if fault := pictures.fault(data):
        raise PoolFormatError(name, expected="a picture", found=fault, remedy="upload another one")
    with st.container(width=110):
        cards.draw_picture(_thumb(data), key="asked picture")
    vector = teacher.of_picture(run, data)
    if vector is None:
        return None
    kept = teacher.kept_picture(run, data)
    file = folders.upload_file(kept.parent, name, data, folders.PICTURE_ENDINGS)
    options = {"image": str(file.absolute()), "vector": str(kept.absolute())}
    return Query(f"picture {name[:LONGEST_NAME]}", options, vector, keep=partial(folders.write_upload, file, data))


def of_pair_asked(entry: Entry) -> Query | None:
    """The pair whose uid the field holds; None where it holds nothing. Raises UidError or RunError on another."""
    typed = _typed("like")
    if not typed:
        facts.show_note("Open a pair anywhere, then its look-alikes; or put its uid here.")
        return None
    table = state.open_table(entry)
    row = find_row(table, typed)
    uid = uids.to_hex(table.uids_at(np.array([row])))[0].as_py()
    told = texts.read_texts(entry, np.array([row]), images.columns(entry))
    with st.container(horizontal=True, vertical_alignment="center", key="asked pair"):
        with st.container(width=110):
            src = images.addresses(entry, [uid], told.get("url"))[0]
            cards.draw_picture(src, key="asked picture", lack=images.placeholder(entry))
        st.text(told["caption"][0][: texts.LONGEST_TEXT] or "no caption")
    return of_pair(uid, row)


def of_pair(uid: str, row: int) -> Query:
    """A pair of the run. row: its row number."""
    return Query(f"pair {uid[:8]}…", {"uid": uid}, row=row)


def _missing(run: Run, what: str) -> bool:
    """Whether the teacher cannot be asked, which the page then says; else the teacher is loaded meanwhile."""
    missing = teacher.missing(run)
    if not missing:
        teacher.warm(run)
        return False
    st.markdown(f"**{what} cannot be searched for in this run**")
    facts.show_note(missing)
    st.caption("Search by a pair needs no teacher: its uid is in every opened pair.")
    return True


def _take() -> None:
    """Remembers the upload, which Streamlit forgets when the page is left."""
    leading.leave_kept()
    given = st.session_state["picture"]
    if given is None:
        st.session_state.pop(_UPLOADED, None)
    else:
        st.session_state[_UPLOADED] = given.name, given.getvalue()


@st.cache_data(max_entries=16, show_spinner=False)
def _thumb(data: bytes) -> str:
    """A small copy of a picture that was checked, drawn anew, as an address that holds it."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        picture.thumbnail((_THUMB, _THUMB))
        file = io.BytesIO()
        picture.convert("RGBA").save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
