"""What does the server answer besides the pages? A pair's image by its uid, and a file that a run exported.

/pairs/<run>/<uid>      image bytes; 404 where unknown, 415 where they are not a picture that Pillow can decode, 503
                        while the images are being found, or their store does not answer
/exports/<run>/<name>   a file of the run's exports folder as a download, or its manifest; 404 for anything else;
                        ?sha256=... of the subset: 409 where another one has the name by now
/drawings/<name>        a picture that a page drew just now, PNG; 404 where it is not kept any more
/scripts/<name>         the script of one of our components, by a name that changes with it; 404 for anything else
/overview, /Select, …   addresses that people guess lead to the page they mean
/anything else          leads to Overview, which says that there is no such page

<run> is a key of the catalog, so neither route can leave the folders that the dashboard may show.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, urlencode

import streamlit
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clipsel_core.errors import ClipselError
from clipsel_core.places import Place
from pages.parts import catalog, component

# The parameter of an address that says which page was asked for in vain.
NO_PAGE = "no_page"
_UID = re.compile(r"[0-9a-f]{32}")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}

_PIECE = 1 << 20
_REPLACED = "Another file has this name by now: somebody exported under it since. Export again under another name."

_PAGES = ("distributions", "map", "gallery", "search", "select", "compare")
# Overview is the address without a page.
_GUESSED = dict.fromkeys(("overview", "Overview", "home", "index.html", "jobs"), "") | {
    name.capitalize(): name for name in _PAGES
}
# Below these Streamlit and our routes answer; its other addresses have a part with a dot in it or a _ in front.
_OTHERS = "app|auth|component|exports|media|pairs|static"
_KNOWN = "|".join((*_PAGES, "oauth2callback"))


_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_HOST = re.compile(r"[\w.-]+(?::\d+)?|\[[\da-f:]+\](?::\d+)?", re.ASCII | re.IGNORECASE)


class _Unknown(StringConvertor):
    """The path of an address that names no page: Streamlit would show its own words, or nothing where it has a /."""

    regex = rf"(?!(?:{_KNOWN})$|(?:{_OTHERS})/)[^/._][^/.]*(?:/[^/._][^/.]*)*"


register_url_convertor("unknown", _Unknown())


def export_url(entry: catalog.Entry, name: str, sha256: str) -> str:
    """Where an exported file, or its manifest, can be downloaded while the subset has this SHA-256."""
    return f"/exports/{entry.key}/{quote(name, safe='')}?sha256={sha256}"


def image(request: Request) -> Response:
    """One pair's image, decoded once to be sure that it is one; its stored bytes, if browsers show those."""
    from pages.parts import pictures  # with all that reads a pool, which the server need not wait for to answer

    entry = catalog.by_key(request.path_params["run"])
    uid = request.path_params["uid"]
    try:
        data = pictures.read(entry, uid) if entry and _UID.fullmatch(uid) else None
    except pictures.BeingFound:
        return PlainTextResponse("images are being found", 503, headers={**_HEADERS, "Retry-After": "5"})
    if data is None:
        return PlainTextResponse("no such image", 404, headers=_HEADERS)
    shown = pictures.shown(data)
    if shown is None:
        return PlainTextResponse("not a picture", 415, headers=_HEADERS)
    data, kind = shown
    return Response(data, media_type=kind, headers={**_HEADERS, "Cache-Control": "private, max-age=3600"})


def exported_file(request: Request) -> Response:
    """A file that the run exported, as a download streamed from the disk."""
    entry = catalog.by_key(request.path_params["run"])
    name = request.path_params["name"]
    missing = PlainTextResponse("no such file", 404, headers=_HEADERS)
    if entry is None:
        return missing
    folder = entry.root / "exports"
    try:
        catalog.check_within(entry.root, folder)
        file = (folder / name).absolute()
        if name.startswith(".") or "/" in name or file.parent != folder.absolute() or not file.is_file():
            return missing
        asked, stamp = request.query_params.get("sha256"), file.stamp()
    except (ClipselError, OSError, RuntimeError, ValueError):  # a link that leads out or in circles, a zero byte
        return missing
    try:
        replaced = asked is not None and _digest(file, stamp) != asked
    except (OSError, ValueError, TypeError, KeyError):  # a manifest that says nothing
        replaced = asked is not None
    if replaced:
        return PlainTextResponse(_REPLACED, 409, headers=_HEADERS)
    # Named as it is on the disk and not compressed on the way: a subset of 128 million uids is 2 GB.
    headers = {**_HEADERS, "Content-Encoding": "identity", "Cache-Control": "no-store"}
    kind = "application/octet-stream"
    if not file.remote:
        return FileResponse(Path(file), filename=name, media_type=kind, headers=headers)
    headers |= {"Content-Disposition": f"attachment; filename*=utf-8''{quote(name)}", "Content-Length": str(stamp[0])}
    return StreamingResponse(_pieces(file), media_type=kind, headers=headers)


