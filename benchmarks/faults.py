"""Does a run stay right whatever happens to it? Commands are killed, files damaged and system calls fail, by a seed.

    python -m benchmarks.faults --kills 60 --damage 100 --syscalls 50
    python -m benchmarks.faults --seed 3 --only damage:17    # one case again

A small pool, run, subset and export are made once. Each case then begins with a copy, and has to end with the same
bytes, or to be refused in one line with exit code 1. The commands run in processes that are forked off one which has
imported everything: starting Python for each would take most of the time.
"""

from __future__ import annotations

import argparse
import builtins
import errno
import importlib
import io
import json
import mmap
import multiprocessing
import os
import pkgutil
import random
import re
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import clipsel_core
from benchmarks.table import Row, markdown
from clipsel_core.curation.index.index import open_indexed, wait_until_kept
from clipsel_core.runs.store import Run
from tests.conftest import unit_rows
from tests.pool.pictures import write_tars, write_teacher

_SCORE = [
    "score",
    "pool",
    "run",
    "--target",
    "task=../given/task.npy",
    "--batch-size",
    "16",
    "--divisions",
    "2",
    "--device",
    "cpu",
]
_COMMANDS = {
    "embed": [
        "embed",
        "../given/tars",
        "pool",
        "--model",
        "local-dir:../given/teacher",
        "--arch",
        "tiny",
        "--shard-size",
        "16",
        "--pack",
        "--workers",
        "1",
        "--device",
        "cpu",
        "--precision",
        "float32",
    ],
    "score": _SCORE,
    "add-target": ["add-target", "run", "--target", "more=../given/more.npy", "--device", "cpu"],
    "index": [],
    "select": ["select", "run", "--recipe", "../given/recipe.yaml", "--out", "run/exports/subset.npy"],
    "export": [
        "export",
        "run",
        "--recipe",
        "../given/recipe.yaml",
        "--shards",
        "tars",
        "--pairs-per-shard",
        "5",
        "--scores",
    ],
}
_RECIPE = "steps: [{metric: s_cliploss, keep_top: 0.6}, {metric: normsim_2_more, keep_top: 0.4}]\n"
# Embedding starts processes that import torch: it takes a hundred times as long as the others.
_SHARES = {"embed": 1, "score": 4, "add-target": 4, "index": 2, "select": 3, "export": 4}
_ASIDE = re.compile(r"(^|/)(\.[^/]*\.partial|\.images-\w*)(/|$)")
_CHANGING = re.compile(r"(^|/)(\.lock|status\.json)$")
_OUTCOME = re.compile(rb',\s*"outcome": \{[^}]*\}')
_PROGRESS = re.compile(r".*: \d+ %( \(.*\))?$")
_ERRORS = {
    "open": ("EACCES", "EMFILE", "EIO", "ENOSPC"),
    "os.open": ("EACCES", "EMFILE", "EIO", "ENOSPC"),
    "os.mkdir": ("EACCES", "ENOSPC"),
    "os.replace": ("EACCES", "EIO", "ENOSPC"),
    "os.fsync": ("EIO", "ENOSPC"),
    "os.write": ("EIO", "ENOSPC"),
    "os.pread": ("EIO",),
    "os.preadv": ("EIO",),
    "os.listdir": ("EACCES", "EIO", "EMFILE"),
    "os.scandir": ("EACCES", "EIO", "EMFILE"),
    "mmap.mmap": ("ENOMEM", "EACCES"),
}
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Fault:
    """What goes wrong in a process. call: a name in _ERRORS, at its number-th call below the folder; "size" and "files"
    are limits of the system: of a file in bytes, and of files open at once. error: None where the process is killed.
    lasting: also at all later calls.
    """

    call: str
    number: int
    error: str | None = None
    lasting: bool = False

    def __str__(self) -> str:
        if self.call in ("size", "files"):
            return f"{self.error or 'killed'} at a limit of {self.call} {self.number}"
        return f"{self.error or 'SIGKILL'} at call {self.number} of {self.call}{' and after' * self.lasting}"


