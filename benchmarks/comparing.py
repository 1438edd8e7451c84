"""How long do the Select page's two panels and the Compare page wait for the core? Seconds, on a run that is there.

    python -m benchmarks.synthetic_run DIR --rows 12800000 --shards 128 --no-pool
    python -m benchmarks.comparing DIR/run

Each figure is the second of two calls, so the columns have been read. The run is compared with itself: sorting does not
know the difference.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from clipsel_core.curation.exploring.agreement import align, measure_agreement, overlap, tops
from clipsel_core.curation.index.index import open_indexed
from clipsel_core.curation.recipes.recipe import parse_recipe
from clipsel_core.curation.selecting.live import boundary
from clipsel_core.curation.selecting.selection import Picker, select
from clipsel_core.curation.selecting.stability import stability
from clipsel_core.runs.store import Run

_RECIPE = "steps: [{metric: s_cliploss, keep_top: 0.3}, {metric: normsim_inf_task, keep_top: 0.2}]"


def seconds(work: Callable[[], object]) -> float:
    """How long the second of two calls takes."""
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Prints a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    run = Run.open(parser.parse_args().run)
    table, recipe = open_indexed(run), parse_recipe(_RECIPE)
    picker = Picker(table)
    picked = select(run, recipe, table)
    alignment = align(table, open_indexed(run))
    sets = {str(place): picked.bits() for place in range(6)}
    works: dict[str, Callable[[], object]] = {
        "pairs at the threshold of step 1": lambda: boundary(picker, recipe, 0),
        "pairs at the threshold of step 2": lambda: boundary(picker, recipe, 1),
        "under another seed": lambda: stability(picked, recipe),
        "overlap of six selections": lambda: overlap(sets),
        "two runs: matching their pairs": lambda: align(table, alignment.second),
        "two runs: agreement on one metric": lambda: measure_agreement(alignment, "s_cliploss"),
        "two runs: the tops at 30 %": lambda: tops(alignment, "s_cliploss", Fraction(3, 10)),
    }
    for name, work in works.items():
        print(f"{name:<36}{seconds(work):8.2f} s", flush=True)
    print(f"{'most memory':<36}{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:8.2f} GiB")


if __name__ == "__main__":
    main()
