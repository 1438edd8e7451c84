"""A web server on this machine that serves a folder, and fails when it is told to."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

Fault = int | str | None


class Served:
    """What is served. address: of the folder. asked: how often each path was. fault: by a path and the how many-th time
    it is asked for, from 1: a status to answer with, "reset" to break the connection, "stall" to say nothing until the
    server ends, "half" to say half and no more, or None."""

    def __init__(self) -> None:
        self.address = ""
        self.asked: Counter[str] = Counter()
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
