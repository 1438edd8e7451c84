"""python -m benchmarks [PART ...]: measures and prints one table.

Parts: accuracy, normalizer, normsim, reading, memory, selection, looking, gpu; all of them when none is named. Only
when they are named: score, add-target and embed, which take minutes (embed comes in parts, too: embed-device,
embed-vit, embed-rn50, embed-mobile, embed-small, embed-memory, embed-image), exploring, which needs a run of --rows
pairs, dashboard and starting, which need Chromium and minutes besides, columns, mixing, sampling, normsim-2d, cluster
and stores, which take minutes, and growth, which takes minutes and writes the plots in benchmarks/growth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import (
    accuracy,
    cluster,
    columns,
    dashboard,
    embed,
    end_to_end,
    exemplars,
    exploring,
    gpu,
    growth,
    looking,
    memory,
    normsim_2d,
    reading,
    sampling,
    scale,
    selection,
    speed,
    starting,
    stores,
)
from benchmarks.table import Row, machine, markdown


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures and prints one table.")
    parts = (
        "accuracy, normalizer, normsim, reading, memory, selection, looking, gpu, score, add-target, exploring, "
        f"dashboard, starting, embed, {', '.join(embed.PARTS)}, columns, mixing, "
        "sampling, normsim-2d, growth, scale, cluster, stores"
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=parts)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of the timed parts (7)")
    parser.add_argument(
        "--large",
        action="store_true",
        help="the normalizer at B = 32768 (13 GB), selecting from 128 million pairs (8 GB, 6 GB of disk), and columns "
        "of as many (4 GB, 12 GB of disk), and mixing them (5 GB, 10 GB of disk) as well",
    )
    parser.add_argument("--rows", type=int, default=12_800_000, help="exploring, dashboard: pairs (12800000)")
    parser.add_argument("--folder", type=Path, help="of these two: keeps the synthetic run here")
    waits = f"dashboard: which of its waits, {', '.join(dashboard.WAITS)}; all by default"
    parser.add_argument(
        "--waits", nargs="+", choices=dashboard.WAITS, default=dashboard.WAITS, metavar="WAIT", help=waits
    )
    parser.add_argument("--no-plain", action="store_true", help="dashboard: without the plain page, 50 bytes a pair")
    large_ones = f"embed-vit, -rn50, -mobile: pairs ({embed.FOR_A_LARGE_ONE})"
    pairs = f"growth, normsim-2d: pairs of the largest pool (1000000; scale: 12800000); sampling: pairs; {large_ones}"
    parser.add_argument("--pairs", type=int, help=pairs)
    asked = parser.parse_args()
    known = _parts(asked.rounds, asked.large)
    large = min(asked.pairs or embed.FOR_A_LARGE_ONE, embed.MANY)
    alone: dict[str, Callable[[], list[Row]]] = {
        "exploring": lambda: exploring.measure(asked.rows, asked.folder, asked.rounds),
        "dashboard": lambda: dashboard.measure(
            asked.rows, asked.folder, asked.rounds, asked.waits, plain=not asked.no_plain
        ),
        "score": lambda: end_to_end.measure(max(1, asked.rounds // 2)),
        "add-target": lambda: exemplars.measure(asked.rounds),
        "embed": lambda: embed.measure(turns=asked.rounds),
        **{part: partial(embed.measure, [part], asked.rounds, large) for part in embed.PARTS},
        "starting": lambda: starting.measure(max(1, asked.rounds // 2)),
        "columns": lambda: (
            columns.measure(max(1, asked.rounds // 2)) + (columns.measure_large() if asked.large else [])
        ),
        "mixing": lambda: selection.measure_mixed() + (selection.measure_mixed(128_000_000) if asked.large else []),
        "sampling": lambda: sampling.measure(asked.pairs or 12_800_000) + sampling.measure_agreement(),
        "normsim-2d": lambda: normsim_2d.measure(asked.pairs or 1_000_000),
        "cluster": lambda: cluster.measure(max(1, asked.rounds // 2)),
        "stores": lambda: stores.measure(asked.rounds),
        "growth": lambda: growth.measure(asked.pairs or 1_000_000),
        "scale": lambda: scale.measure(asked.pairs or 12_800_000),
    }
    unknown = [part for part in asked.parts if part not in known | alone]
    if unknown or asked.rounds < 1:
        parser.error(
            f"unknown part {unknown[0]}; one of {', '.join(known | alone)}" if unknown else "--rounds is at least 1"
        )
    rows = [row for part in asked.parts or known for row in (known | alone)[part]()]
    print(f"{machine()}\n\n{markdown(rows)}")


def _parts(rounds: int, large: bool) -> dict[str, Callable[[], list[Row]]]:
    def normalizer() -> list[Row]:
        rows = speed.normalizer_rows(16384, rounds, ratio_to_hold=2.0)
        if large:
            rows += speed.normalizer_rows(32768, max(1, rounds // 2), ratio_to_hold=2.4)
        return rows

    return {
        "accuracy": accuracy.measure,
        "normalizer": normalizer,
        "normsim": lambda: speed.normsim_rows(8192, 16384, rounds),
        "reading": lambda: reading.measure(3 * rounds),
        "memory": memory.measure,
        "selection": lambda: selection.measure() + (selection.measure_large() if large else []),
        "looking": lambda: looking.measure(rounds),
        "gpu": lambda: gpu.measure(rounds),
    }


if __name__ == "__main__":
    main()
