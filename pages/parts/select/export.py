"""How does a selection leave the dashboard? As a saved recipe, and as a subset on the server that can be fetched."""

from __future__ import annotations

import json
import os
import zlib
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from clipsel_core.curation.recipes.recipe import Recipe, dump_recipe, load_recipe, save_recipe
from clipsel_core.curation.selecting.export import Manifest, export
from clipsel_core.curation.selecting.selection import Selection
from clipsel_core.errors import ClipselError, counted
from clipsel_core.files import locked
from clipsel_core.places import Place
from clipsel_core.runs.store import Run
from clipsel_core.tasks import Report, Task
from pages.parts import catalog, messages, progress_bars, routes, sessions, state, words
from pages.parts.catalog import Entry

# Fewer pairs are written while one waits; of more it is said how far they are.
_FEW, _SOON_S, _PATIENCE_S = 1_000_000, 0.4, 60.0
_Stamp = tuple[int, int, int]
_ENDINGS = {".npy": "DataComp subset", ".parquet": "uids and scores", ".csv": "uids and scores", ".txt": "a uid a line"}


def name_key(entry: Entry) -> str:
    """Where the session keeps the name that the draft is saved and exported under."""
    return f"name {entry.key}"


@dataclass(frozen=True)
class Places:
    """Where the panel says what depends on the recipe. path: of the recipe by the name given."""

    path: Place
    saved: DeltaGenerator
    result: DeltaGenerator
    file: DeltaGenerator


@dataclass(frozen=True)
class _Agreed:
    """What shall be written although a name was taken. what: save or export. about: run, name, ending and recipe.

    replaces: whether the taken name was chosen again.
    """

    what: str
    about: tuple[str, str, str, str]
    replaces: bool


@dataclass(frozen=True)
class _Export:
    """A subset that this session writes. task: ends with its manifest, and the stamp of its file as it was written."""

    recipe: str
    out: Place
    task: Task[tuple[Manifest, _Stamp]]


@dataclass
class Exports:
    """What a session saved and exported of a run.

    known: what it wrote or loaded, by the file's name: a recipe's YAML or
    a subset's SHA-256. agreed: what the next drawing shall write. writing, last: the subset that is being written, and
    the last that was.
    """

    known: dict[str, str] = field(default_factory=dict)
    agreed: _Agreed | None = None
    writing: _Export | None = None
    last: _Export | None = None


def draw_controls(entry: Entry, run: Run, recipe: str, picked: Selection) -> Places | None:
    """Name, save and export of a recipe (YAML); once it has a name, draw_state writes what can be said of it."""
    key = name_key(entry)
    st.session_state.setdefault(key, "my-recipe")
    # A widget's value is forgotten with its page; written anew it is the session's.
    st.session_state[key] = st.session_state[key]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        name = st.text_input("Name", key=key, max_chars=64, width=220).strip()
        ending = st.selectbox("Format", list(_ENDINGS), key="ending", persist_state="session", width=120)
    if not catalog.NAME.fullmatch(name):
        st.caption("Letters, digits, - and _ make a name; it becomes the file's.")
        return None
    path, saved = run.recipes_dir / f"{name}.yaml", st.container()
    with st.container(horizontal=True, gap="small"):
        exports = st.button("Save and export", type="primary", icon=":material/file_download:", key="export")
        saves = st.button("Save recipe", icon=":material/bookmark:", key="save")
    asked, replaces = "export" if exports else "save" if saves else "", False
    session = sessions.get(Exports, entry.key)
    agreed, session.agreed = session.agreed, None
    if agreed and agreed.about == (entry.key, name, ending, recipe):
        asked, replaces = agreed.what, agreed.replaces
    written = _save(entry, run, recipe, path, asked, ending, replaces) if asked else None
    if written is not None and asked == "export":
        out, copy = run.exports_dir / f"{name}{ending}", written

        def write(report: Report) -> tuple[Manifest, _Stamp]:
            return export(run, picked, copy, out, report), _stamp(out)

        if session.writing:
            session.writing.task.stop()
        session.writing = _Export(recipe, out, Task(write))
        session.writing.task.start()
        # What takes a moment is done at once.
        session.writing.task.wait(_PATIENCE_S if len(picked) < _FEW else _SOON_S)
    _watch(entry)
    if written is not None and asked == "save":
        st.toast(f"Saved as {name}", icon=":material/check:")
        st.rerun()
    return Places(path, saved, st.container(), st.expander("The recipe as a file"))