class Ended(NamedTuple):
    """How a process ended. code: its exit code, negative for a signal. said: what it wrote on both outputs."""

    code: int
    said: str
    elapsed_s: float

    @property
    def lines(self) -> list[str]:
        """What was said, but for how far the work was."""
        return [line for line in self.said.splitlines() if line and not _PROGRESS.fullmatch(line)]

    def no_refusal(self, usual: Sequence[str]) -> str:
        """Why this is not a refusal in one line with exit code 1; nothing where it is. usual: lines said beside it."""
        lines = [line for line in self.lines if line not in usual]
        if self.code == 1 and len(lines) == 1 and ": expected " in lines[0]:
            return ""
        return f"exit code {self.code}: {self.said[-1500:]}"


class World:
    """A folder with what the commands take, `given`, and a state before and after each of them."""

    def __init__(self, root: Path) -> None:
        self.root, self.case = root, root / "case"
        self.seconds: dict[str, float] = {}
        self.usual: dict[str, list[str]] = {}
        self.calls: dict[str, dict[str, int]] = {}
        self.after: dict[str, dict[str, bytes]] = {}
        _well(self.fork(_give, root / "given"))
        self.case.mkdir()
        for name in _COMMANDS:
            shutil.copytree(self.case, root / f"before-{name}")
            ended = _well(self.start(name, counts=root / "counts.json"))
            self.seconds[name], self.usual[name], self.after[name] = ended.elapsed_s, ended.lines, tree(self.case)
            self.calls[name] = json.loads((root / "counts.json").read_bytes())
        shutil.copytree(self.case, root / "finished")

    def begin(self, state: str) -> None:
        """Has the case begin with a state: before-COMMAND, or finished."""
        shutil.rmtree(self.case)
        shutil.copytree(self.root / state, self.case)

    def start(self, name: str, fault: Fault | None = None, kill_after: float | None = None, **more: Any) -> Ended:
        """Runs a command in the case's folder. kill_after: SIGKILL after so many seconds."""
        return self.fork(_run, self.case, name, fault, kill_after=kill_after, **more)

    def fork(self, work: Callable[..., object], *arguments: Any, kill_after: float | None = None, **more: Any) -> Ended:
        """Runs a function in a process of its own, and waits until no process that it started is left."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        process = multiprocessing.get_context("fork").Process(
            target=_alone, args=(writing, self.root, work, arguments, more)
        )
        start = time.monotonic()
        process.start()
        os.close(writing)
        process.join(_PATIENCE_S if kill_after is None else kill_after)
        if process.is_alive():
            process.kill()
            process.join()
        elapsed = time.monotonic() - start
        assert process.pid is not None
        assert process.exitcode is not None
        while _group_lives(process.pid):
            if time.monotonic() - start > elapsed + _PATIENCE_S:
                raise RuntimeError(f"processes of {arguments} live on")
            time.sleep(0.02)
        with open(reading, "rb") as pipe:
            said = (pipe.read() or b"").decode()
        return Ended(process.exitcode, said, elapsed)

    def size(self, name: str, draw: random.Random) -> int:
        """Fewer bytes than a file has that a command writes."""
        before = tree(self.root / f"before-{name}")
        sizes = [len(content) for path, content in self.after[name].items() if path not in before]
        return draw.randrange(draw.choice(sizes))

    def unlike(self, name: str) -> str:
        """What in the case's folder is not as after an undisturbed command; nothing where all is."""
        found, expected = tree(self.case), self.after[name]
        differs = sorted(path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path))
        return ", ".join(_told(path, found, expected) for path in differs)

    def half_written(self, name: str) -> str:
        """Files under their final names that are neither as they will be nor whole JSON; nothing where all are."""
        expected = self.after[name]
        return ", ".join(
            path
            for path, content in tree(self.case).items()
            if not _ASIDE.search(path) and content != expected.get(path) and not _is_json(path, content)
        )


