"""How is work started that takes long? In forms for a pool, a run, a target and a map; commands check what they say."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import streamlit as st

from clipsel_core import uids
from clipsel_core.columns.captions import COMPUTED
from clipsel_core.curation.exploring.projection import SAMPLE
from clipsel_core.errors import ClipselError, JobError, PoolFormatError, counted
from clipsel_core.jobs import control
from clipsel_core.jobs.control import Option
from clipsel_core.leases import may_be_held
from clipsel_core.places import Place
from clipsel_core.pool.layout import Pool
from clipsel_core.pool.sources.record import SOURCE_FORMATS
from clipsel_core.pool.target_files import files_at, split_part
from clipsel_core.runs.columns import CLIP_SCORE, NORMSIM, S_CLIPLOSS
from clipsel_core.runs.store import NAME_PATTERN, Run, RunConfig
from pages.parts import catalog, messages, recipes, state, stores, words
from pages.parts.catalog import Entry
from pages.parts.jobs import dialogs, folders, jobs, machine

_NO_TEACHER = "none: the source holds embeddings"
_MOST_ON_MAP = 1_000_000
_LOOKED = "told by looking"
_USUAL_SHARD = 100_000
_FROM_FILE, _LOOKING = "a file", "Checking run and column …"
_USUAL = RunConfig.model_fields
_BAD_ROWS = {
    "error": "stop at the first",
    "skip": "set them aside",
    "scale": "scale them to unit length; set aside what has no length",
}
_TARGET = f"{NORMSIM} of every pair to it becomes a metric like the others: on sliders, in recipes and galleries."
_ONLY_READ = "The run lies in a store that no process can hold for itself. Copy it to a disk, or to s3:// or gs://."
# A command's arguments and its options, from where the uploads are kept.
_Prepared = Callable[[list[Place]], tuple[list[str | os.PathLike[str]], Mapping[str, Option]]]
_START: dict[str, Any] = {"type": "primary", "icon": ":material/play_arrow:"}


def draw_buttons(run: Run | None) -> None:
    """A button for each form, in a row. run: the run on show, if there is one."""
    if dialogs.button("Make a pool", "pool", ":material/add_photo_alternate:"):
        ask_for_pool()
    if dialogs.button("Score a pool", "score", ":material/calculate:"):
        ask_for_run()
    why_not = why_no_job(run) if run else ""
    if run and dialogs.button("Add a target", "target", ":material/my_location:", why_not=why_not):
        ask_for_target(run)
    if run and dialogs.button("Add a column", "column", ":material/view_column:", why_not=why_not):
        ask_for_column(run)


def why_no_job(run: Run) -> str:
    """Why nothing can be added to a run from here; "" where it can."""
    if not may_be_held(run.root):
        return _ONLY_READ
    return "" if run.finished else "Shards are left to score first."


def draw_target_button(entry: Entry, run: Run) -> None:
    """Offers to compare the run with the pairs kept by hand; nothing while none is."""
    picked = [uid for uid, kind in recipes.by_hand(entry, run).items() if kind == "keep"]
    if not picked or why_no_job(run):
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        messages.show_note(f"{words.pairs(len(picked))} kept by hand.")
        if dialogs.button("More like these", "more like these", ":material/my_location:"):
            ask_for_pairs(run, uids.from_hex(picked), "picked")


@dialogs.form("Make a pool", width="medium")
def ask_for_pool() -> None:
    """The form of a new pool; starts it and closes where nothing is wrong."""
    messages.show_note("Images with captions, or embeddings that are there already, become a pool that can be scored.")
    source = dialogs.ask_for_choice(
        "Source",
        [*(folders.short_path(path) for path in folders.sources()), *catalog.readable_addresses()],
        "choose one, or type its path or address",
        help="Webdataset tars, a folder of images with a .txt beside each, a table of paths, parquets with images.",
    )
    st.caption(
        f"Paths count from {catalog.data_folder()}. Another folder, or an address such as `https://host/folder` or "
        "`s3://bucket/folder`, is allowed with `--read` when the server starts."
    )
    own = [folders.short_path(path) for path in folders.teachers()]
    try:
        cached = machine.downloaded_teachers()
    except ClipselError:
        cached = []
    teacher = dialogs.ask_for_choice(
        "Teacher",
        [*own, *cached, _NO_TEACHER],
        "choose one on disk, or type model and tag: ViT-B-32 openai",
        help="A tag of open_clip that is not on disk is downloaded. A folder or a checkpoint of your own works, too.",
    )
    given = (source or "").strip().rstrip("/")
    left, right = st.columns(2)
    named = "Its columns' name: l14, b32."
    arch = dialogs.ask_for_name(left, "Teacher's short name", teacher, lambda: _short(teacher or ""), help=named)
    name = dialogs.ask_for_name(
        right, "Name of the pool", source, lambda: folders.free_name(PurePath(given).stem) if given else ""
    )
    options = {"arch": arch, **_ask_for_format()}
    asked = st.button("Check and start", key="start pool", disabled=not (source and teacher), **_START)
    if asked and source and teacher:

        def prepare() -> _Prepared:
            pool = folders.pool_to_make(name)
            paths: list[str | os.PathLike[str]] = [folders.source(source), pool]
            named = _teacher_options(teacher)
            return lambda kept: (paths, {**options, **named})

        _start("embed", prepare, title=f"Make pool {name}", looking="Looking at the source …")


def _short(teacher: str) -> str:
    """What a teacher may be called in columns: ViT-B-32 openai is b32."""
    if not teacher.strip() or teacher == _NO_TEACHER:
        return ""
    model = teacher.split()[0].rstrip("/").rpartition("/")[2]
    return re.sub(r"[^a-z0-9]+", "", re.sub(r"^ViT-", "", model).lower())[:64]


def _ask_for_format() -> dict[str, Option]:
    with st.expander("Format, columns, shards"):
        kind = st.selectbox("Format", [_LOOKED, *SOURCE_FORMATS], key=dialogs.key("Format"), **dialogs.STAYS)
        left, right = st.columns(2)
        guessed: dict[str, Any] = {"placeholder": "guessed", **dialogs.STAYS}
        image = left.text_input("Column of images", key=dialogs.key("Column of images"), **guessed)
        text = right.text_input("Column of captions", key=dialogs.key("Column of captions"), **guessed)
        size = left.number_input(
            "Pairs in a shard",
            1,
            None,
            _USUAL_SHARD,
            10_000,
            key=dialogs.key("Pairs in a shard"),
            help="A pool that is there keeps its own.",
            **dialogs.STAYS,
        )
        more = right.text_input(
            "Further columns",
            key=dialogs.key("Further columns"),
            placeholder="all",
            help="Columns of the source that the pool gets: names such as lang,width, or none.",
            **dialogs.STAYS,
        )
    return {
        "format": kind if kind != _LOOKED else None,
        "image-column": image.strip() or None,
        "text-column": text.strip() or None,
        "columns": more.strip() or None,
        # Unsaid, so that another teacher can join a pool of whatever shards.
        "shard-size": int(size) if size != _USUAL_SHARD else None,
    }


def _start(
    command: str,
    prepare: Callable[[], _Prepared],
    *,
    title: str,
    looking: str,
    run: Run | None = None,
    uploads: Sequence[tuple[str, bytes]] = (),
) -> None:
    """Has a command check what was asked for, starts it as a job and closes the form, or says what is wrong.

    prepare: makes sure of what was typed. looking: what is said meanwhile. run: the one that is added to; None where
    the last argument is the folder that is made. uploads: names and contents, kept in the run or the data folder.
    """
    arguments: list[str | os.PathLike[str]] = []
    options: dict[str, Option] = {}
    root, kind = run.root if run else Place.of(catalog.data_folder()), "column" if command == "add-column" else "target"
    endings = folders.COLUMN_ENDINGS if kind == "column" else folders.TARGET_ENDINGS

    def check(kept: list[Place]) -> str:
        arguments[:], named = given(kept)
        options.update(named)
        with st.spinner(looking):
            return control.check_arguments(command, arguments, options, may_read=folders.job_roots())

    try:
        given = prepare()
        folder = root / f"{kind}s"
        if run:
            catalog.check_within(root, folder)
        wrong = folders.check_uploads(folder, uploads, check, endings)
    except (ClipselError, OSError) as error:
        wrong = str(messages.not_written(error, root))
    if wrong:
        messages.show_error(wrong, "Not started")
    elif jobs.launch(command, arguments, options, title=title, about=root if run else arguments[-1]):
        dialogs.leave()
    else:
        jobs.show_failure()


def _teacher_options(teacher: str) -> dict[str, Option]:
    """What was chosen or typed, as embed takes it. Raises JobError on a path from elsewhere, or without a tag."""
    if teacher == _NO_TEACHER:
        return {}
    if teacher in [folders.short_path(path) for path in folders.teachers()]:
        return {"model": f"local-dir:{folders.inside(teacher)}"}
    model, _, tag = teacher.strip().partition(" ")
    named = []
    for word in filter(None, (model, tag.strip())):
        path = word.removeprefix("local-dir:")
        is_path = path != word or "/" in word or word.endswith((".json", ".pt", ".bin", ".safetensors"))
        if is_path and not word.startswith("hf-hub:"):
            # Made sure to be an allowed one.
            found = folders.inside(path)
            word = f"local-dir:{found}" if found.is_dir() else str(found)
        named.append(word)
    if len(named) < 2 and not (named and named[0].startswith(("local-dir:", "hf-hub:"))):
        expected = "a model and its tag or checkpoint, such as ViT-B-32 openai, or a teacher's folder"
        raise JobError("teacher", expected=expected, found=repr(teacher), remedy="without a tag its weights are random")
    return dict(zip(("model", "pretrained"), named, strict=False))


@dialogs.form("Score a pool", width="medium")
def ask_for_run() -> None:
    """The form of a new run; starts it and closes where nothing is wrong."""
    known = [*(folders.short_path(path) for path in folders.pools()), *folders.pool_addresses()]
    begin = about if (about := dialogs.about()) in known else next(iter(known), None)
    chosen = dialogs.ask_for_choice(
        "Pool", known, "choose one, or type its path or address", key=dialogs.beginning_with(begin, "Pool")
    )
    if not chosen:
        st.caption(f"Pools are looked for in {catalog.data_folder()}; make one of images and captions first.")
        return
    try:
        pool = state.pool_at(Place.of_named(folders.source(chosen)))
        if not pool.archs:
            remedy = "make a pool with a teacher's"
            raise PoolFormatError(pool.root, expected="embeddings", found="none", remedy=remedy)
    except ClipselError as error:
        messages.show_error(error, "This pool cannot be scored")
        return
    messages.show_note(f"{words.pairs(pool.rows)} in {counted(len(pool.shards), 'shards')}")
    key = dialogs.beginning_with(next(iter(pool.archs)), f"Teacher of {pool.root}")
    # One that has gone from the pool is refused when it is started, not exchanged for another.
    archs = list(dict.fromkeys([*pool.archs, st.session_state[key]]))
    arch = st.selectbox("Teacher", archs, key=key, help="Whose embeddings are scored.", **dialogs.STAYS)
    files, uploads = _ask_for_targets(arch)
    recognised = st.container()
    options = _ask_for_numbers(pool, arch)
    wish = f"{pool.root.name}-{arch}"
    name = dialogs.ask_for_name(st, "Name of the run", (pool.root, arch), lambda: folders.free_name(wish))
    if not st.button("Check and start", key="start scoring", **_START):
        with recognised:
            _show_recognised(pool.root.address, arch, files)
        return

    def prepare() -> _Prepared:
        run = folders.new(name)
        paths = [folders.target(text) for text in files]

        def given(kept: list[Place]) -> tuple[list[str | os.PathLike[str]], Mapping[str, Option]]:
            names: list[str] = []
            for file in (*paths, *kept):
                names.append(folders.target_name(str(file), names))
            named = [f"{name}={file}" for name, file in zip(names, [*paths, *kept], strict=True)]
            return [pool.root.address, run], {"arch": arch, **options, "target": named}

        return given

    _start("score", prepare, title=f"Score {name}", looking="Checking pool, targets and options …", uploads=uploads)


def _ask_for_targets(arch: str) -> tuple[list[str], list[tuple[str, bytes]]]:
    """The paths that were chosen or typed; the name and the content of each file that was uploaded."""
    known = [folders.short_path(path) for path in folders.targets()]
    files = st.multiselect(
        "Targets",
        known,
        key=dialogs.key("Targets"),
        accept_new_options=True,
        placeholder=f"none: {CLIP_SCORE.title} and {S_CLIPLOSS.title} only",
        help=f"{_forms_of_target(arch)} {NORMSIM} compares every pair with them.",
        **dialogs.STAYS,
    )
    with st.expander("Upload a target"):
        uploads = st.file_uploader(
            "Target",
            list(folders.TARGET_ENDINGS),
            key=dialogs.key("Target"),
            accept_multiple_files=True,
            label_visibility="collapsed",
        )
    return files, [(upload.name, upload.getvalue()) for upload in uploads or []]


def _forms_of_target(arch: str) -> str:
    return (
        f"Embeddings by {arch}, or their second moment, in a file, a folder or a pattern such as part_*.pt; uids of "
        "the pool; another pool; or pictures: a folder, tars or a parquet, which are embedded first."
    )


def _show_recognised(pool: str, arch: str, typed: Sequence[str]) -> None:
    """Says what each target that was chosen or typed would be taken for, or what is wrong with it.

    It takes seconds, and is called when all fields are drawn: what is typed meanwhile meets what they suggest by then.
    """
    for text in filter(str.strip, typed):
        try:
            path = folders.target(text)
            if isinstance(path, str):
                stamp: tuple[int, ...] = state.version_of(stores.view(path))
            else:
                stamp = tuple(os.stat(file).st_mtime_ns for file in files_at(split_part(path)[0]))
            with st.spinner("Looking at the target …"):
                said, wrong = _recognised(pool, arch, str(path), stamp, tuple(folders.job_roots()))
        except (ClipselError, OSError) as error:
            said, wrong = "", messages.error_text(error)
        if wrong:
            messages.show_error(wrong, "This cannot be a target")
        elif said:
            messages.show_note(f"{folders.target_name(text, ())}: {said}")


@st.cache_data(max_entries=64, show_spinner=False)
def _recognised(pool: str, arch: str, path: str, stamp: tuple[int, ...], may_read: tuple[str, ...]) -> tuple[str, str]:
    """What a path is taken for, and what is wrong with it. stamp: changes where its files do."""
    return control.look("inspect", [pool], {"target": path, "arch": arch}, may_read=may_read)


def _ask_for_numbers(pool: Pool, arch: str) -> dict[str, Option]:
    """tau, B, K and the seed; what is left as it is, is left to the command."""
    tau, own, told = _temperature(pool, arch)
    with st.expander("Temperature, batches, seed, bad rows"):
        left, right = st.columns(2)
        help_text = f"The teacher's: {tau:g} is {told}."
        # Each pool and teacher has its own; what it begins with stays, whatever other runs come and go.
        key = dialogs.beginning_with(tau, f"Temperature of {arch} of {pool.root}")
        shown: dict[str, Any] = {"format": "%.10g", "help": help_text, "key": key}
        chosen = left.number_input("Temperature τ", 0.001, 1.0, step=0.001, **shown, **dialogs.STAYS)
        usual = {"B": _USUAL["batch_size"].default, "K": _USUAL["divisions"].default, "Seed": 0}
        keys = {name: dialogs.beginning_with(value, name) for name, value in usual.items()}
        size = right.number_input("Pairs in a batch, B", 1, None, step=1024, key=keys["B"], **dialogs.STAYS)
        divisions = left.number_input("Random divisions, K", 1, 1000, key=keys["K"], **dialogs.STAYS)
        seed = right.number_input("Seed", 0, None, key=keys["Seed"], **dialogs.STAYS)
        bad_rows = st.selectbox(
            "Rows without a usable embedding",
            list(_BAD_ROWS),
            key=dialogs.key("bad rows"),
            format_func=_BAD_ROWS.__getitem__,
            help="Usable is a row of unit length. Overview says how many were set aside or scaled.",
            **dialogs.STAYS,
        )
    options: dict[str, Option] = {"batch-size": int(size), "divisions": int(divisions), "seed": int(seed)}
    options = {name: value for name, value in options.items() if value != _USUAL[name.replace("-", "_")].default}
    on_bad_rows = bad_rows if bad_rows != _USUAL["on_bad_rows"].default else None
    return {**options, "temperature": chosen if chosen != own else None, "on-bad-rows": on_bad_rows}


def _temperature(pool: Pool, arch: str) -> tuple[float, float, str]:
    """The tau to begin with, the one that the command takes by itself, and whose the first is, in words."""
    teacher, usual = state.noted_teachers(pool.root).get(arch), _USUAL["temperature"].default
    if teacher:
        return teacher.temperature, teacher.temperature, "as the pool knows it of this teacher"
    for entry in catalog.entries():
        try:
            run = state.open_run(entry)
            is_its_own = run.config.arch == arch and run.pool_root.absolute() == pool.root.absolute()
        except ClipselError:
            # Said where it is opened.
            continue
        if is_its_own:
            return run.config.temperature, usual, f"that of {entry.label}, as the pool does not know its teacher's"
    return usual, usual, "OpenAI's; the pool does not know its teacher's"


@dialogs.form("Add a target")
def ask_for_target(run: Run) -> None:
    """The form of a target, whose path is chosen or typed, or whose file is uploaded."""
    messages.show_note(_TARGET)
    known = [folders.short_path(path) for path in folders.targets()]
    chosen = dialogs.ask_for_choice("Path", known, "choose one, or type its path or address")
    uploaded = st.file_uploader("Or upload one", list(folders.TARGET_ENDINGS), key=dialogs.key("upload"))
    st.caption(_forms_of_target(run.config.arch))
    recognised = st.container()
    wish = uploaded.name if uploaded else chosen or ""
    name = dialogs.ask_for_name(
        st, "Name", wish, lambda: folders.target_name(wish, _taken(run)) if wish.strip() else ""
    )
    if not st.button("Compare", type="primary", key="add target", disabled=not wish):
        with recognised:
            _show_recognised(run.pool_address, run.config.arch, [chosen] if chosen and not uploaded else [])
        return
    _start_target(run, name, [(uploaded.name, uploaded.getvalue())] if uploaded else [], wish)


@dialogs.form("More like these")
def ask_for_pairs(run: Run, names: np.ndarray, wish: str) -> None:
    """The form of a target of pairs of the run. names: (M,) their uids. wish: what the target might be called."""
    messages.show_note(f"{words.pairs(len(names))} will be a target. {_TARGET}")
    name = dialogs.ask_for_name(st, "Name", wish, lambda: folders.target_name(wish, _taken(run)))
    if not st.button("Compare", type="primary", key="add target"):
        return
    file = io.BytesIO()
    np.save(file, uids.unique(names), allow_pickle=False)
    _start_target(run, name, [(f"{name}.npy", file.getvalue())])


def _start_target(run: Run, name: str, uploads: list[tuple[str, bytes]], typed: str = "") -> None:
    """Compares the run with an uploaded file, or else the one that was typed, as a job, where nothing is wrong."""

    def prepare() -> _Prepared:
        if not re.fullmatch(NAME_PATTERN, name):
            raise JobError("name", expected="up to 64 letters, digits, - and _", found=repr(name))
        if name in _taken(run):
            raise JobError(name, expected="a new target's name", found="one that the run has", remedy="choose another")
        path = None if uploads else folders.target(typed)
        return lambda kept: ([run.root], {"target": [f"{name}={path or kept[0]}"]})

    title, looking = f"Compare with {name}", "Checking run, target and pool …"
    _start("add-target", prepare, title=title, looking=looking, run=run, uploads=uploads)


@dialogs.form("Add a column")
def ask_for_column(run: Run) -> None:
    """The form of a column, whose values by uid are in a file that is uploaded or typed, or which is computed."""
    messages.show_note(
        "One value a pair becomes a column like the scores: on sliders, in recipes, galleries and colours."
    )
    computed = {name: one.column for name, one in COMPUTED.items() if name not in run.columns}
    kind = st.selectbox(
        "Where its values come from",
        [_FROM_FILE, *computed],
        format_func=lambda name: computed[name].shown if name in computed else name,
        key=dialogs.key("Where its values come from"),
        **dialogs.STAYS,
    )
    if kind in computed:
        messages.show_note(computed[kind].help)
        if st.button("Add", type="primary", key="add column"):
            title = f"Add {computed[kind].shown}"
            _start("add-column", lambda: lambda kept: ([run.root, kind], {}), title=title, looking=_LOOKING, run=run)
        return
    uploaded = st.file_uploader("File", list(folders.COLUMN_ENDINGS), key=dialogs.key("upload"))
    typed = st.text_input("Or its path", key=dialogs.key("Or its path"), **dialogs.STAYS).strip()
    st.caption("A row a pair: its uid, and the value. Texts become kinds. Pairs that have no row have no value.")
    left, right = st.columns(2)
    inner = left.text_input(
        "Column in the file",
        key=dialogs.key("Column in the file"),
        placeholder="the one beside the uids",
        **dialogs.STAYS,
    ).strip()
    wish = uploaded.name if uploaded else typed
    name = dialogs.ask_for_name(
        right, "Name", (wish, inner), lambda: folders.target_name(inner or wish, run.columns) if wish else ""
    )
    better = st.segmented_control(
        "Better values", ["higher", "lower"], key=dialogs.key("Better values"), help="Of numbers; neither where unsaid."
    )
    if not st.button("Add", type="primary", key="add column", disabled=not wish):
        return

    def prepare() -> _Prepared:
        if not re.fullmatch(NAME_PATTERN, name):
            raise JobError("name", expected="up to 64 letters, digits, - and _", found=repr(name))
        path = None if uploaded else folders.source(typed)
        part = f"#{inner}" if inner else ""
        return lambda kept: ([run.root, f"{name}={path or kept[0]}{part}"], {"direction": better})

    uploads = [(uploaded.name, uploaded.getvalue())] if uploaded else []
    _start("add-column", prepare, title=f"Add {name}", looking=_LOOKING, run=run, uploads=uploads)


def _taken(run: Run) -> set[str]:
    """Names of the run's targets, and of those that are being added or were begun."""
    return {target.name for target in run.targets} | set((run.root / "added").folders())


def ask_for_map(run: Run) -> None:
    """A note that there is no map yet, with the button that makes one; nothing while one is being made."""
    if jobs.at_work("project", run.root):
        return

    def make() -> None:
        sample = st.session_state["map sample"]
        jobs.launch("project", [run.root], {"sample": sample}, title=f"Map of {words.pairs(sample)}", about=run.root)

    with st.container(border=True):
        st.markdown("**No map yet**")
        st.caption("It lays similar images beside each other, so that whole regions can be looked at and chosen.")
        if not may_be_held(run.root):
            messages.show_note(_ONLY_READ)
        elif run.pairs:
            with st.container(horizontal=True, vertical_alignment="bottom"):
                most = min(run.pairs, _MOST_ON_MAP)
                st.number_input("Pairs on it", 1, most, min(SAMPLE, most), key="map sample", width=170)
                st.button("Make a map", type="primary", icon=":material/map:", on_click=make)
        with st.expander("From the command line"):
            st.code(messages.command("project", run.root), language="bash", wrap_lines=True)
