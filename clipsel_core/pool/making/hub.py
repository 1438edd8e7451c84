"""Is huggingface.co within reach? Where it is not, teachers come from what was downloaded before, or are soon missed.

Its library asks for each file six times in half a minute, and open_clip for two files or more; without a network that
was a minute in which nothing could come.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants

_PATIENCE_S = 5
# What its library, transformers and open_clip say, each in its way, where a file is not at hand.
_MISSED = ("offline", "connect", "download", "cache")


@contextmanager
def reached_or_cached() -> Iterator[None]:
    """Within it, the hub's library does without the network where there is none.

    Raises: ConnectionError where something is missed that only the hub has.
    """
    if constants.HF_HUB_OFFLINE or _within_reach():
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    except Exception as error:
        if not any(word in str(error).lower() for word in _MISSED):
            raise
        host = urlsplit(constants.ENDPOINT).hostname
        raise ConnectionError(f"no connection to {host}, and not all of it was downloaded before") from error
    finally:
        constants.HF_HUB_OFFLINE = False


def _within_reach() -> bool:
    if getproxies():
        # Whoever goes through a proxy cannot tell by connecting.
        return True
    endpoint = urlsplit(constants.ENDPOINT)
    try:
        port = endpoint.port or (80 if endpoint.scheme == "http" else 443)
        socket.create_connection((endpoint.hostname or "", port), timeout=_PATIENCE_S).close()
    except OSError:
        return False
    return True