def _pieces(file: Place) -> Iterator[bytes]:
    """A file of a store, piece by piece."""
    with file.open() as opened:
        while piece := opened.read(_PIECE):
            yield piece


@lru_cache(maxsize=256)
def _digest(file: Place, stamp: tuple[int, int | str]) -> str:
    """The SHA-256 of a subset, or that its manifest says."""
    if file.name.endswith(".manifest.json"):
        return json.loads(file.read())["sha256"]
    return file.sha256()


async def drawing(request: Request) -> Response:
    """A picture that a page drew and named in what it sent. It is at hand: no thread is asked for it."""
    from pages.parts import pictures

    data = pictures.read_drawing(request.path_params["name"])
    return _by_contents(data, "image/png", "no such drawing")


async def script(request: Request) -> Response:
    """What a component of ours is made of."""
    data = component.read_script(request.path_params["name"])
    return _by_contents(data, "text/javascript; charset=utf-8", "no such script")


def _by_contents(data: bytes | None, kind: str, missing: str) -> Response:
    """Bytes whose name says what is in them, so that a browser need never ask again."""
    if data is None:
        return PlainTextResponse(missing, 404, headers=_HEADERS)
    headers = {**_HEADERS, "Cache-Control": "private, max-age=31536000, immutable"}
    return Response(data, media_type=kind, headers=headers)


def guessed(request: Request) -> Response:
    """Leads from an address that somebody guessed to the page's own, with all that stands behind it."""
    page = _GUESSED[request.url.path.rsplit("/", 1)[-1]]
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"./{page}{query}", 307)


def unknown(request: Request) -> Response:
    """Leads from an address that names no page to Overview, which says so; the run and all else stay as they were."""
    told = [*request.query_params.multi_items(), (NO_PAGE, request.path_params["page"])]
    up = "../" * request.url.path.rstrip("/").count("/", 1)
    return RedirectResponse(f"{up or './'}?{urlencode(told)}", 307)


ROUTES = [
    Route("/pairs/{run}/{uid}", image),
    Route("/exports/{run}/{name}", exported_file),
    Route("/drawings/{name}", drawing),
    Route("/scripts/{name}", script),
    *(Route(f"/{name}", guessed) for name in _GUESSED),
    Route("/{page:unknown}", unknown),
]


class ContentPolicy:
    """ASGI middleware that says with every page what it may do in the browser, which holds the page to it.

    Captions, urls and names are put on the pages as text. Should one ever get through as markup, no script runs that is
    not a file of this server, other addresses are asked for nothing but pictures (which a curator may switch on), no
    form is sent, and no other site shows the pages in a frame of its own, where a click could be led astray.

    The socket's address is named, because not every browser takes it for the page's own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        page = Path(streamlit.__file__).parent / "static" / "index.html"
        # What a policy calls the scripts that stand in the page's own text.
        digests = (hashlib.sha256(script.encode()).digest() for script in _INLINE.findall(page.read_text("utf-8")))
        self._scripts = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host = Headers(scope=scope).get("host", "")
        policy = self._policy(host if _HOST.fullmatch(host) else "")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html"):
                    headers["Content-Security-Policy"] = policy
                    headers["X-Content-Type-Options"] = "nosniff"
                    headers["Referrer-Policy"] = "same-origin"
            await send(message)

        await self._app(scope, receive, guarded)

    def _policy(self, host: str) -> str:
        """The policy for pages that were asked for under this name, if that is one."""
        sockets = f" ws://{host} wss://{host}" if host else ""
        return "; ".join(
            (
                "default-src 'self'",
                f"script-src 'self' blob: {self._scripts}",
                "style-src 'self' 'unsafe-inline'",
                "img-src 'self' data: blob: http: https:",
                "font-src 'self' data:",
                f"connect-src 'self'{sockets}",
                "frame-src 'none'",
                "object-src 'none'",
                "base-uri 'self'",
                "form-action 'none'",
                "frame-ancestors 'self'",
            )
        )
