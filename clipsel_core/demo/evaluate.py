"""What does each recipe of the demo keep? The faults of the kept pairs, as a table.

Run it with `python -m clipsel_core.demo.evaluate [RUN]`.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np

from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import load_recipe
from clipsel_core.curation.selecting.selection import select
from clipsel_core.demo.pairs import POOL_SHARES
from clipsel_core.runs.store import Run


def fault_shares(run: Run) -> dict[str, dict[str, float]]:
    """For the whole pool and for each of the run's recipes: which share of the kept pairs has each fault, in [0, 1]."""
    table = ScoreTable.open(run)
    faults = table.metadata.of(np.arange(len(table)), ("fault",))["fault"]
    kept = {"the whole pool": faults}
    for name in run.recipes_dir.names():
        recipe = load_recipe(run.recipes_dir / name)
        kept[recipe.name or Path(name).stem] = faults[select(run, recipe, table).rows]
    counts = {name: Counter(values) for name, values in kept.items()}
    return {name: {fault: of[fault] / of.total() for fault in POOL_SHARES} for name, of in counts.items()}


def markdown(shares: dict[str, dict[str, float]]) -> str:
    """The shares as a Markdown table, a row a recipe, in per cent."""
    lines = ["| kept by | " + " | ".join(POOL_SHARES) + " |", "|---|" + "---:|" * len(POOL_SHARES)]
    for name, row in shares.items():
        lines.append(f"| {name} | " + " | ".join(f"{100 * row[fault]:.1f} %" for fault in POOL_SHARES) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(fault_shares(Run.open(Path(sys.argv[1] if len(sys.argv) > 1 else "data/demo/run")))))