def _taken(entry: Entry, run: Run, recipe: str, path: Place, ending: str) -> str:
    """What of somebody else's would be replaced, in words; "" where nothing would.

    What this session wrote or loaded itself may be replaced, and what would be the same again. ending: of the subset
    that is to be written; "" where none is.
    """
    there = _in_file(path, *_stamp(path)[1:])
    if path.exists() and (there is None or there not in (recipe, _known(entry).get(path.name))):
        return f"Another recipe was saved as {path.stem}"
    out = run.exports_dir / f"{path.stem}{ending}"
    if not ending or not out.exists():
        return ""
    try:
        there = json.loads(_manifest_of(out).read())
        same = there["recipe"] == recipe or there["sha256"] == _known(entry).get(out.name)
    except (OSError, ValueError, TypeError, KeyError):
        same = False
    return "" if same else f"Another subset was exported as {out.name}"


def _ask(entry: Entry, run: Run, recipe: str, name: str, ending: str, what: str, found: str) -> None:
    """Says that a name is taken; another one or the same has to be chosen before anything is written."""
    numbers = (f"{name[:60]}-{number}" for number in range(2, 1000))
    free = next(
        other
        for other in numbers
        if not (run.recipes_dir / f"{other}.yaml").exists()
        and not any((run.exports_dir / f"{other}{ending}").exists() for ending in _ENDINGS)
    )

    def agree(agreed: _Agreed) -> None:
        sessions.get(Exports, entry.key).agreed = agreed
        st.session_state[name_key(entry)] = agreed.about[1]

    with st.container(border=True, key="taken", gap="small"):
        messages.show_title(f"{found}: nothing was written")
        with st.container(horizontal=True, gap="small"):
            for label, chosen in ((f"Take the name {free}", free), (f"Replace {name}", name)):
                agreed = _Agreed(what, (entry.key, chosen, ending, recipe), chosen == name)
                key = "replace taken" if agreed.replaces else "another name"
                st.button(label, key=key, on_click=agree, args=(agreed,))


def remember_file(entry: Entry, file: str, content: str) -> None:
    """Notes what this session wrote or loaded: a recipe's YAML or a subset's SHA-256, by the file's name."""
    sessions.get(Exports, entry.key).known[file] = content


def _known(entry: Entry) -> dict[str, str]:
    return sessions.get(Exports, entry.key).known


def _stamp(path: Place) -> _Stamp:
    """Changes when another file takes a file's place; zeros where there is none."""
    try:
        if path.remote:
            size, version = path.stamp()
            return 0, zlib.crc32(str(version).encode()), size
        stat = os.stat(path)
    except OSError:
        return 0, 0, 0
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _manifest_of(out: Place) -> Place:
    return out.with_name(f"{out.name}.manifest.json")


def draw_state(entry: Entry, recipe: str, places: Places) -> None:
    """What can be said of a recipe (YAML): whether it is saved or exported, and how it looks as a file."""
    _, changed_ns, size = _stamp(places.path)
    there = _in_file(places.path, changed_ns, size) if size else None
    if not size:
        said = "not saved yet"
    elif there == recipe:
        said = "saved"
    elif there is not None and there == _known(entry).get(places.path.name):
        said = "changed since it was saved or loaded"
    else:
        said = "another recipe has this name: saving asks first"
    with places.saved:
        st.caption(f"{_ENDINGS[st.session_state['ending']]} · {said}")
    if last := sessions.get(Exports, entry.key).last:
        with places.result:
            _show_export(entry, last, recipe)
    with places.file:
        st.code(recipe, language="yaml", wrap_lines=True)


