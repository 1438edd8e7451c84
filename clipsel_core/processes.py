"""How do other processes do part of our work, and how does one that fails say so in one line?"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import site
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from threading import Lock, local
from typing import Any, NamedTuple, Self, TypeVar

import clipsel_core
from clipsel_core import errors
from clipsel_core.errors import ClipselError, LostWorkerError, WorkerError

Result = TypeVar("Result")


def module_command(module: str, *words: object) -> list[str]:
    """The words that start one of our own modules as a process; it is to be given `child_environment()`.

    It begins in the current folder, so that relative paths mean the same to it. -P keeps what lies there from being
    imported: somebody's queue.py would be taken for the library's.
    """
    return [sys.executable, "-P", "-m", module, *map(str, words)]


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
def in_one_line(where: object, expected: str) -> Iterator[None]:
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
            for name in ("PYTHONPATH", "PYTHONSAFEPATH"):
                os.environ.pop(name, None)
                if name in before:
                    os.environ[name] = before[name]
    return context


class _Process(NamedTuple):
    """A process that was started, and the line to it."""

    process: ForkServerProcess
    line: Connection


class Crew(AbstractContextManager):
    """Processes that do pieces of work, each one at a time. One that ends costs its piece alone: another is started.

    What they do has to be a module's function, and what it takes and gives has to be picklable.
    Those that are at work when the crew is left are ended.

    expected: what is expected of whatever a piece is about, for errors. preload: see server_context. settle: called
    with `given` in each new process.
    """

    def __init__(
        self,
        count: int,
        expected: str,
        *,
        preload: Sequence[str] = (),
        settle: Callable[..., object] | None = None,
        given: tuple[Any, ...] = (),
    ) -> None:
        self._expected, self._settle, self._given = expected, settle, given
        self._context = server_context([__name__, *preload])
        self._threads, self._of_thread = ThreadPoolExecutor(count), local()
        self._lock, self._at_work, self._left = Lock(), list[_Process](), False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._left = True
            for process, _line in self._at_work:
                process.kill()
        self._threads.shutdown()
        for one in list(self._at_work):
            self._bury(one)

    def submit(self, where: object, work: Callable[..., Result], *arguments: object) -> Future[Result]:
        """Has a process do a piece of work. where: what it is about.

        The result raises what the work raises, where it is an error of ours or of a file; else WorkerError, and
        LostWorkerError where the process ends.
        """
        return self._threads.submit(self._have_done, str(where), work, arguments)

    def _have_done(self, where: str, work: Callable[..., Result], arguments: tuple[object, ...]) -> Result:
        asked = bytes(ForkingPickler.dumps((work, arguments)))
        one: _Process | None = None
        try:
            one = self._own()
            one.line.send((where, self._expected, asked))
            done, answer = one.line.recv()
        except (EOFError, ConnectionError):
            found = "that no process can be started" if one is None else f"that its process ended {self._bury(one)}"
            remedy = "see whether memory runs out, then start again"
            raise LostWorkerError(where, expected=self._expected, found=found, remedy=remedy) from None
        if done:
            return answer
        raise errors.from_parts(answer)

    def _own(self) -> _Process:
        """This thread's process."""
        one: _Process | None = getattr(self._of_thread, "one", None)
        if one is None or one not in self._at_work:
            with self._lock:
                if self._left:
                    raise EOFError
                ours, theirs = self._context.Pipe()
                process = self._context.Process(target=_serve, args=(theirs, self._settle, self._given), daemon=True)
                with theirs:
                    process.start()
                one = self._of_thread.one = _Process(process, ours)
                self._at_work.append(one)
        return one

    def _bury(self, one: _Process) -> str:
        """Lets go of a process that has ended, or is about to; how it ended."""
        # No two threads may ask at once how a process ended: multiprocessing tells it once.
        with self._lock:
            self._at_work.remove(one)
            one.process.join()
        one.line.close()
        return ending(one.process.exitcode or 0)


_start = Lock()


def _serve(line: Connection, settle: Callable[..., object] | None, given: tuple[Any, ...]) -> None:
    """In a process: does what it is asked until there is nobody any more who asks."""
    # A terminal interrupts all processes at once: what that means is said by the one that started them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if settle:
        settle(*given)
    with suppress(EOFError, BrokenPipeError):
        while True:
            line.send_bytes(_outcome(*line.recv()))


def _outcome(where: str, expected: str, asked: bytes) -> Any:
    """The bytes of (True, result) or of (False, parts of an error)."""
    try:
        with in_one_line(where, expected):
            work, arguments = pickle.loads(asked)
            return ForkingPickler.dumps((True, work(*arguments)))
    except (ClipselError, OSError) as error:
        return pickle.dumps((False, errors.parts(error)))
