"""What may a page of ours do in the browser? The server says it beside each page, and the browser holds the page to it.

Captions, urls and names are put on the pages as text. Should one ever get through as markup, no script runs that is not
a file of this server, other addresses are asked for nothing but pictures (which a curator may switch on), no form is
sent, and no other site shows the pages in a frame of its own, where a click could be led astray.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import streamlit
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_HOST = re.compile(r"[\w.-]+(?::\d+)?|\[[\da-f:]+\](?::\d+)?", re.ASCII | re.IGNORECASE)


class ContentPolicy:
    """ASGI middleware that sends a content security policy with every page.

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
