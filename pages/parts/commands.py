"""What would a person type to do this from the command line? Quoted, ready to paste."""

from __future__ import annotations

import shlex
from pathlib import Path

from clipsel_core.runs.config import RunConfig
from clipsel_core.runs.store import Run


def command(*words: object) -> str:
    """A clipsel command line of these words.

    >>> command("project", "my runs/first")
    "python -m clipsel_core project 'my runs/first'"
    """
    return shlex.join(["python", "-m", "clipsel_core", *map(str, words)])


def score_again(run: Run) -> str:
    """The command that goes on with a run where it stopped: the one that started it, with all that it said."""
    config = run.config
    usual = RunConfig.model_fields
    named = {
        "--arch": config.arch,
        "--temperature": config.temperature,
        "--batch-size": config.batch_size,
        "--divisions": config.divisions,
        "--seed": config.seed,
        "--on-bad-rows": config.on_bad_rows,
    }
    words: list[object] = ["score", run.pool_root, run.root]
    for option, value in named.items():
        field = usual[option.removeprefix("--").replace("-", "_")]
        if field.is_required() or value != field.default:
            words += [option, value]
    for target in config.targets:
        words += ["--target", f"{target.name}={_located(run.root, target.path)}"]
    if config.targets and config.norms != usual["norms"].default:
        words += [word for p in config.norms for word in ("--norm", p)]
    return command(*words)


def _located(root: Path, path: str) -> Path:
    return (root / path).resolve()
