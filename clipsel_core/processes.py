"""How do other processes do part of our work, and how does one that fails say so in one line?"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import platform
import signal
import site
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib.metadata import version
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from threading import Lock, Thread
from types import ModuleType
from typing import Any, NamedTuple, Self, TypeVar

import clipsel_core
from clipsel_core import errors
from clipsel_core.errors import ClipselError, LostWorkerError, WorkerError
from clipsel_core.tasks import Report

Result = TypeVar("Result")

_SECONDS_BETWEEN_WORDS = 0.3
_FOR_IMPORTS = ("PYTHONPATH", "PYTHONSAFEPATH")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def module_command(module: str, *words: object) -> list[str]:
    """The words that start one of our own modules as a process; it is to be given `child_environment()`.

    It begins in the current folder, so that relative paths mean the same to it. -P keeps what lies there from being
    imported: somebody's queue.py would be taken for the library's.
    """
    return [sys.executable, "-P", "-m", module, *map(str, words)]


def birth_of(pid: int) -> str | None:
    """When a process began, in words that no other process of this machine ever shares with this pid.

    None where there is no such process, or it has ended and only waits to be asked how.
    """
    if _BOOT.exists():
        try:
            # The name in brackets may hold anything; what follows it is state, ..., and the ticks at the 20th place.
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else f"{_BOOT.read_text().strip()} {fields[19]}"
    asked = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    state, _, began = subprocess.run(asked, capture_output=True, text=True).stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else " ".join(began.split())


def versions() -> dict[str, str]:
    """What decides a result's last digits beside the arithmetic: the versions of what computes."""
    installed = {name: version(name) for name in ("torch", "numpy", "pyarrow")}
    return {"clipsel": clipsel_core.__version__, "python": platform.python_version(), **installed}


def child_environment() -> dict[str, str]:
    """This process's environment, in which another process of this Python finds this package.

    What is installed is found by itself. Its folder is not named all the same: what PYTHONPATH names comes before the
    standard library, and among installed packages are some that are called as modules of that are.
    """
    folder = str(Path(clipsel_core.__file__).parents[1])
    before = os.environ.get("PYTHONPATH", "")
    if folder in site.getsitepackages() or folder in before.split(os.pathsep):
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (folder, before)))}


def ending(status: int) -> str:
    """How a process ended, for people, by its exit status as Python gives it: negative where a signal ended it.

    >>> ending(3), ending(-9)
    ('with exit status 3', 'by SIGKILL')
    """
    if status >= 0:
        return f"with exit status {status}"
    with suppress(ValueError):
        return f"by {signal.Signals(-status).name}"
    return f"by signal {-status}"


@contextmanager
def as_worker_error(where: object, expected: str) -> Iterator[None]:
    """What goes wrong within becomes a WorkerError, if it is no error of ours already and none of a file or a disk.

    For what is done in another process: its traceback is no use to people. It goes along as a note, for --debug.
    """
    try:
        yield
    except (ClipselError, OSError):
        raise
    except Exception as error:
        said = str(error).split("\n")[0]
        found = f"{type(error).__name__}: {said}" if said else type(error).__name__
        failure = WorkerError(where, expected=expected, found=found, remedy="start it with --debug to see where")
        failure.add_note(traceback.format_exc())
        raise failure from error


