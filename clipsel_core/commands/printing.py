"""What does a command say of what came out? Tables, and lines ready for other programs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from clipsel_core.counts import counted
from clipsel_core.terminal import conclude, say, show

if TYPE_CHECKING:
    from clipsel_core.curation.selecting.overlap import Overlap
    from clipsel_core.curation.selecting.selection import Selection
    from clipsel_core.doctor import Finding
    from clipsel_core.pool.inspect import PoolReport
    from clipsel_core.pool.making.extend import Extended
    from clipsel_core.pool.making.make import Made


def print_pool(report: PoolReport) -> None:
    """What `inspect` found: a table of facts, then a line a problem."""
    pool = report.pool
    archs = ", ".join(f"{arch.name} (width {arch.width})" for arch in pool.archs.values())
    images = counted(len(pool.tars), "tars") if pool.tars else "none in shards/"
    images = "where they were, by the index in images/" if pool.indexes else images
    rows = [shard.rows for shard in pool.shards]
    span = counted(max(rows), "rows")
    span = span if min(rows) == max(rows) else f"{min(rows):,} to {span}"
    facts = {
        "shards": f"{len(rows):,} ({report.npz_count:,} with embeddings), {span}",
        "pairs": f"{pool.rows:,}",
        "teachers": archs or "none",
        "columns": ", ".join(pool.columns),
        "captions": pool.text_column or "none",
        "images": images,
        "problems": f"{len(report.problems):,}" if report.problems else "none",
    }
    table = Table(title=str(pool.root), title_justify="left", show_header=False)
    for name, fact in facts.items():
        table.add_row(name, Text(fact))
    show(table)
    for problem in report.problems:
        say(f"{'error' if problem.stops else 'note'}: {problem.text}")


def print_funnel(selection: Selection) -> None:
    """What each step of a recipe dropped."""
    table = Table("step", title_justify="left")
    for heading in ("kept", "dropped", "alone it drops", "threshold"):
        table.add_column(heading, justify="right")
    table.add_row("pool", f"{selection.total:,}", "", "", "")
    for step in selection.report:
        threshold = "" if step.threshold is None else f"{step.threshold:.6g}"
        table.add_row(Text(step.text), f"{step.kept_after:,}", f"{step.dropped:,}", f"{step.alone_drops:,}", threshold)
    show(table)


def print_overlap(overlap: Overlap) -> None:
    """What each two of several selections share: pairs in both, and of the row's pairs and of either's in percent."""
    table = Table("selection", title_justify="left")
    table.add_column("pairs", justify="right")
    for place, _ in enumerate(overlap.names):
        table.add_column(f"in {place + 1}", justify="right")
    for i, name in enumerate(overlap.names):
        cells = [_shared(overlap, i, j) for j, _ in enumerate(overlap.names)]
        table.add_row(Text(f"{i + 1}  {Path(name).name}"), f"{overlap.sizes[i]:,}", *cells)
    show(table)
    say("in k: pairs that selection k has too, their share of the row, and of both together (J, Jaccard)")


def _shared(overlap: Overlap, i: int, j: int) -> str:
    if i == j:
        return "-"
    part, jaccard = overlap.of_row[i, j], overlap.jaccard[i, j]
    of_row = "-" if math.isnan(part) else f"{100 * part:.1f} %"
    return f"{overlap.both[i, j]:,}\n{of_row}\nJ {100 * jaccard:.1f} %"


def print_findings(findings: list[Finding]) -> None:
    """What `doctor` found: a table, an area after the other."""
    table = Table(title="clipsel", title_justify="left", show_header=False)
    for _ in range(4):
        table.add_column(overflow="fold")
    marks = {"ok": "", "absent": "-", "wrong": "!"}
    before = ""
    for finding in findings:
        if finding.area != before:
            table.add_section()
        cells = (finding.area if finding.area != before else "", finding.name)
        table.add_row(*map(Text, (*cells, f"{marks[finding.state]} {finding.value}".strip(), finding.remedy)))
        before = finding.area
    show(table)


def print_commands(what: str, *lines: str) -> None:
    """Command lines to go on with, ready to paste."""
    say(what)
    for line in lines:
        say(f"  {line}")


def print_found(names: list[str], similarity: Iterable[float]) -> None:
    """Uids and similarities, a line each, ready for other programs."""
    for name, value in zip(names, similarity, strict=True):
        say(f"{name} {value:.6f}")


def print_made(root: Path, made: Made) -> None:
    """What `embed` made, and what it could not use."""
    rate = f"; {made.embedded:,} embedded now, {made.embedded / made.seconds:,.0f} pairs/s" if made.embedded else ""
    conclude(f"{root}: {made.kept:,} of {counted(made.read, 'pairs')} in {counted(made.shards, 'shards')}{rate}")
    if made.reasons:
        conclude(f"rejected: {sum(made.reasons.values()):,}, listed in {root / 'rejected.parquet'}")
    for reason, count in made.reasons.most_common():
        conclude(f"  {count:,} {reason}")
    if made.derived:
        conclude(
            f"uids that are neither 32 hex digits nor a UUID with dashes: {made.derived:,}; these pairs got a derived"
            " uid, and the source's own is in the column source_uid"
        )
    if made.repeated:
        conclude(f"uids that came again and were told apart: {made.repeated:,}, listed in {root / 'repeated.parquet'}")


def print_extended(root: Path, arch: str, extended: Extended) -> None:
    """What `embed` added to a pool that was there, and what it could not."""
    rate = (
        f"; {extended.embedded:,} now, {extended.embedded / extended.seconds:,.0f} pairs/s" if extended.embedded else ""
    )
    done = extended.pairs - extended.set_aside
    where = f"{counted(extended.pairs, 'pairs')} in {counted(extended.shards, 'shards')}"
    conclude(f"{root}: {arch} for {done:,} of {where}, by {extended.by}{rate}")
    if extended.reasons:
        conclude(f"set aside: {extended.set_aside:,}, listed in {root / f'set_aside_{arch}.parquet'}")
        for reason, count in extended.reasons.most_common():
            conclude(f"  {count:,} {reason}")
        conclude(f"score --arch {arch} --on-bad-rows skip scores the others")
    if extended.strangers:
        conclude(f"images of the source that are none of the pool's: {extended.strangers:,}")
    if extended.repeated:
        conclude(f"images of pairs that had one already: {extended.repeated:,}; the first of each was taken")