@lru_cache(maxsize=64)
def _in_file(path: Place, changed_ns: int, size: int) -> str | None:
    """The recipe in a file as this page would write it, None where it cannot be read."""
    try:
        return dump_recipe(load_recipe(path))
    except ClipselError:
        return None


def _save(entry: Entry, run: Run, recipe: str, path: Place, asked: str, ending: str, replaces: bool) -> Recipe | None:
    """Saves the recipe; None where that was not possible, or the name is another's, which is then asked about.

    asked: save, or export: then the subset's name must be free too.
    """
    try:
        folders = (path.parent, run.exports_dir) if asked == "export" else (path.parent,)
        for folder in folders:
            catalog.check_within(entry.root, folder)
        # Whoever saves under the same name in the same moment waits here, and is asked. In a store the last one wins.
        with nullcontext() if path.remote else locked(Path(path.parent), is_folder=True):
            found = "" if replaces else _taken(entry, run, recipe, path, ending if asked == "export" else "")
            written = None if found else save_recipe(state.parse(entry, recipe), path)
    except (ClipselError, OSError) as error:
        title = "Nothing was exported" if asked == "export" else "The recipe was not saved"
        messages.show_error(messages.not_written(error, path), title)
        return None
    if written is None:
        _ask(entry, run, recipe, path.stem, ending, asked, found)
        return None
    remember_file(entry, path.name, recipe)
    return written


def _watch(entry: Entry) -> None:
    """How far a subset is that is being written, and what came of it once it is there."""
    session = sessions.get(Exports, entry.key)
    writing = session.writing
    if writing is None:
        return
    error, ended = writing.task.error, writing.task.value
    if isinstance(error, ClipselError | OSError):
        messages.show_error(messages.not_written(error, writing.out), "Nothing was exported")
    elif error:
        raise error
    elif ended is None:
        progress_bars.watch(writing.task, key="writing", stopped="Stopped: nothing was written.")
        return
    else:
        remember_file(entry, writing.out.name, ended[0].sha256)
        session.last = writing
    session.writing = None


def _show_export(entry: Entry, done: _Export, recipe: str) -> None:
    """What this session exported last, and the command that makes the same."""
    run, out = state.open_run(entry), done.out
    assert done.task.value is not None
    manifest, stamp = done.task.value
    with st.container(border=True, key="exported"):
        if done.recipe == recipe:
            st.markdown("**Exported**")
        else:
            st.markdown("**Exported earlier**, from other steps than those on this page now")
        facts = {
            "Path": str(out),
            "Pairs": words.number(manifest.pairs),
            "Size": counted(manifest.size_bytes, "bytes"),
            "SHA-256": manifest.sha256,
            "Manifest": str(manifest.manifest_path),
        }
        messages.show_facts(facts)
        if _stamp(out) != stamp:
            st.warning(
                "Another file has this name by now, or none: somebody exported under it, or took it away. Export again "
                "under a name of your own.",
                icon=":material/warning:",
            )
            return
        with st.container(horizontal=True, gap="small"):
            for label, file, icon in (("Download", out, "download"), ("Manifest", _manifest_of(out), "description")):
                url = routes.export_url(entry, file.name, manifest.sha256)
                st.link_button(label, url, icon=f":material/{icon}:")
        st.caption("The same from the command line, byte for byte:")
        path, partly = run.recipes_dir / f"{out.stem}.yaml", [] if run.finished else ["--unfinished"]
        again = messages.command("select", run.root, "--recipe", path, "--out", out, *partly)
        st.code(again, language="bash", wrap_lines=True)
        with st.expander("What the manifest says"):
            # But for its shards, which may be thousands.
            said = {name: value for name, value in manifest.content.items() if name != "shards"}
            said["shards"] = f"{counted(len(manifest.content['shards']), 'names')}"
            st.code(json.dumps(said, indent=1), language="json", height=320)