def kill(world: World, draw: random.Random) -> tuple[str, str]:
    """A command is killed and started again. Returns what was done, and what is wrong, nothing where all is well."""
    name = _drawn(draw)
    world.begin(f"before-{name}")
    calls = {call: count for call, count in world.calls[name].items() if count}
    how = draw.choice(["after a time", "at a call", "within a write"])
    if how != "after a time" and calls:
        call = draw.choice(sorted(calls))
        fault = (
            Fault(call, draw.randint(1, calls[call])) if how == "at a call" else Fault("size", world.size(name, draw))
        )
        what = f"{name}, {fault}"
        world.start(name, fault)
    else:
        share = draw.random()
        what = f"{name}, SIGKILL after {share:.0%} of its time"
        world.start(name, kill_after=share * world.seconds[name])
    if wrong := world.half_written(name):
        return what, f"half written: {wrong}"
    return what, _goes_on(world, name)


def fail(world: World, draw: random.Random) -> tuple[str, str]:
    """A system call of a command fails, then it is started again."""
    name = draw.choice([name for name in _drawn_from() if name != "index"])
    calls = {call: count for call, count in world.calls[name].items() if count}
    call = draw.choice([*sorted(calls), "size", "files"])
    if call == "size":
        fault = Fault(call, world.size(name, draw), "EFBIG")
    elif call == "files":
        fault = Fault(call, draw.randint(0, 12), "EMFILE")
    else:
        fault = Fault(call, draw.randint(1, calls[call]), draw.choice(_ERRORS[call]), draw.random() < 0.5)
    world.begin(f"before-{name}")
    ended = world.start(name, fault)
    what = f"{name}, {fault}: exit code {ended.code}"
    if ended.code == 0 and (wrong := world.unlike(name)):
        return what, f"exit code 0, but: {wrong}"
    if ended.code and (wrong := ended.no_refusal(world.usual[name])):
        return what, wrong
    if wrong := world.half_written(name):
        return what, f"half written: {wrong}"
    return what, _goes_on(world, name)


def damage(world: World, draw: random.Random) -> tuple[str, str]:
    """A file of a finished run or of its pool is damaged; select, verify and score are asked."""
    world.begin("finished")
    of = draw.choice(["run/scores", "run", "run", "pool"])
    files = sorted(path for path in (world.case / of).rglob("*") if path.is_file() and not _CHANGING.search(str(path)))
    file = draw.choice(files)
    kind = draw.choice(sorted(_DAMAGES))
    if kind == "rows":
        file = draw.choice([path for path in files if path.suffix == ".parquet"])
    path = file.relative_to(world.case).as_posix()
    others = [each for each in files if each.suffix == file.suffix and each != file]
    if kind == "exchange":
        other = draw.choice(others or [each for each in files if each != file])
        what = f"{path} exchanged with {other.relative_to(world.case)}"
        first, second = file.read_bytes(), other.read_bytes()
        file.write_bytes(second)
        other.write_bytes(first)
    else:
        what = f"{path}: {kind}"
        seed = draw.randrange(1 << 32)
        _well(world.fork(_DAMAGES[kind], file, random.Random(seed)))
    return what, _after_damage(world, path)


def _after_damage(world: World, path: str) -> str:
    damaged, finished = tree(world.case), world.after["export"]
    subset = world.case / "subset.npy"
    ended = world.start("select", words=[*_COMMANDS["select"][:-1], "../case/subset.npy"])
    if ended.code == 0 and subset.read_bytes() != finished["run/exports/subset.npy"]:
        return f"another selection: {ended.said}"
    if ended.code and (wrong := ended.no_refusal(world.usual["select"])):
        return f"select: {wrong}"
    if ended.code and subset.exists():
        return "select: a file though it was refused"
    ended = world.start("verify", words=["verify", "run"])
    if "Traceback" in ended.said or ended.code not in (0, 1):
        return f"verify: exit code {ended.code}: {ended.said[-1500:]}"
    changed = damaged != finished
    if ended.code == 0 and changed and path.startswith(("run/scores/", "run/added/")) and path.endswith(".parquet"):
        same = world.fork(_same_values, world.case, world.root / "finished")
        if same.code:
            return f"verify finds nothing: {same.said}"
    if ended.code == 0 and changed and path == "run/exports/subset.npy":
        return "verify finds nothing"
    # A shard is scored again: by the pool that was scored, or not at all.
    if path.startswith("pool/"):
        (world.case / "run" / "scores" / "00000001.parquet").unlink()
    ended = world.start("score")
    if ended.code and (wrong := ended.no_refusal(world.usual["score"])):
        return f"score: {wrong}"
    found = tree(world.case)
    other = [each for each in finished if each.startswith("run/scores/") and finished[each] != found.get(each)]
    if ended.code == 0 and other and world.fork(_same_values, world.case, world.root / "finished").code:
        return f"score: other scores: {', '.join(other)}"
    return ""


