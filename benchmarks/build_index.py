"""Builds a run's index from nothing and says how long it took: python -m benchmarks.build_index RUN"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from pathlib import Path

from clipsel_core.curation.index.index import open_indexed, wait_until_kept
from clipsel_core.runs.store import Run


def main() -> None:
    """Prints the milliseconds until a server has it and until it is on the disk, the process's peak in MiB, and the
    seconds of a core until a server has it, which other work hardly changes."""
    run = Run.open(Path(sys.argv[1]))
    shutil.rmtree(Path(run.root) / "index", ignore_errors=True)
    start, busy = time.perf_counter(), time.process_time()
    open_indexed(run, fewest=0)
    milliseconds, core_s = 1000 * (time.perf_counter() - start), time.process_time() - busy
    wait_until_kept()
    kept = 1000 * (time.perf_counter() - start)
    print(json.dumps([milliseconds, kept, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, core_s]))


if __name__ == "__main__":
    main()
