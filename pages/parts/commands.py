"""What would a person type to do this from the command line? Quoted, ready to paste."""

from __future__ import annotations

import shlex

from clipsel_core.jobs.control import Option
from clipsel_core.runs.store import Run, RunConfig


def command(*words: object) -> str:
    """A clipsel command line of these words.

    >>> command("project", "my runs/first")
    "clipsel project 'my runs/first'"
    """
    return shlex.join(["clipsel", *map(str, words)])


def score_again(run: Run) -> str:
    """The command that goes on with a run where it stopped: the one that started it, with all that it said."""
    words: list[object] = ["score", run.pool_root, run.root]
    for name, value in score_options(run).items():
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{name}", one]
    return command(*words)


def score_options(run: Run) -> dict[str, Option]:
    """The options of the command that started a run, by name; those that are as usual are left out."""
    config, usual = run.config, RunConfig.model_fields
    options: dict[str, Option] = {}
    for field in ("arch", "temperature", "batch_size", "divisions", "seed", "on_bad_rows", "precision"):
        value = getattr(config, field)
        if usual[field].is_required() or value != usual[field].default:
            options[field.replace("_", "-")] = value
    if config.targets:
        options["target"] = [f"{target.name}={(run.root / target.path).resolve()}" for target in config.targets]
    if config.targets and config.norms != usual["norms"].default:
        options["norm"] = list(config.norms)
    return options
