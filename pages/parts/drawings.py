"""Where does a picture that we drew lie until the browser fetches it? In memory for a while, by what is in it.

A page says only its address, so that it does not send the picture again with whatever else it has to say.
"""

from __future__ import annotations

import hashlib

from clipsel_core.curation.index.recent import Recent

_MOST = 64
_pictures: Recent[bytes] = Recent(_MOST)


def keep(png: bytes) -> str:
    """Keeps a PNG, and returns the name that it is fetched by: the same picture, the same name."""
    name = hashlib.sha256(png).hexdigest()[:32]
    _pictures.put(name, png)
    return name


def read(name: str) -> bytes | None:
    """The picture of a name; None where nothing of that name was drawn lately."""
    return _pictures.peek(name)