def server_context(preload: Sequence[str]) -> ForkServerContext:
    """A context of multiprocessing whose processes start in milliseconds, from a server that has imported `preload`.

    There is one server, which imports what is asked for first. Nothing of the current folder is imported there.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    with _start:
        before = dict(os.environ)
        # The server's command is multiprocessing's own: only the environment can say what it may import.
        os.environ.update(child_environment(), PYTHONSAFEPATH="1")
        try:
            forkserver.ensure_running()
        finally:
            for name in _FOR_IMPORTS:
                os.environ.pop(name, None)
                if name in before:
                    os.environ[name] = before[name]
    return context


class _Line(NamedTuple):
    """A line to a process that was started: over each it does one piece of work at a time."""

    process: ForkServerProcess
    connection: Connection


class Crew(AbstractContextManager):
    """Processes that do pieces of work. One that ends costs its pieces alone: another is started.

    What they do has to be a module's function, and what it takes and gives has to be picklable.
    Those that are at work when the crew is left are ended, and so they are with this process.

    count: processes. at_once: pieces that each does side by side, in threads.
    expected: what is expected of whatever a piece is about, for errors. preload: see server_context. settle: called
    with `given` in each new process.
    """

    def __init__(
        self,
        count: int,
        expected: str,
        *,
        at_once: int = 1,
        preload: Sequence[str] = (),
        settle: Callable[..., object] | None = None,
        given: tuple[Any, ...] = (),
    ) -> None:
        self._expected, self._at_once, self._settled = expected, at_once, (os.getcwd(), dict(os.environ), settle, given)
        self._context = server_context([__name__, *preload])
        self._threads, self._lock = ThreadPoolExecutor(count * at_once), Lock()
        self._at_work, self._free, self._left = set[ForkServerProcess](), list[_Line](), False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._left = True
            for process in self._at_work:
                process.kill()
        self._threads.shutdown()
        for process in list(self._at_work):
            self._bury(process)

    def submit(
        self, where: object, work: Callable[..., Result], *arguments: object, report: Report | None = None
    ) -> Future[Result]:
        """Has a process do a piece of work. where: what it is about.

        report: told, a few times a second, what the work tells the Report that it gets as its last argument then. What
            it raises ends the process.
        The result raises what the work raises, where it is an error of ours or of a file; else WorkerError, and
        LostWorkerError where the process ends.
        """
        return self._threads.submit(self._have_done, str(where), work, arguments, report)

    def _have_done(
        self, where: str, work: Callable[..., Result], arguments: tuple[object, ...], report: Report | None
    ) -> Result:
        asked = bytes(ForkingPickler.dumps((work, arguments)))
        line: _Line | None = None
        try:
            line = self._take_line()
            line.connection.send((where, self._expected, asked, report is not None))
            while (heard := line.connection.recv())[0] == "told":
                if report:
                    report(*heard[1])
        except (EOFError, ConnectionError):
            found = "that no process can be started" if line is None else f"that its process ended {self._bury(*line)}"
            remedy = "see whether memory runs out, then start again"
            raise LostWorkerError(where, expected=self._expected, found=found, remedy=remedy) from None
        except BaseException:
            if line:
                line.process.kill()
                self._bury(*line)
            raise
        with self._lock:
            self._free.append(line)
        if heard[0] == "done":
            return heard[1]
        raise errors.from_parts(heard[1])

    def _take_line(self) -> _Line:
        """A line to a process that has time, or to a new one."""
        with self._lock:
            while self._free:
                line = self._free.pop()
                if line.process in self._at_work:
                    return line
            if self._left:
                raise EOFError
            ours, theirs = zip(*(self._context.Pipe() for _ in range(self._at_once)), strict=True)
            process = self._context.Process(target=_serve, args=(theirs, *self._settled), daemon=True)
            # The script that this process runs is none of theirs: it would be run again, line by line, if it has no
            # if __name__ == "__main__".
            script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
            try:
                process.start()
            finally:
                sys.modules["__main__"] = script
                for connection in theirs:
                    connection.close()
            self._at_work.add(process)
            self._free += [_Line(process, connection) for connection in ours]
            return self._free.pop()

    def _bury(self, process: ForkServerProcess, *lines: Connection) -> str:
        """Lets go of a process that has ended, or is about to; how it ended."""
        # No two threads may ask at once how a process ended: multiprocessing tells it once.
        with self._lock:
            self._at_work.discard(process)
            process.join()
        for line in lines:
            line.close()
        return ending(process.exitcode or 0)


_start = Lock()


def _serve(
    lines: Sequence[Connection],
    folder: str,
    environment: dict[str, str],
    settle: Callable[..., object] | None,
    given: tuple[Any, ...],
) -> None:
    """In a process: does what it is asked until there is nobody any more who asks."""
    # A terminal interrupts all processes at once: what that means is said by the one that started them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir(folder)
    # Where the server has its own from a time before; but what may be imported here is the server's to say.
    os.environ.update({name: value for name, value in environment.items() if name not in _FOR_IMPORTS})
    if settle:
        settle(*given)
    for line in lines:
        Thread(target=_answer, args=(line,), daemon=True).start()
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _answer(line: Connection) -> None:
    """Does what is asked over one line, a piece after the other."""
    with suppress(EOFError, ConnectionError):
        while True:
            line.send_bytes(_outcome(line, *line.recv()))
    os._exit(0)


def _outcome(line: Connection, where: str, expected: str, asked: bytes, is_watched: bool) -> Any:
    """The bytes of ("done", result) or of ("failed", parts of an error)."""
    said_at = 0.0

    def tell(*said: Any) -> None:
        nonlocal said_at
        if time.monotonic() - said_at > _SECONDS_BETWEEN_WORDS:
            said_at = time.monotonic()
            line.send(("told", said))

    try:
        with as_worker_error(where, expected):
            work, arguments = pickle.loads(asked)
            return ForkingPickler.dumps(("done", work(*arguments, *([tell] if is_watched else []))))
    except (ClipselError, OSError) as error:
        return pickle.dumps(("failed", errors.parts(error)))
