"""Every page comes with the rules that the browser holds it to; nothing else of the server's answers changes."""

from __future__ import annotations

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route

from pages.parts.routes import ContentPolicy


def headers_of(path: str, host: str = "localhost:8501") -> dict[str, str]:
    sent: list[dict] = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    served = [Route("/page", lambda _: HTMLResponse("<p>")), Route("/other", lambda _: PlainTextResponse("text"))]
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
    scope |= {"headers": [(b"host", host.encode())], "http_version": "1.1", "scheme": "http"}
    asyncio.run(ContentPolicy(Starlette(routes=served))(scope, receive, send))
    return {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def rules_of(host: str = "localhost:8501") -> dict[str, list[str]]:
    policy = headers_of("/page", host)["content-security-policy"]
    return {words[0]: words[1:] for words in map(str.split, policy.split(";"))}


def test_page__runs_only_scripts_of_this_server():
    rules = rules_of()
    assert rules["default-src"] == ["'self'"]
    named, hashes = rules["script-src"][:2], rules["script-src"][2:]
    assert named == ["'self'", "blob:"]
    assert hashes
    assert all(word.startswith("'sha256-") for word in hashes)


def test_page__speaks_to_this_server_under_the_name_it_was_asked_by():
    assert rules_of()["connect-src"] == ["'self'", "ws://localhost:8501", "wss://localhost:8501"]
    assert rules_of("[::1]:8501")["connect-src"] == ["'self'", "ws://[::1]:8501", "wss://[::1]:8501"]


@pytest.mark.parametrize("host", ["", "a; script-src *", "a b", "*", "a\r\nx: y"])
def test_page__takes_no_rules_from_whoever_asks(host):
    rules = rules_of(host)
    assert rules["connect-src"] == ["'self'"]
    assert "*" not in rules["script-src"]


def test_other_answers__stay_as_they_are():
    assert set(headers_of("/other")) == {"content-length", "content-type"}
