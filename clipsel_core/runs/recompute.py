"""Are a run's scores those of its pool? Some pairs are computed again, in float64 and without the scorer's kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from clipsel_core.errors import ClipselError, RunError, TargetError
from clipsel_core.pool.embeddings import read_pairs
from clipsel_core.pool.layout import Pool, Shard, open_pool, read_uids
from clipsel_core.runs.store import UID_HALVES, Run, SealedFiles, as_array, placed
from clipsel_core.runs.targets import load_target
from clipsel_core.scoring.s_cliploss import division
from clipsel_core.tasks import Report, silent

# What float32 may differ by from float64, of values of about 1 and in proportion.
TOLERANCE = 2e-5
# Similarities that are held at once: 256 MiB.
_AT_ONCE = 1 << 25
_COLUMNS = 1 << 14
# Lines for one metric of one group.
_EXAMPLES = 3


def recompute(run: Run, pairs: int, *, seed: int = 0, report: Report = silent) -> tuple[list[str], list[str]]:
    """Computes every metric of some pairs again, and compares them and the pairs' uids with what the run has.

    pairs: how many, drawn by `seed` from the whole run; each takes a pass over the shards that it was scored with.
    report: told how many of the pairs are done.
    Returns: problems, a line each; and what was not compared, and why.
    Raises: ClipselError where the pool cannot be read.
    """
    pool, config = open_pool(run.pool_root), run.config
    known, targets, problems = {shard.name: shard for shard in pool.shards}, {}, []
    notes = [] if config.precision == "exact" else [f"r_image, r_text, normalizer_se: rounded to {config.precision}"]
    for info in run.targets:
        try:
            now, target = load_target(info.name, placed(run.root, info.path), pool, pool.arch(config.arch), run.root)
            if now.sha256 != info.sha256:
                expected = f"the target {info.name} as it was scored with"
                raise TargetError(placed(run.root, info.path), expected=expected, found="another file")
            targets[info.name] = target.numpy()
        except ClipselError as error:
            problems.append(str(error))
    rows = np.sort(np.random.default_rng(seed).permutation(config.pairs)[:pairs])
    ends, done = np.cumsum([shard.rows for shard in config.shards]), 0
    for first in range(0, len(config.shards), config.mix_shards):
        group = config.shards[first : first + config.mix_shards]
        start, end = ends[first] - group[0].rows, ends[first + len(group) - 1]
        drawn = rows[(rows >= start) & (rows < end)] - start
        if not len(drawn):
            continue
        shards = [known.get(shard.name) for shard in group]
        for shard, was in zip(shards, group, strict=True):
            if shard is None or shard.rows != was.rows:
                raise RunError(f"{pool.root}, shard {was.name}", expected="the pool that was scored", found="another")
        problems += _differences(run, pool, [shard for shard in shards if shard], drawn, targets)
        done += len(drawn)
        report(done, len(rows), "pairs")
    return problems, notes


def _differences(
    run: Run, pool: Pool, shards: Sequence[Shard], drawn: np.ndarray, targets: dict[str, np.ndarray]
) -> Iterator[str]:
    """What is off in a group of shards. drawn: (n,) rows, counted from the group's first."""
    ends = np.cumsum([shard.rows for shard in shards])
    place = np.searchsorted(ends, drawn, side="right")
    within = drawn - (ends - [shard.rows for shard in shards])[place]

    def where(index: int, column: str) -> str:
        return f"{run.file_with(column, shards[place[index]].name)}, row {within[index]}"

    keys = np.concatenate([read_uids(shard) for shard in shards])[drawn]
    for half, field in zip(UID_HALVES, ("f0", "f1"), strict=True):
        for index in map(int, np.flatnonzero(_scored(run, shards, half)[drawn] != keys[field])):
            yield f"{where(index, half)}: expected the pool's uid, found another"
            return
    for metric, values in _metrics(run, pool, shards, drawn, targets):
        found = _scored(run, shards, metric)[drawn]
        off = ~np.isclose(found, values, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        for index in map(int, np.flatnonzero(off)[:_EXAMPLES]):
            expected = f"{metric} {values[index]:.6f}, as in float64"
            yield f"{where(index, metric)}: expected {expected}, found {found[index]:.6f}"


def _scored(run: Run, shards: Sequence[Shard], column: str) -> np.ndarray:
    """A column of the run, for these shards one after the other."""
    files = SealedFiles(run.root, run.config, run.added_with(column))
    return np.concatenate([as_array(files.read(shard.name, [column])[column].combine_chunks()) for shard in shards])


def _metrics(
    run: Run, pool: Pool, shards: Sequence[Shard], drawn: np.ndarray, targets: dict[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Each metric of the drawn rows, (n,) float64, NaN where a row is set aside."""
    config = run.config
    parts = [read_pairs(shard, pool.arch(config.arch), on_bad_rows=config.on_bad_rows) for shard in shards]
    usable = np.concatenate([part.usable for part in parts])
    image, text = (np.concatenate([getattr(part, side) for part in parts])[usable] for side in ("image", "text"))
    of_pair = (np.cumsum(usable) - 1)[drawn[usable[drawn]]]

    def spread(values: np.ndarray) -> np.ndarray:
        found = np.full(len(drawn), np.nan)
        found[usable[drawn]] = values
        return found

    own = np.einsum("nd,nd->n", image[of_pair].astype(np.float64), text[of_pair].astype(np.float64))
    yield "clip_score", spread(own)
    if config.precision == "exact":
        r_image, r_text = _halves(run, image, text, of_pair, "\n".join(s.name for s in shards))
        both = r_image + r_text
        yield "r_image", spread(r_image.mean(0))
        yield "r_text", spread(r_text.mean(0))
        yield "s_cliploss", spread(own - both.mean(0))
        spread_of_mean = both.std(0, ddof=1) / np.sqrt(len(both)) if len(both) > 1 else np.zeros(len(own))
        yield "normalizer_se", spread(spread_of_mean)
    for name, target in targets.items():
        added = next((added for added in run.added_targets if added.target.name == name), None)
        if target.dtype == np.float64:
            one = image[of_pair].astype(np.float64)
            yield f"normsim_2_{name}", spread(np.sqrt(np.einsum("nd,de,ne->n", one, target, one, optimize=True)))
            continue
        for p in (added or config).norms:
            power, total = float(p), np.zeros(len(own))
            for near in map(np.abs, _similarities(image[of_pair], target)):
                total = np.maximum(total, near.max(1)) if np.isinf(power) else total + (near**power).sum(1)
            yield f"normsim_{p}_{name}", spread(total if np.isinf(power) else total ** (1 / power))


def _halves(
    run: Run, image: np.ndarray, text: np.ndarray, rows: np.ndarray, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """tau/2 log of the sum over each row's batch of exp(similarity / tau): of images and of captions, (K, n) each."""
    config, n = run.config, len(image)
    batch_of = np.zeros((1 if n <= config.batch_size else config.divisions, n), np.int32)
    for index, numbers in enumerate(batch_of):
        batches = division(n, batch_size=config.batch_size, seed=config.seed, name=name, index=index)
        for number, batch in enumerate(batches):
            numbers[batch] = number
    halves = np.empty((2, len(batch_of), len(rows)))
    for half, one, others in ((halves[0], image, text), (halves[1], text, image)):
        together = max(1, _AT_ONCE // n)
        for start in range(0, len(rows), together):
            here = rows[start : start + together]
            logits = np.concatenate(list(_similarities(one[here], others)), 1) / config.temperature
            for index, numbers in enumerate(batch_of):
                mine = np.where(numbers == numbers[here][:, None], logits, -np.inf)
                half[index, start : start + together] = np.logaddexp.reduce(mine, axis=1)
    return halves[0] * config.temperature / 2, halves[1] * config.temperature / 2


def _similarities(rows: np.ndarray, others: np.ndarray) -> Iterator[np.ndarray]:
    """rows . others^T in float64, some columns at a time."""
    for start in range(0, len(others), _COLUMNS):
        yield rows.astype(np.float64) @ others[start : start + _COLUMNS].astype(np.float64).T
