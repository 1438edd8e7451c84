"""Who may write into a folder? One process: on this machine as the kernel says, in a store by a numbered lease.

FOLDER/.lease/<number>   who took it, as JSON; made by one process alone, as the store makes no object twice

The highest number counts. Its holder writes its object anew every few seconds, and at the end that it let go. Whoever
wants the folder makes the next number: at once where the last was let go or its process, on this machine, is gone; else
once it has not changed for a minute, by the clock of whoever waits. A holder that finds a higher number has lost the
folder and stops. Numbers are asked for by name, so a listing that lags hides none; so they stay where they are.

Between the look for a higher number and what is written then lies a moment in which another can take the folder. What
is written into a run is the same bytes whoever writes it, or has a seal that does not fit, which reading refuses.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from clipsel_core import files
from clipsel_core.errors import ClipselError
from clipsel_core.places import Place
from clipsel_core.processes import birth_of
from clipsel_core.tasks import Stopped, check, stoppable

_log = logging.getLogger(__name__)
_FOLDER = ".lease"
_EXCLUSIVE = ("s3", "s3a", "gs", "gcs", "memory")
# How often a lease is renewed, how long one that is not is respected, and after how long its holder gives it up.
_RENEWED_S, _PATIENCE_S, _GIVEN_UP_S, _BETWEEN_LOOKS_S = 10.0, 60.0, 45.0, 2.0
_NAMESPACE = Path("/proc/self/ns/pid")
_held: dict[str, _Lease] = {}


@contextmanager
def hold_place(folder: Place, busy: ClipselError) -> Iterator[None]:
    """Holds a folder for this process. In a store, work within it is stopped where another process took it over.

    Raises: busy where another process holds it, in a store with its name; ClipselError of that kind where the store
        makes nothing exclusively, or another process took the folder over; OSError where the store does not answer.
    """
    if not folder.remote:
        with files.lock_folder(Path(folder), busy):
            yield
        return
    lease = _take(folder, busy)
    _held[folder.address] = lease
    try:
        with lease, stoppable(lambda: lease.lost):
            yield
    except Stopped:
        lease.confirm()
        raise
    finally:
        del _held[folder.address]


def may_be_held(folder: Place) -> bool:
    """Whether a process can hold a folder: any on this machine, in a store where it makes an object only once."""
    return not folder.remote or (not any(folder.around) and folder.url.partition("://")[0] in _EXCLUSIVE)


def confirm(folder: Place) -> None:
    """Makes sure that a folder that this process holds is still its own; nothing where it holds none.

    Raises: ClipselError where another process took it over.
    """
    if lease := _held.get(folder.address):
        lease.confirm()


def number_of(folder: Place) -> Place | None:
    """The number by which this process holds a folder of a store, None where it holds none; see `join_lease`."""
    lease = _held.get(folder.address)
    return lease.place if lease else None


def join_lease(folder: Place, number: Place | None, busy: ClipselError) -> None:
    """Has `confirm` look for later numbers here too, in a process that works for the one that holds a folder.

    number: by which that one holds it; None for a folder that needs none.
    """
    if number:
        _held.setdefault(folder.address, _Lease(number, {}, busy))


@dataclass
class _Lease:
    """A number that this process made. said: what its object says. lost: why it counts no more, "" while it does."""

    place: Place
    said: dict[str, Any]
    busy: ClipselError
    lost: str = ""
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if not self.lost:
            with suppress(OSError):  # else it counts for a minute more
                self.place.write_bytes(_as_bytes({**self.said, "released": True}))

    def confirm(self) -> None:
        """Looks for a higher number now. Raises: ClipselError where there is one, or the store did not answer."""
        if not self.lost:
            self._look()
        if self.lost:
            found, remedy = self.lost, "see which process goes on; finished shards are kept"
            raise type(self.busy)(self.busy.where, expected="to hold the folder", found=found, remedy=remedy)

    def _look(self) -> None:
        later = _numbered(self.place.parent, int(self.place.name) + 1)
        if later.exists():
            self.lost = "another process took it over"
            with suppress(OSError, ValueError):
                self.lost = f"{_named(json.loads(later.read()))} took it over"

    def _keep(self) -> None:
        """Renews the lease until it is over."""
        renewed_s, beat = time.monotonic(), 0
        while not self._over.wait(_RENEWED_S):
            beat += 1
            try:
                self.place.write_bytes(_as_bytes({**self.said, "beat": beat}))
                self._look()
                renewed_s = time.monotonic()
            except OSError as error:
                _log.warning("%s cannot be renewed: %s", self.place, error)
                if time.monotonic() - renewed_s > _GIVEN_UP_S:
                    self.lost = "a store that did not answer for so long that another process may take it over"
            if self.lost:
                return


def _take(folder: Place, busy: ClipselError) -> _Lease:
    """Makes the next number, as soon as the last one no longer counts. Raises: as hold_place."""
    own = {"token": uuid.uuid4().hex, "host": socket.gethostname(), "machine": _machine(), "pid": os.getpid()}
    own["birth"] = birth_of(os.getpid())
    seen, since_s, patience = b"", time.monotonic(), False
    while True:
        check()
        number, data = _latest(folder)
        said = _understood(data)
        if data and data != seen:
            if patience and not said.get("released"):
                found = f"{busy.found}: {_named(said)}"
                raise type(busy)(busy.where, expected=busy.expected, found=found, remedy=busy.remedy)
            seen, since_s = data, time.monotonic()
        if not data or said.get("released") or _is_gone(said) or time.monotonic() - since_s >= _PATIENCE_S:
            place = _numbered(folder / _FOLDER, number + 1)
            if _made(place, own, busy):
                return _Lease(place, own, busy)
            continue
        if not patience:
            patience = True
            _log.warning("%s: held by %s; waiting to see whether that goes on", folder, _named(said))
        time.sleep(_BETWEEN_LOOKS_S)


def _made(place: Place, own: dict[str, Any], busy: ClipselError) -> bool:
    """Whether this process made a number. Raises: ClipselError where the store would let several make it."""
    if place.url.partition("://")[0] not in _EXCLUSIVE:
        raise _not_exclusive(busy)
    try:
        place.create(_as_bytes(own))
    except FileExistsError:
        # Perhaps it is our own, and only the answer was lost.
        return _understood(place.read()).get("token") == own["token"]
    with suppress(FileExistsError):
        place.create(_as_bytes(own))
        raise _not_exclusive(busy)
    return True


def _not_exclusive(busy: ClipselError) -> ClipselError:
    expected, found = "a store that makes an object only once, as s3:// and gs:// do", "one that writes it twice"
    remedy = "take a folder on this machine, and copy it to the store afterwards"
    return type(busy)(busy.where, expected=expected, found=found, remedy=remedy)


def _latest(folder: Place) -> tuple[int, bytes]:
    """The highest number that was made, and what its object says; 0 and nothing where there is none."""
    listed = [int(name) for name in (folder / _FOLDER).names() if name.isdigit()]
    number, data = 0, b""
    for later in range(max(listed, default=1), 1 << 62):
        try:
            number, data = later, _numbered(folder / _FOLDER, later).read()
        except FileNotFoundError:
            break
    return number if data else 0, data


def _numbered(folder: Place, number: int) -> Place:
    return folder / f"{number:06d}"


def _as_bytes(said: dict[str, Any]) -> bytes:
    return json.dumps(said).encode()


def _understood(data: bytes) -> dict[str, Any]:
    try:
        said = json.loads(data or b"{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _named(said: dict[str, Any]) -> str:
    return f"process {said.get('pid', '?')} of {said.get('host', 'another machine')}"


def _machine() -> str:
    """What tells where a process's number means the same; nothing where that cannot be told."""
    try:
        return f"{os.readlink(_NAMESPACE)} {(birth_of(os.getpid()) or '').partition(' ')[0]}"
    except OSError:
        return ""


def _is_gone(said: dict[str, Any]) -> bool:
    """Whether a holder was a process of this machine that has ended."""
    machine, pid = _machine(), said.get("pid")
    if not machine or said.get("machine") != machine or not isinstance(pid, int):
        return False
    return birth_of(pid) != said.get("birth")
