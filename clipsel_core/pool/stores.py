"""Which stores are opened, how is an address taken apart, and when is a store that fails asked again?

All stores that fsspec knows, chained ones too, but for a few: a pool or a table from somebody else may name addresses,
and what runs something, or opens what a file names, is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from time import sleep
from typing import Any, TypeVar

from fsspec import AbstractFileSystem, available_protocols
from fsspec.core import split_protocol, url_to_fs

from clipsel_core.errors import PoolFormatError

LOCAL = ("file", "local")
REFUSED = {
    "reference": "its files name further addresses and templates",
    "dask": "it sends work to other machines",
    "dvc": "it opens a repository with settings of its own",
    "generic": "name the store itself",
    "dir": "name the store itself",
    "async_wrapper": "name the store itself",
    "asyncwrapper": "name the store itself",
    "asynclocal": "give the path itself",
    "pyscript": "it lives in browsers",
}
"""Protocols of fsspec that are never opened, and why."""

_CACHES = ("simplecache", "filecache", "blockcache", "cached")
_ARCHIVES = ("zip", "tar", "libarchive")
_ONE_AT_A_TIME = {"tar", "libarchive", "filecache", "blockcache", "cached"}
_STALLED_S = 60

PATIENT = 4
"""Tries of whoever would rather wait than do without."""

_FIRST_WAIT_S, _TIMES = 0.5, 4
_IN_PASSING = {408, 425, 429}
_FOR_GOOD = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Opened:
    """A store that is open. path: how it calls what the address names; the rest as in places.Place."""

    fs: AbstractFileSystem
    path: str
    url: str
    around: tuple[str, str]
    one_by_one: bool


def protocol_of(address: str) -> str | None:
    """What the address begins with, where that makes it one of a store; None for a path on this machine.

    >>> protocol_of("zip://a.jpg::s3://bucket/x.zip"), protocol_of("file:///a"), protocol_of("a::b.jpg")
    ('zip', None, None)
    """
    first, chained, _ = address.partition("::")
    protocol = first if chained and first in _known() else split_protocol(first)[0]
    return None if protocol in LOCAL and not chained else protocol


def open_store(address: str) -> Opened:
    """Opens the store of an address, such as s3://bucket/x, simplecache::https://host/x or zip://a::s3://bucket/x.zip.

    Raises: PoolFormatError, one line, on a protocol that is unknown, refused, or whose package is not installed.
    """
    links = [_link(text) for text in address.split("::")]
    protocols = [_checked(address, link) for link in links]
    if protocols[-1] in (*_CACHES, *_ARCHIVES):
        expected = f"what it lies in: {protocols[-1]}://PATH::ADDRESS, or {protocols[-1]}::ADDRESS"
        raise PoolFormatError(address, expected=expected, found="nothing after it")
    if loose := next((name for name in protocols[:-1] if name not in (*_CACHES, *_ARCHIVES)), None):
        expected = f"{', '.join((*_CACHES, *_ARCHIVES))} before each ::"
        raise PoolFormatError(address, expected=expected, found=f"{loose}://")
    # The path belongs to the first link that is no cache: those only pass it on.
    head = next(number for number, link in enumerate(links) if link.rstrip(":/") not in _CACHES)
    try:
        fs, path = url_to_fs("::".join(links), **_settings(protocols, head))
    except ImportError as error:
        remedy = "install it beside clipsel with pip"
        package = "the package for " + " and ".join(f"{name}://" for name in dict.fromkeys(protocols))
        raise PoolFormatError(address, expected=package, found=said(error), remedy=remedy) from error
    except Exception as error:
        raise PoolFormatError(address, expected="a store that can be opened", found=said(error)) from error
    before = "".join(f"{link.rstrip(':/')}::" for link in links[:head])
    after = "".join(f"::{link}" for link in links[head + 1 :])
    one_by_one = not _ONE_AT_A_TIME.isdisjoint(protocols)
    url = links[head] if links[head].endswith("://") else links[head].rstrip("/")
    return Opened(fs, path.rstrip("/") or path, url, (before, after), one_by_one)


def ask_again(question: Callable[[], Answer], tries: int) -> Answer:
    """The answer to a question that may raise OSError; asked up to `tries` times, 0.5, 2, 8, ... seconds apart."""
    wait = _FIRST_WAIT_S
    for _ in range(tries - 1):
        try:
            return question()
        except OSError as error:
            if not in_passing(error):
                raise
        sleep(wait)
        wait *= _TIMES
    return question()


def in_passing(error: BaseException) -> bool:
    """Whether what failed may succeed a little later: not where a thing is absent, or a web server says it is at fault.

    >>> in_passing(ConnectionResetError()), in_passing(FileNotFoundError())
    (True, False)
    """
    status = _status(error)
    if status is not None:
        return not 400 <= status < 500 or status in _IN_PASSING
    return not isinstance(error, _FOR_GOOD)


def stands_for(error: Exception) -> BaseException:
    """What really failed: fsspec says of the web that a file is not there, whatever it was that went wrong."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or cause is None:
        return error
    status = _status(cause)
    lost = status is None and (isinstance(cause, TimeoutError) or type(cause).__module__.startswith("aiohttp"))
    return cause if lost or status not in (None, 404, 410) else error


def said(error: BaseException) -> str:
    """What an error says, on one line."""
    return (str(error) or type(error).__name__).split("\n")[0][:300]


def _known() -> set[str]:
    return {*available_protocols(), *_CACHES}


def _link(text: str) -> str:
    """A link of a chain as fsspec takes it; a path on this machine from the root on, as others will read it."""
    if text in _known():
        return f"{text}://"
    protocol, rest = split_protocol(text)
    return f"file://{os.path.abspath(rest)}" if protocol in (None, *LOCAL) else text


def _checked(address: str, link: str) -> str:
    protocol = split_protocol(link)[0] or ""
    if protocol in REFUSED:
        found = f"{protocol}://, which is not opened"
        raise PoolFormatError(address, expected="a store", found=found, remedy=REFUSED[protocol])
    if protocol not in _known():
        stores = ", ".join(sorted(_known() - REFUSED.keys()))
        raise PoolFormatError(address, expected=f"a path or one of {stores}", found=protocol)
    return protocol


def _settings(protocols: list[str], head: int) -> dict[str, Any]:
    """What stores are opened with beyond their addresses: the web's ends a request that stalls, not a long one."""
    web = [number for number, protocol in enumerate(protocols) if protocol in ("http", "https")]
    if not web:
        return {}
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=_STALLED_S, sock_read=_STALLED_S)
    settings = {"client_kwargs": {"timeout": timeout}}
    # fsspec hands what is not under a protocol's name to the first link.
    return {protocols[number]: settings for number in web}


def _status(error: BaseException) -> int | None:
    """The number that a web server gave for its answer, in whichever attribute the store's package keeps it."""
    for told in (error, error.__cause__):
        for name in ("status", "code", "status_code"):
            value = getattr(told, name, None)
            if isinstance(value, int) and 100 <= value < 600:
                return value
    return None
