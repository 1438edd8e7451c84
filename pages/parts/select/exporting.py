"""How does a selection leave the dashboard? As a saved recipe, and as a subset on the server that can be fetched."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from clipsel_core.counts import counted
from clipsel_core.curation.recipes.recipe import Recipe
from clipsel_core.curation.recipes.recipe_files import dump_recipe, load_recipe, save_recipe
from clipsel_core.curation.selecting.export import Manifest, export
from clipsel_core.curation.selecting.selection import Selection
from clipsel_core.errors import ClipselError
from clipsel_core.files import held
from clipsel_core.runs.store import Run
from clipsel_core.tasks import Report, Task
from pages.parts import catalog, commands, empty, facts, routes, state, watching, words
from pages.parts.catalog import Entry

# Fewer pairs are written while one waits; of more it is said how far they are.
_FEW, _SOON_S, _PATIENCE_S = 1_000_000, 0.4, 60.0
_AGREED = "agreed to the name"
_ENDINGS = {".npy": "DataComp subset", ".parquet": "uids and scores", ".csv": "uids and scores", ".txt": "a uid a line"}


def name_key(entry: Entry) -> str:
    """Where the session keeps the name that the draft is saved and exported under."""
    return f"name {entry.key}"


@dataclass(frozen=True)
class Places:
    """Where the panel says what depends on the recipe. path: of the recipe by the name given."""

    path: Path
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


def panel(entry: Entry, run: Run, recipe: str, picked: Selection) -> Places | None:
    """Name, save and export of a recipe (YAML); what can be said of it is for `answer` to write, once it has a name."""
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
    agreed: _Agreed | None = st.session_state.pop(_AGREED, None)
    if agreed and agreed.about == (entry.key, name, ending, recipe):
        asked, replaces = agreed.what, agreed.replaces
    written = _save(entry, run, recipe, path, asked, ending, replaces) if asked else None
    if written is not None and asked == "export":
        _export(entry, run, recipe, written, picked, run.exports_dir / f"{name}{ending}")
    _watch(entry)
    if written is not None and asked == "save":
        st.toast(f"Saved as {name}", icon=":material/check:")
        st.rerun()
    return Places(path, saved, st.container(), st.expander("The recipe as a file"))


def _taken(entry: Entry, run: Run, recipe: str, path: Path, ending: str) -> str:
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
        there = json.loads(_manifest_of(out).read_bytes())
        same = there["recipe"] == recipe or there["sha256"] == _known(entry).get(out.name)
    except (OSError, ValueError, TypeError, KeyError):
        same = False
    return "" if same else f"Another subset was exported as {out.name}"


def _ask(entry: Entry, run: Run, recipe: str, name: str, ending: str, what: str, found: str) -> None:
    """Says that a name is taken; another one or the same has to be chosen before anything is written."""
    numbers = (f"{name[:60]}-{number}" for number in range(2, 1000))
    free = next(other for other in numbers if not _is_taken(run, other))
    with st.container(border=True, key="taken", gap="small"):
        facts.show_title(f"{found}: nothing was written")
        with st.container(horizontal=True, gap="small"):
            for label, chosen in ((f"Take the name {free}", free), (f"Replace {name}", name)):
                agreed = _Agreed(what, (entry.key, chosen, ending, recipe), chosen == name)
                key = "replace taken" if agreed.replaces else "another name"
                st.button(label, key=key, on_click=_agree, args=(entry, agreed))


def _is_taken(run: Run, name: str) -> bool:
    return (run.recipes_dir / f"{name}.yaml").exists() or any(
        (run.exports_dir / f"{name}{ending}").exists() for ending in _ENDINGS
    )


def _agree(entry: Entry, agreed: _Agreed) -> None:
    st.session_state[_AGREED], st.session_state[name_key(entry)] = agreed, agreed.about[1]


def knows(entry: Entry, file: str, content: str) -> None:
    """Notes what this session wrote or loaded: a recipe's YAML or a subset's SHA-256, by the file's name."""
    st.session_state[f"known files {entry.key}"] = {**_known(entry), file: content}


def _known(entry: Entry) -> dict[str, str]:
    return st.session_state.get(f"known files {entry.key}", {})


