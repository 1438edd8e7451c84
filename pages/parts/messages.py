"""How does a page say something? As a title, a note, facts, what is missing, or a command.

What others wrote stays plain text. Commands are quoted, ready to paste.
"""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import streamlit as st
from pyarrow import json as pajson

from clipsel_core.errors import ClipselError, RunError, reason_of
from clipsel_core.runs.store import Run, RunConfig, placed


def show_title(text: str, note: str = "") -> None:
    """What a chart or a gallery shows, with a quiet note behind it."""
    behind = f" <span>{html.escape(note)}</span>" if note else ""
    st.html(f'<div class="shows"><b>{html.escape(text)}</b>{behind}</div>')


def show_note(text: str) -> None:
    """A quiet sentence."""
    st.html(f'<div class="note">{html.escape(text)}</div>')


def show_facts(facts: Mapping[str, str]) -> None:
    """A quiet list of names and values."""
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
    st.html(f'<dl class="facts">{rows}</dl>')


def show_table(rows: Sequence[Mapping[str, Any]], **shown: Any) -> None:
    """A table of Python's own values; a dash stands for NaN and for None. shown: as st.dataframe takes it."""
    # JSON has no NaN, which alone is not equal to itself.
    lines = [json.dumps({name: value if value == value else None for name, value in row.items()}) for row in rows]
    # Made of JSON: of Python's values pyarrow makes arrays with pandas alone, whose import takes 0.3 s.
    # Texts are named as such: those that look like dates would become dates.
    texts = pa.schema([(name, pa.string()) for name in rows[0] if any(isinstance(row[name], str) for row in rows)])
    source = pa.BufferReader("\n".join(lines).encode())
    table = pajson.read_json(source, parse_options=pajson.ParseOptions(explicit_schema=texts))
    st.dataframe(table, hide_index=True, placeholder="–", **shown)


def show_empty(title: str, why: str, command: str = "") -> None:
    """A calm note in place of a chart. title and why are our own words; command is shown to be copied."""
    with st.container(border=True):
        st.markdown(f"**{title}**")
        st.caption(why)
        if command:
            st.code(command, language="bash", wrap_lines=True)


def show_unfinished(run: Run) -> None:
    """Says that what the page counts and exports is not the whole run's, where that is so."""
    if not run.finished:
        scored, planned = len(run.score_files), len(run.config.shards)
        st.warning(
            f"This run is unfinished: {scored:,} of {planned:,} shards are scored. Shares, counts and exports are of "
            "their pairs alone.",
            icon=":material/warning:",
        )


def show_error(error: Exception | str, title: str) -> None:
    """An error in its own words, as text: it may quote a file that somebody else wrote."""
    st.error(title, icon=":material/warning:")
    st.code(str(error), language=None, wrap_lines=True)


def error_text(error: Exception) -> str:
    """An error's own words; of the system's errors the file and the reason."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {reason_of(error)}"
    return str(error)


def not_written(error: Exception, where: object) -> ClipselError:
    """What is wrong with a file that cannot be written, in the words of all errors."""
    if isinstance(error, ClipselError):
        return error
    found = getattr(error, "strerror", None) or str(error)
    return RunError(where, expected="to write it", found=found, remedy="make room, or allow writing to its folder")


def command(*words: object) -> str:
    """A clipsel command line of these words.

    >>> command("project", "my runs/first")
    "clipsel project 'my runs/first'"
    """
    return shlex.join(["clipsel", *map(str, words)])


def score_again(run: Run) -> str:
    """The command that goes on with a run where it stopped: the one that started it, with all that it said."""
    words: list[object] = ["score", run.pool_address, run.root]
    for name, value in score_options(run).items():
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{name}", one]
    return command(*words)


def score_options(run: Run) -> dict[str, float | str | list[str]]:
    """The options of the command that started a run, by name; those that are as usual are left out."""
    config, usual = run.config, RunConfig.model_fields
    options: dict[str, float | str | list[str]] = {}
    for field in ("arch", "temperature", "batch_size", "divisions", "seed", "on_bad_rows", "precision"):
        value = getattr(config, field)
        if usual[field].is_required() or value != usual[field].default:
            options[field.replace("_", "-")] = value
    if config.targets:
        options["target"] = [f"{target.name}={placed(run.root, target.given)}" for target in config.targets]
    if config.targets and config.norms != usual["norms"].default:
        options["norm"] = list(config.norms)
    return options
