"""How is a Streamlit app served for a measurement or a test, and how much memory does its process hold?"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Served:
    """An app that answers at url, in the process pid."""

    url: str
    pid: int

    def memory_mib(self) -> tuple[float, float]:
        """Resident memory now, and at its highest; pages of mapped files count where they are in memory."""
        now, peak = self._fields_mib("VmRSS", "VmHWM")
        return now, peak

    def memory_parts_mib(self) -> tuple[float, float, float]:
        """Memory of the process's own now, resident pages of mapped files, and both at their highest."""
        own, mapped, peak = self._fields_mib("RssAnon", "RssFile", "VmHWM")
        return own, mapped, peak

    def _fields_mib(self, *names: str) -> list[float]:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        return [int(fields[name].split()[0]) / 1024 for name in names]


@contextmanager
def serving(script: str, *arguments: str, data: Path) -> Iterator[Served]:
    """Runs `streamlit run script -- arguments` for as long as the block lasts. data: the folder searched for runs.

    Raises: TimeoutError where it does not answer within three minutes.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--server.headless", "true", "--server.port", str(port)]
    command = [sys.executable, "-m", "streamlit", "run", script, *options, "--", *arguments]
    environment = {**os.environ, "CLIPSEL_DATA": str(data)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    served = Served(f"http://127.0.0.1:{port}", process.pid)
    try:
        deadline = time.monotonic() + 180
        while not _answers(f"{served.url}/_stcore/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"{script} did not start")
            time.sleep(0.05)
        yield served
    finally:
        process.terminate()
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=1).status == 200
    except OSError:
        return False
