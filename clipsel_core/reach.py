"""What may be read because a table or a pool's index names it? Only what lies below places that a person named.

Tables and pools come from strangers. Without a limit, a row of theirs could have files of this machine put into tars,
or have it ask other machines for something.

- A process that the dashboard starts reads sources only below the places in CLIPSEL_ONLY_READ.
- Images that `images/*.parquet` names are read below the pool, the places named with --read, and the sources that this
  user embedded before, which are noted in the user's state folder.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from urllib.parse import urlsplit

from clipsel_core.files import state_folder

_VARIABLE = "CLIPSEL_ONLY_READ"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*(://|::)")
# Other names for . and / and \, and what no address holds as it is.
_TWO_READINGS = re.compile(r"%2e|%2f|%5c|[\\\x00-\x20\x7f]", re.IGNORECASE)


def limiting_environment(places: Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    """The environment variable that limits a process, and those that it starts, to what lies below these places."""
    return {_VARIABLE: json.dumps([os.fspath(place) for place in places])}


def check_place(place: str) -> None:
    """Raises PermissionError where this process is limited and a path or an address lies outside of its places."""
    said = os.environ.get(_VARIABLE)
    if said is not None and not _limit(said)(place):
        raise PermissionError(errno.EACCES, "it lies outside of the places that were named with --read", place)


def make_filter(named: Iterable[str]) -> Callable[[str], bool]:
    """Tells whether a path, or an address, is one of the places named or lies below one.

    Links are followed in paths. Addresses are compared letter by letter: the same protocol, host and port, and a path
    inside; of chained ones, a::b, each link. One that could be read in two ways lies nowhere.
    """
    places = list(named)
    addresses = [place.split("::") for place in places if _ADDRESS.match(place)]
    folders = [os.path.realpath(place) for place in places if not _ADDRESS.match(place)]

    def is_below(place: str) -> bool:
        if _ADDRESS.match(place):
            links = place.split("::")
            alike = [above for above in addresses if len(above) == len(links)]
            return not _TWO_READINGS.search(place) and any(all(map(_link_below, links, above)) for above in alike)
        try:
            real = os.path.realpath(place)
        except (OSError, ValueError):
            return False
        return any(real == root or real.startswith(root.rstrip("/") + "/") for root in folders)

    return is_below


def remember_sources(places: Iterable[str]) -> None:
    """Notes that this user embedded images from here; where that cannot be written, they are asked for later."""
    new = {place if _ADDRESS.match(place) else os.path.realpath(place) for place in places} - set(read_sources())
    if new:
        with suppress(OSError):
            path = state_folder() / "sources.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="ascii") as file:
                file.write("".join(f"{json.dumps(place)}\n" for place in sorted(new)))


def read_sources() -> Sequence[str]:
    """The places that this user embedded images from."""
    try:
        lines = (state_folder() / "sources.jsonl").read_text(encoding="ascii").splitlines()
        return [place for line in lines if isinstance(place := json.loads(line), str)]
    except (OSError, ValueError):
        return []


@lru_cache(maxsize=1)
def _limit(said: str) -> Callable[[str], bool]:
    return make_filter(json.loads(said))


def _link_below(address: str, root: str) -> bool:
    if "://" not in address or "://" not in root:
        return address == root
    try:
        given, known = urlsplit(address), urlsplit(root)
    except ValueError:
        return False
    if (given.scheme, given.netloc) != (known.scheme, known.netloc):
        return False
    parts, above = given.path.split("/"), known.path.rstrip("/").split("/")
    return parts[: len(above)] == above and not {".", ".."} & set(parts)
