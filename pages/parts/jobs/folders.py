"""Which folders and addresses may jobs read from and write to, and what of use lies in them?

Read: the data folder, the folders and addresses that the server was told of with --read, the runs on show and their
pools, and in a store the folder that a named run lies in. Written to: the data folder, where new pools, runs and
uploaded targets go, and the runs on show.

A browser must not be able to send the server anywhere: to a machine beside it that trusts it, or to an archive or cache
on its own disk. So an address that could be read in two ways is refused.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from clipsel_core import reach
from clipsel_core.errors import ClipselError, JobError
from clipsel_core.files import is_hidden
from clipsel_core.jobs.control import ADDRESS
from clipsel_core.places import Place, protocol_of
from clipsel_core.pool.conventions import IMAGE_ENDINGS
from clipsel_core.pool.target_files import files_at, split_part
from clipsel_core.runs.store import Run
from pages.parts import catalog, stores

COLUMN_ENDINGS = ("csv", "tsv", "parquet", "npy", "npz")
TARGET_ENDINGS = ("npy", "npz", "pt", "pth", "parquet")
PICTURE_ENDINGS = tuple(ending.removeprefix(".") for ending in IMAGE_ENDINGS)

# Chains, questions, patterns, and whatever is no plain character.
_TWO_READINGS = re.compile(r"::|[?#@*\[\]{}]|[^\x21-\x7e]")
# What upload_file makes of a name, and what a run calls embeddings that it made of a target's pictures.
_UPLOADED = re.compile(r"-[0-9a-f]{12}(_rejected)?$")
# What stands for several names in a pattern.
_SIGNS = re.compile(r"\{[^{}]*\}|\[[^]]*\]|[*?]")
_DEPTHS = ("*", "*/*", "*/*/*")
_SOURCES = {".tar", ".csv", ".tsv", ".jsonl", ".parquet"}
_MOST_LISTED = 200
_MOST_NAMED = 3


def roots() -> list[Path]:
    """The folders that may be read, each once, with all that lies in them."""
    shown = [Path(entry.root) for entry in catalog.entries() if not entry.root.remote]
    found = [catalog.data_folder(), *catalog.readable_folders(), *shown]
    for root in shown:
        with suppress(ClipselError):  # Said where it is opened.
            run = Run.open(root)
            if run.pool_root.remote:
                continue  # read where --read names it
            pool = Path(run.pool_address)
            # Whatever else a run names as its pool is not opened to browsers by that.
            if next((pool / "metadata").glob("[!.]*.parquet"), None):
                found.append(pool)
    return list(dict.fromkeys(path.resolve() for path in found))


def job_roots() -> list[str]:
    """The folders, and the addresses, that may be read."""
    return [*map(str, roots()), *catalog.named_addresses()]


def inside(text: str) -> Path:
    """The path that somebody chose or typed; one that is not absolute is counted from the data folder.

    Raises: JobError where it is blank, lies outside the folders that may be read, by way of a link too, or does not
        exist.
    """
    return _inside(text, lambda path: (Path(path), ""), lambda path: [path] if path.exists() else [])[0]


def _inside(
    text: str, split: Callable[[str], tuple[os.PathLike[str], str]], found: Callable[[Path], Sequence[os.PathLike[str]]]
) -> tuple[Path, str]:
    """As `inside`. split: from what was typed to the path in it and what stands behind. found: what is at a path."""
    if not text.strip():
        raise JobError("path", expected="a file or a folder", found="blanks" if text else "none")
    allowed = roots()
    try:
        file, part = split(os.path.join(catalog.data_folder(), os.path.expanduser(text.strip())))
        path = Path(os.path.abspath(file))
        there = found(path) if _lies_in(allowed, path) else []
        is_allowed = _lies_in(allowed, path, *map(Path, there))
    except (OSError, RuntimeError, ValueError) as error:  # too long, the home of nobody, a zero byte
        raise JobError("path", expected="a file or a folder", found=f"{text[:200]!r}: {error}"[:300]) from error
    if not is_allowed:
        # Those that lie in none of the others.
        widest = [root for root in allowed if not any(root != one and root.is_relative_to(one) for one in allowed)]
        named, more = ", ".join(map(str, widest[:_MOST_NAMED])), len(widest) - _MOST_NAMED
        named = named if more <= 0 else f"{named} or {more} more {'folder' if more == 1 else 'folders'}"
        remedy = "start the dashboard with --read FOLDER to allow another"
        raise JobError(path, expected=f"a path inside {named}", found="another", remedy=remedy)
    if not there:
        raise JobError(path, expected="a file or a folder", found="nothing")
    return path, part


def source(text: str) -> Path | str:
    """What is to be read: a path as `inside` gives it, or an address below an allowed one.

    Raises: JobError on what is refused.
    """
    return _address(text) if "::" in text or ADDRESS.match(text.strip()) else inside(text)


def _address(text: str) -> str:
    address, known = text.strip(), catalog.named_addresses()
    if not _TWO_READINGS.search(address) and reach.make_filter(known)(address):
        return address
    expected = f"an address below {', '.join(known)}" if known else "a path: no address is allowed here"
    remedy = "start the dashboard with --read ADDRESS to allow what lies below it, or start the command in a terminal"
    raise JobError(address, expected=expected, found="another", remedy=remedy)


def target(text: str) -> Path | str:
    """A target's file, folder or pattern that somebody chose or typed, with the #MEMBER behind it if there is one.

    Or an address, as `source` gives it. Raises: JobError as these, also where one of a pattern's files lies outside.
    """
    if ADDRESS.match(text.strip()):
        return _address(text)
    file, part = _inside(text, split_part, files_at)
    return Path(f"{file}#{part}") if part else file


def short_path(path: Path) -> str:
    """How people read and type a path: from the data folder on where it lies in it."""
    data = catalog.data_folder().resolve()
    return path.resolve().relative_to(data).as_posix() if path.resolve().is_relative_to(data) else str(path)


def pool_to_make(name: str) -> Path:
    """The folder of a pool that embed is to make, or one that is there: another teacher goes into the same one.

    Raises: JobError on no name, or a folder that holds something else.
    """
    folder = catalog.data_folder().absolute() / name
    there = catalog.NAME.fullmatch(name) and next((folder / "metadata").glob("[!.]*.parquet"), None)
    begun = catalog.NAME.fullmatch(name) and (folder / "embed" / "settings.json").is_file()
    return folder if there or begun else new(name)


def new(name: str) -> Path:
    """The folder of a new pool or run in the data folder. Raises JobError on no name, or one that is taken."""
    if not catalog.NAME.fullmatch(name):
        expected = "a name of up to 64 letters, digits, - and _"
        raise JobError("name", expected=expected, found=repr(name) if name else "none")
    folder = catalog.data_folder().absolute() / name
    if folder.exists() and any(folder.iterdir()):
        raise JobError(folder, expected="a new folder", found="one with files in it", remedy="choose another name")
    return folder


def free_name(wish: str) -> str:
    """A name for a new folder that is not taken: the wish as far as it makes a name, and a number if need be."""
    stem = _named(wish, "new")
    taken = (number for number in range(2, 1000) if not (catalog.data_folder() / f"{stem}-{number}").exists())
    return stem if not (catalog.data_folder() / stem).exists() else f"{stem}-{next(taken)}"


def target_name(file: str, taken: Iterable[str]) -> str:
    """The name of a target read from a file or a pattern of this name; one that no other has."""
    stem, known = _named(_SIGNS.sub("", Path(file).stem), "target"), set(taken)
    return next(name for name in (stem, *(f"{stem}-{number}" for number in range(2, 1000))) if name not in known)


def pools() -> list[Path]:
    """The pools that lie in the folders that may be read."""
    return [folder.parent for folder in _found("metadata") if next(folder.glob("[!.]*.parquet"), None)]


def pool_addresses() -> list[str]:
    """The pools in stores that are at hand: those of the runs on show, and those that were named with --read."""
    found = [address for address in catalog.readable_addresses() if _is_pool(address)]
    for entry in catalog.entries():
        with suppress(ClipselError):  # Said where it is opened.
            run = Run.open(entry.root, catalog.named_places())
            if protocol_of(run.pool_address) and run.may_read_pool:
                found.append(run.pool_address)
    return list(dict.fromkeys(address.rstrip("/") for address in found))


def _is_pool(address: str) -> bool:
    with suppress(ClipselError):
        return stores.known_version(stores.view(address) / "metadata") > stores.ABSENT
    return False


def targets() -> list[Path]:
    """Files in folders named target or targets, which may be targets, and folders in these.

    Of the files that were uploaded only those that a run was compared with: the others were refused or given up.
    """
    folders = [*_found("target"), *_found("targets")]
    files = {
        file
        for folder in folders
        for file in folder.glob("[!.]*")
        if file.suffix.lower().removeprefix(".") in TARGET_ENDINGS or file.is_dir()
    }
    runs = [Path(entry.root) for entry in catalog.entries() if not entry.root.remote]
    kept_in = {(root / "targets").resolve() for root in (catalog.data_folder(), *runs)}
    uploaded = {file for file in files if _UPLOADED.search(file.stem) and file.parent.resolve() in kept_in}
    used = set()
    for root in runs if uploaded else []:
        with suppress(ClipselError):
            used |= {Path(split_part(root / target.path)[0]).resolve() for target in Run.open(root).targets}
    return sorted(file for file in files if file not in uploaded or file.resolve() in used)[:_MOST_LISTED]


def sources() -> list[Path]:
    """Folders and files that may be sources of pools: all that is neither hidden nor a part of a pool or a run."""
    known = [*pools(), *(Path(entry.root) for entry in catalog.entries() if not entry.root.remote)]
    wanted = (
        path
        for root in roots()
        for depth in _DEPTHS[:2]
        for path in sorted(root.glob(depth))
        if (path.is_dir() or path.suffix.lower() in _SOURCES)
        and not is_hidden(path.relative_to(root).as_posix())
        and not any(path.is_relative_to(other) or other.is_relative_to(path) for other in known)
    )
    return [path for _, path in zip(range(_MOST_LISTED), wanted, strict=False)]


def teachers() -> list[Path]:
    """Folders that hold a teacher as open_clip saves one."""
    return sorted({file.parent for file in _found("open_clip_config.json")})


def check_uploads(
    folder: Path | Place,
    uploads: Iterable[tuple[str, bytes]],
    check: Callable[[list[Place]], str],
    endings: Collection[str] = TARGET_ENDINGS,
) -> str:
    """Keeps uploaded files in a folder, see upload_file, where a job accepts them.

    uploads: the name and the content of each. endings: those that their names may have. check: from where they lie, in
    order, to what is wrong, "" for nothing.
    Returns: what is wrong. Where that is something, or something is raised, no new file stays for other jobs to read.
    Raises: JobError on another ending, OSError, and what check raises.
    """
    files, written, wrong = list[Place](), list[Place](), "not looked at yet"
    try:
        for name, content in uploads:
            file = upload_file(folder, name, content, endings)
            files.append(file)
            if not file.exists():
                written.append(file)
                write_upload(file, content)
        wrong = check(files)
    finally:
        for file in written if wrong else []:
            file.remove()
    return wrong


def upload_file(folder: Path | Place, name: str, content: bytes, endings: Collection[str] = TARGET_ENDINGS) -> Place:
    """Where an uploaded file is kept: under a name of our own; the same content is kept once.

    folder: where, here or in a store. name: the user's file name; only its ending and its harmless characters are used.
    Raises: JobError on another ending than these.
    """
    ending = Path(name).suffix.lower().removeprefix(".")
    if ending not in endings:
        raise JobError(name, expected=f"a name ending in {', '.join(endings)}", found=ending or "no ending")
    safe = f"{_named(Path(name).stem, 'upload')}-{hashlib.sha256(content).hexdigest()[:12]}.{ending}"
    return Place.of_named(folder) / safe


def write_upload(file: Place, content: bytes) -> None:
    """Writes an uploaded file where upload_file says, once."""
    if not file.exists():
        file.write_bytes(content)


def _lies_in(roots: Iterable[Path], *paths: Path) -> bool:
    return all(any(path.resolve().is_relative_to(root) for root in roots) for path in paths)


def _found(name: str) -> list[Path]:
    """Everything of this name a little below the folders that may be read, and still inside them."""
    found: dict[Path, Path] = {}
    for root in roots():
        for path in (root / name, *(path for depth in _DEPTHS for path in sorted(root.glob(f"{depth}/{name}")))):
            hidden = is_hidden(path.relative_to(root).as_posix())
            if not hidden and path.exists() and path.resolve().is_relative_to(root):
                found.setdefault(path.resolve(), path)
    return list(found.values())


def _named(wish: str, fallback: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "-", wish).strip("-_")[:40] or fallback
