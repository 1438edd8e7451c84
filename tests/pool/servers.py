"""Servers on this machine: of a folder and of S3, which fail when they are told to, and of datasets on a hub."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.parse import unquote, urlsplit

import fsspec

Fault = int | str | None
SECRET = "nobody-may-read-this"


class Served:
    """What is served. address: of the folder. asked: how often each path was. sent: bytes of each path, by a store.

    fault: by a path and the how many-th time it is asked for, from 1: a status to answer with, "reset" to break the
    connection, "stall" to say nothing until the server ends, "half" to say half and no more, "slow" to wait a little
    first, or None.
    """

    def __init__(self) -> None:
        self.address = ""
        self.asked: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.fault: Callable[[str, int], Fault] = lambda path, times: None
        self.over = Event()


@contextmanager
def serving(folder: Path, *, ranges: bool = True) -> Iterator[Served]:
    """A server of a folder on a free port of 127.0.0.1. ranges: whether it can give a part of a file."""
    with _started(partial(_Handler, ranges=ranges, directory=str(folder))) as served:
        yield served


@contextmanager
def publishing(folder: Path, monkeypatch) -> Iterator[Served]:
    """A hub of Hugging Face's kind with a folder as its dataset org/data; hf://datasets/org/data leads there meanwhile.

    It answers what its file system asks: what a revision is, what a folder holds, and a range of a file.
    """
    from huggingface_hub import HfFileSystem

    with _started(partial(_Hub, folder=folder)) as served:
        monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": served.address, "token": False})
        HfFileSystem.clear_instance_cache()
        yield served
    HfFileSystem.clear_instance_cache()


@contextmanager
def storing(monkeypatch) -> Iterator[Served]:
    """A store that speaks S3, moto's, behind a proxy that fails when it is told to; s3:// leads there meanwhile.

    It has a bucket, named bucket, and a key that may be in nothing that is written: SECRET.
    """
    import s3fs
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    settings = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    try:
        with _started(partial(_Proxy, behind=moto.get_host_and_port())) as served:
            for name, value in {**settings, "AWS_ENDPOINT_URL": served.address, "AWS_MAX_ATTEMPTS": "1"}.items():
                monkeypatch.setenv(name, value)
            for protocol in ("s3", "simplecache"):
                fsspec.get_filesystem_class(protocol).clear_instance_cache()
            HTTPConnection(*moto.get_host_and_port()).request("POST", "/moto-api/reset")
            s3fs.S3FileSystem().makedirs("bucket", exist_ok=True)
            yield served
    finally:
        moto.stop()
        s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def _started(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[Served]:
    """A server on a free port of 127.0.0.1. handler: also given what is served, as `served`."""
    served = Served()
    server = _Server(("127.0.0.1", 0), partial(handler, served=served))
    server.over = served.over
    Thread(target=server.serve_forever, daemon=True).start()
    served.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield served
    finally:
        served.over.set()
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    over: Event

    def handle_error(self, request, client_address) -> None:
        # What is asked in the background may find the store gone at a test's end.
        if not self.over.is_set():
            super().handle_error(request, client_address)


def upload(folder: Path, address: str) -> None:
    """Copies a folder's files to below an address."""
    fs, path = fsspec.url_to_fs(address)
    for file in folder.rglob("*"):
        if file.is_file():
            fs.pipe(f"{path}/{file.relative_to(folder).as_posix()}", file.read_bytes())


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args, served: Served, behind: tuple[str, int]) -> None:
        self._served, self._behind = served, behind
        super().__init__(*args)

    def _pass_on(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._served.asked[self.path] += 1
        fault = self._served.fault(self.path, self._served.asked[self.path])
        if fault == "slow":
            time.sleep(0.2)
        elif isinstance(fault, int):
            self.send_error(fault)
            return
        connection = HTTPConnection(*self._behind)
        connection.request(self.command, self.path, data, dict(self.headers))
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        if not answer.getheader("Content-Length"):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self._served.sent[self.path.partition("?")[0]] += len(body)
        self.wfile.write(body[: len(body) // 2] if fault == "half" else body)
        self.close_connection = fault == "half"

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def log_message(self, *_: object) -> None:
        """Nothing: tests read no log."""


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args, served: Served, ranges: bool, **options) -> None:
        self._served, self._ranges = served, ranges
        super().__init__(*args, **options)

    def do_GET(self) -> None:
        self._served.asked[self.path] += 1
        fault = self._served.fault(self.path, self._served.asked[self.path])
        if fault == "reset":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif fault in ("stall", "half"):
            if fault == "half":
                self._send_half()
            self._served.over.wait()
            self.close_connection = True
        elif fault:
            self.send_error(int(fault))
        elif self._ranges and (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            self._send_part(*asked.groups())
        else:
            super().do_GET()

    def _send_part(self, first: str, last: str) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        part = data[int(first) : int(last) + 1 if last else None]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def _send_half(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Nothing: tests read no log."""


class _Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args, served: Served, folder: Path) -> None:
        self._served, self._folder = served, folder
        super().__init__(*args)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self._served.asked[path] += 1
        kind, _, inner = path.removeprefix("/api").removeprefix("/datasets/org/data").lstrip("/").partition("/")
        place = self._folder / inner.partition("/")[2]
        if kind == "resolve" and place.is_file():
            self._send_part(path, place.read_bytes())
        elif kind == "tree" and place.is_dir():
            self._send_json([self._entry(one) for one in sorted(place.iterdir())])
        elif path.startswith("/api/datasets/org/data") and kind in ("", "revision"):
            self._send_json({"id": "org/data", "sha": "0" * 40})
        else:
            self._send_json({"error": "not there"}, 404)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["paths"]
        places = [self._folder / path for path in asked]
        self._send_json([self._entry(place) for place in places if place.exists()])

    def _entry(self, place: Path) -> dict[str, str | int]:
        name = place.relative_to(self._folder).as_posix()
        told = {"path": name, "oid": hashlib.sha1(name.encode()).hexdigest()}
        return told | ({"type": "directory"} if place.is_dir() else {"type": "file", "size": place.stat().st_size})

    def _send_json(self, value: object, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status, {"X-Error-Code": "EntryNotFound"} if status == 404 else {})

    def _send_part(self, path: str, data: bytes) -> None:
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        part = data[first : last + 1]
        self._served.sent[path] += len(part)
        self._send(part, 206, {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"})

    def _send(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: tests read no log."""