def _goes_on(world: World, name: str) -> str:
    ended = world.start(name)
    if ended.code:
        return f"started again, it ends with exit code {ended.code}: {ended.said[-1500:]}"
    wrong = world.unlike(name)
    return f"started again: {wrong}" if wrong else ""


def tree(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder, by its path; without locks and what tells times."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    found = {name: path.read_bytes() for name, path in sorted(files.items()) if not _CHANGING.search(name)}
    return {name: _OUTCOME.sub(b"", data) if name.endswith("run.json") else data for name, data in found.items()}


def _drawn_from() -> list[str]:
    return [name for name, share in _SHARES.items() for _ in range(share)]


def _drawn(draw: random.Random) -> str:
    return draw.choice(_drawn_from())


def _told(path: str, found: dict[str, bytes], expected: dict[str, bytes]) -> str:
    return f"{path} ({'is there' if path not in expected else 'is absent' if path not in found else 'other bytes'})"


def _is_json(path: str, content: bytes) -> bool:
    if not path.endswith((".json", "/__len__")):
        return False
    with suppress(ValueError):
        json.loads(content)
        return True
    return False


def _well(ended: Ended) -> Ended:
    if ended.code:
        raise RuntimeError(f"exit code {ended.code}: {ended.said}")
    return ended


def _group_lives(group: int) -> bool:
    """Whether a process of a group is there that has not ended."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


# What the processes do.


def _alone(out: int, root: Path, work: Callable[..., object], arguments: tuple[Any, ...], more: dict[str, Any]) -> None:
    os.setpgid(0, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ["XDG_STATE_HOME"] = os.environ["XDG_CACHE_HOME"] = str(root / "home")
    work(*arguments, **more)


def _give(given: Path) -> None:
    write_tars(given / "tars", (17, 14, 13))
    write_teacher(given / "teacher", 1)
    np.save(given / "task.npy", unit_rows(20, 16, 5))
    np.save(given / "more.npy", unit_rows(6, 16, 6))
    (given / "recipe.yaml").write_text(_RECIPE)


def _run(
    folder: Path, name: str, fault: Fault | None, *, counts: Path | None = None, words: Sequence[str] | None = None
) -> None:
    os.chdir(folder)
    sys.argv = ["clipsel", *(words or _COMMANDS[name])]
    seen = _watch_calls(folder.parent, fault) if fault or counts else {}
    try:
        if name == "index":
            open_indexed(Run.open("run"), 0)
            wait_until_kept()
        else:
            runpy.run_module("clipsel_core", run_name="__main__", alter_sys=True)
    finally:
        if counts:
            counts.write_text(json.dumps(seen))


def _watch_calls(root: Path, fault: Fault | None) -> dict[str, int]:
    """Counts the calls of _ERRORS below a folder, and has those of a fault fail."""
    seen, guard = dict.fromkeys(_ERRORS, 0), threading.Lock()
    if fault and fault.call in ("size", "files"):
        limit = resource.RLIMIT_FSIZE if fault.call == "size" else resource.RLIMIT_NOFILE
        number = fault.number + (len(os.listdir("/proc/self/fd")) if fault.call == "files" else 0)
        resource.setrlimit(limit, (number, resource.getrlimit(limit)[1]))
        if fault.error is None:  # The system ends the process in the midst of the write.
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        return seen
    inside = f"{root.resolve()}/"

    def count(call: str, place: Any) -> None:
        with suppress(OSError, TypeError):
            path = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else os.path.abspath(place)
            if not path.startswith(inside):
                return
            with guard:
                seen[call] += 1
                number = seen[call]
            if fault and fault.call == call and (number == fault.number or (fault.lasting and number > fault.number)):
                if fault.error is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                failed[threading.get_ident()] = getattr(errno, fault.error or "")

    failed: dict[int, int] = {}

    def patched(call: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def patch(*arguments: Any, **options: Any) -> Any:
            place = arguments[0] if arguments else "."
            count(call, place)
            if number := failed.pop(threading.get_ident(), 0):
                raise OSError(number, os.strerror(number), *([] if isinstance(place, int) else [str(place)]))
            return original(*arguments, **options)

        return patch

    for call in _ERRORS:
        if call.startswith("os."):
            setattr(os, call[3:], patched(call, getattr(os, call[3:])))
    io.open = builtins.open = patched("open", open)  # type: ignore[assignment]
    mmap.mmap = patched("mmap.mmap", mmap.mmap)  # type: ignore[assignment,misc]
    return seen


def _same_values(case: Path, finished: Path) -> None:
    """Exits with 1 where a file of scores has other values, or other words of its own, than in the finished run."""
    for folder in ("run/scores", "run/added/more"):
        for file in sorted((finished / folder).glob("*.parquet")):
            now, before = pq.read_table(case / folder / file.name), pq.read_table(file)
            if not now.equals(before, check_metadata=True):
                sys.exit(f"{folder}/{file.name} has other values")


def _flip(file: Path, draw: random.Random) -> None:
    data = bytearray(file.read_bytes())
    bit = draw.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def _truncate(file: Path, draw: random.Random) -> None:
    os.truncate(file, draw.randrange(file.stat().st_size))


def _zero(file: Path, draw: random.Random) -> None:
    data = bytearray(file.read_bytes())
    start = draw.randrange(len(data))
    stop = min(len(data), start + draw.choice([4, 64, 512, 4096]))
    data[start:stop] = bytes(stop - start)
    file.write_bytes(data)


def _empty(file: Path, draw: random.Random) -> None:
    file.write_bytes(b"")


def _remove(file: Path, draw: random.Random) -> None:
    file.unlink()


def _reorder(file: Path, draw: random.Random) -> None:
    table = pq.read_table(file)
    order = list(range(table.num_rows))
    draw.shuffle(order)
    pq.write_table(table.take(pa.array(order, pa.int64())), file)


_DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "a bit flipped": _flip,
    "cut short": _truncate,
    "a block of zeros": _zero,
    "emptied": _empty,
    "removed": _remove,
    "rows": _reorder,
    "exchange": _remove,
}
_KINDS = {"kills": kill, "damage": damage, "syscalls": fail}


def _import_everything() -> None:
    for module in pkgutil.walk_packages(clipsel_core.__path__, "clipsel_core."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def main() -> None:
    """Does what the command line asks for; exit code 1 where something was not as promised."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__.split("\n")[0])
    for kind in _KINDS:
        parser.add_argument(f"--{kind}", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], metavar="KIND:NUMBER", help="one case again")
    asked = parser.parse_args()
    cases = [tuple(case.split(":")) for case in asked.only]
    cases = cases or [(kind, str(number)) for kind in _KINDS for number in range(getattr(asked, kind))]
    _import_everything()
    rows, wrong = [], []
    with tempfile.TemporaryDirectory(prefix="clipsel-faults-") as folder:
        start = time.monotonic()
        world = World(Path(folder))
        rows.append(Row("undisturbed", f"{time.monotonic() - start:.0f} s"))
        for kind in dict.fromkeys(kind for kind, _ in cases):
            start, numbers = time.monotonic(), [number for each, number in cases if each == kind]
            bad = 0
            for number in numbers:
                what, found = _KINDS[kind](world, random.Random(f"{asked.seed}/{kind}/{number}"))
                bad += bool(found)
                if found:
                    print(f"--seed {asked.seed} --only {kind}:{number}  {what}\n    {found}", flush=True)
                elif asked.only:
                    print(f"{kind}:{number}  {what}: as promised", flush=True)
            said = f"{len(numbers) - bad:,} of {len(numbers):,} as promised, {time.monotonic() - start:.0f} s"
            rows.append(Row(kind, said, "all", not bad))
            wrong.append(bad)
    print(markdown(rows))
    sys.exit(1 if any(wrong) else 0)


if __name__ == "__main__":
    main()