def _stamp(path: Path) -> tuple[int, int, int]:
    """Changes when another file takes a file's place; zeros where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _manifest_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.manifest.json")


def answer(entry: Entry, recipe: str, places: Places) -> None:
    """What can be said of a recipe (YAML): whether it is saved or exported, and how it looks as a file."""
    with places.saved:
        said = _saved_state(entry, places.path, recipe)
        st.caption(f"{_ENDINGS[st.session_state['ending']]} · {said}")
    if f"exported {entry.key}" in st.session_state:
        with places.result:
            _result(st.session_state[f"exported {entry.key}"], entry, recipe)
    with places.file:
        st.code(recipe, language="yaml", wrap_lines=True)


def _saved_state(entry: Entry, path: Path, recipe: str) -> str:
    _, changed_ns, size = _stamp(path)
    if not size:
        return "not saved yet"
    there = _in_file(path, changed_ns, size)
    if there == recipe:
        return "saved"
    own = there is not None and there == _known(entry).get(path.name)
    return "changed since it was saved or loaded" if own else "another recipe has this name: saving asks first"


@lru_cache(maxsize=64)
def _in_file(path: Path, changed_ns: int, size: int) -> str | None:
    """The recipe in a file as this page would write it, None where it cannot be read."""
    try:
        return dump_recipe(load_recipe(path))
    except ClipselError:
        return None


def _save(entry: Entry, run: Run, recipe: str, path: Path, asked: str, ending: str, replaces: bool) -> Recipe | None:
    """Saves the recipe; None where that was not possible, or the name is another's, which is then asked about.

    asked: save, or export: then the subset's name must be free too.
    """
    try:
        folders = (path.parent, run.exports_dir) if asked == "export" else (path.parent,)
        for folder in folders:
            catalog.check_within(entry.root, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whoever saves under the same name in the same moment waits here, and is asked.
        with held(path.parent):
            found = "" if replaces else _taken(entry, run, recipe, path, ending if asked == "export" else "")
            written = None if found else save_recipe(state.parse(entry, recipe), path)
    except (ClipselError, OSError) as error:
        title = "Nothing was exported" if asked == "export" else "The recipe was not saved"
        empty.show_error(empty.not_written(error, path), title)
        return None
    if written is None:
        _ask(entry, run, recipe, path.stem, ending, asked, found)
        return None
    knows(entry, path.name, recipe)
    return written


class _Writing:
    """A subset being written for this session. manifest: what came of it, once it is there. stamp: of its file."""

    def __init__(self, run: Run, recipe: str, written: Recipe, picked: Selection, out: Path) -> None:
        self.recipe, self.out = recipe, out
        self.manifest: Manifest | None = None
        self.stamp = (0, 0, 0)
        self.work = Task(self._do)
        self._about = run, picked, written

    def _do(self, report: Report) -> None:
        run, picked, written = self._about
        manifest = export(run, picked, written, self.out, report)
        self.stamp = _stamp(self.out)
        self.manifest = manifest


def _export(entry: Entry, run: Run, recipe: str, written: Recipe, picked: Selection, out: Path) -> None:
    """Begins to write the subset beside its manifest; what takes a moment is done at once."""
    if earlier := st.session_state.get(_writing(entry)):
        earlier.work.stop()
    writing = st.session_state[_writing(entry)] = _Writing(run, recipe, written, picked, out)
    writing.work.start()
    writing.work.wait(_PATIENCE_S if len(picked) < _FEW else _SOON_S)


def _watch(entry: Entry) -> None:
    """How far a subset is that is being written, and what came of it once it is there."""
    writing = st.session_state.get(_writing(entry))
    if writing is None:
        return
    if isinstance(writing.work.error, ClipselError | OSError):
        empty.show_error(empty.not_written(writing.work.error, writing.out), "Nothing was exported")
    elif writing.work.error:
        raise writing.work.error
    elif writing.manifest is None:
        watching.until_done(writing.work, key="writing", stopped="Stopped: nothing was written.")
        return
    else:
        _remember(entry, writing, writing.manifest)
    del st.session_state[_writing(entry)]


def _writing(entry: Entry) -> str:
    """Where the session keeps the subset that it is writing."""
    return f"writing {entry.key}"


def _remember(entry: Entry, writing: _Writing, manifest: Manifest) -> None:
    """Keeps for this session what was exported, and from which steps."""
    run, out = state.open_run(entry), writing.out
    path = run.recipes_dir / f"{out.stem}.yaml"
    knows(entry, out.name, manifest.sha256)
    st.session_state[f"exported {entry.key}"] = {
        "recipe": writing.recipe,
        "out": out,
        "stamp": writing.stamp,
        "sha256": manifest.sha256,
        "facts": {
            "Path": str(out),
            "Pairs": words.count(manifest.pairs),
            "Size": counted(manifest.size_bytes, "bytes"),
            "SHA-256": manifest.sha256,
            "Manifest": str(manifest.manifest_path),
        },
        "says": _in_short(manifest),
        "command": commands.command(
            "select", run.root, "--recipe", path, "--out", out, *([] if run.finished else ["--unfinished"])
        ),
    }


def _result(done: dict[str, Any], entry: Entry, recipe: str) -> None:
    with st.container(border=True, key="exported"):
        if done["recipe"] == recipe:
            st.markdown("**Exported**")
        else:
            st.markdown("**Exported earlier**, from other steps than those on this page now")
        facts.show_facts(done["facts"])
        if _stamp(done["out"]) != done["stamp"]:
            st.warning(
                "Another file has this name by now, or none: somebody exported under it, or took it away. Export again "
                "under a name of your own.",
                icon=":material/warning:",
            )
            return
        with st.container(horizontal=True, gap="small"):
            for label, file, icon in (
                ("Download", done["out"], "download"),
                ("Manifest", _manifest_of(done["out"]), "description"),
            ):
                url = routes.export_url(entry, file.name, done["sha256"])
                st.link_button(label, url, icon=f":material/{icon}:")
        st.caption("The same from the command line, byte for byte:")
        st.code(done["command"], language="bash", wrap_lines=True)
        with st.expander("What the manifest says"):
            st.code(done["says"], language="json", height=320)


def _in_short(manifest: Manifest) -> str:
    """The manifest as JSON, but for its shards, which may be thousands."""
    shown = {name: said for name, said in manifest.content.items() if name != "shards"}
    return json.dumps({**shown, "shards": f"{counted(len(manifest.content['shards']), 'names')}"}, indent=1)
