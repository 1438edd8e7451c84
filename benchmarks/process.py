"""How long does a command take, and how much memory at its highest?

The kernel counts what a process holds between fork and exec as the child's own peak, and that is the parent's memory.
So a command is started by a launcher, a process that has imported next to nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys

_LAUNCHER = """
import json, os, sys, time
start = time.perf_counter()
pid = os.posix_spawn(sys.executable, [sys.executable, *sys.argv[1:]], os.environ)
_, status, usage = os.wait4(pid, 0)
seconds = time.perf_counter() - start
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss / 1024]), file=sys.stderr)
"""


def measure(module: str, *arguments: str) -> tuple[float, float]:
    """Seconds and peak resident memory in MiB of `python -m module arguments`, start and imports included.

    Raises: RuntimeError with the last line of its error output where the command fails.
    """
    command = [sys.executable, "-S", "-c", _LAUNCHER, "-m", module, *arguments]
    told = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True).stderr
    *errors, result = told.strip().splitlines()
    code, seconds, mib = json.loads(result)
    if code:
        raise RuntimeError(f"{module} failed with exit code {code}: {errors[-1] if errors else ''}")
    return seconds, mib
