"""Servers on this machine that fail when they are told to: one serves a folder, one speaks S3."""

from __future__ import annotations

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
    served = Served()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, served, ranges, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    served.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield served
    finally:
        served.over.set()
        server.shutdown()
        server.server_close()


@contextmanager
def storing(monkeypatch) -> Iterator[Served]:
    """A store that speaks S3, moto's, behind a proxy that fails when it is told to; s3:// leads there meanwhile.

    It has a bucket, named bucket, and a key that may be in nothing that is written: SECRET.
    """
    import s3fs
    from moto.server import ThreadedMotoServer

    moto, served = ThreadedMotoServer("127.0.0.1", 0, verbose=False), Served()
    moto.start()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Proxy, served, moto.get_host_and_port()))
    Thread(target=server.serve_forever, daemon=True).start()
    served.address = f"http://127.0.0.1:{server.server_port}"
    settings = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**settings, "AWS_ENDPOINT_URL": served.address, "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    HTTPConnection(*moto.get_host_and_port()).request("POST", "/moto-api/reset")
    s3fs.S3FileSystem().makedirs("bucket", exist_ok=True)
    try:
        yield served
    finally:
        served.over.set()
        server.shutdown()
        server.server_close()
        moto.stop()
        s3fs.S3FileSystem.clear_instance_cache()


def upload(folder: Path, address: str) -> None:
    """Copies a folder's files to below an address."""
    fs, path = fsspec.url_to_fs(address)
    for file in folder.rglob("*"):
        if file.is_file():
            fs.pipe(f"{path}/{file.relative_to(folder).as_posix()}", file.read_bytes())


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, served: Served, behind: tuple[str, int], *args) -> None:
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

    def __init__(self, served: Served, ranges: bool, *args, **options) -> None:
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
