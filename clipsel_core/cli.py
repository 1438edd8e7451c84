"""The command line: puts the commands together, and turns the errors of the core into one line.

Exit codes: 0 done; 1 the work failed or the input is bad; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from clipsel_core import __version__
from clipsel_core.commands import columns, pools, runs, selections, workspace
from clipsel_core.errors import ClipselError, reason_of
from clipsel_core.status import INTERRUPTED, State
from clipsel_core.terminal import complain, report_end, report_to, say

# What help calls a value, by the type that the command takes it as.
_WORDS = {"Place": "PATH", "path": "PATH", "str": "TEXT", "int": "INTEGER", "float": "NUMBER"}


class _Command(TyperCommand):
    """A command whose help says what a value is in the words of who types it."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the arguments and the options, each with what it is."""
        for kind, title in (("argument", "Arguments"), ("option", "Options")):
            records = [param.get_help_record(ctx) for param in self.get_params(ctx) if param.param_type_name == kind]
            rows = [(_in_words(name), text) for name, text in filter(None, records)]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _in_words(name: str) -> str:
    """A parameter's name and type as typer writes them, "--norm <list[str]>", as "--norm TEXT"."""
    before, mark, kind = name.partition("<")
    kind = re.sub(r"list\[(.*)\]", r"\1", kind.replace(">", "").removesuffix(" range"))
    return before + (re.sub(r"\w+", lambda word: _WORDS.get(word[0], word[0]), kind) if mark else "")


app = typer.Typer(
    help="Score pools of image-text pairs with a frozen CLIP, and select what to train on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# How a command ended, by its exit code: as others are told.
_ENDINGS: dict[object, tuple[State, str]] = {
    0: ("done", ""),
    2: ("failed", "wrong usage"),
    130: ("stopped", INTERRUPTED),
}
# In the order that --help lists them in.
for _command in (
    workspace.app,
    pools.inspect,
    pools.embed,
    pools.embed_images,
    runs.score,
    runs.add_target,
    columns.columns,
    columns.add_column,
    columns.remove_column,
    runs.project,
    runs.encode,
    runs.search,
    selections.recipes,
    selections.select,
    selections.export,
    selections.compare,
    runs.verify,
    workspace.demo,
    workspace.doctor,
):
    app.command(cls=_Command)(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show it.")
    ] = False,
    status: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="A file that says, as JSON, how far the command is.", show_default=False),
    ] = None,
) -> None:
    """Score pools of image-text pairs with a frozen CLIP, and select what to train on."""
    if status:
        report_to(status)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if debug:
        os.environ["CLIPSEL_DEBUG"] = "1"


_interrupted: list[int] = []
_GRACE_S = 10.0


def _interrupt(number: int, _: object) -> None:
    """Ends what runs. Destructors swallow that, and so does DuckDB while a query begins: then the process ends."""

    def end() -> None:
        """Ends the process where it stands; its next start clears up as after any other kill."""
        report_end("stopped", INTERRUPTED)
        complain(INTERRUPTED)
        os._exit(130)

    if not _interrupted:
        last = threading.Timer(_GRACE_S, end)
        last.daemon = True
        last.start()
    _interrupted.append(number)
    raise KeyboardInterrupt


def run() -> None:
    """Runs the command line and exits with its code. Asked to terminate, it ends as if interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    # Shells have what they start in the background ignore it.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        try:
            app()
        except BaseException as error:
            # Libraries make errors of their own of it: DuckDB a RuntimeError, Arrow an ArrowCancelled.
            if (
                isinstance(error, Exception | KeyboardInterrupt)
                and _interrupted
                and not os.environ.get("CLIPSEL_DEBUG")
            ):
                raise SystemExit(130) from error
            raise
    except (ClipselError, OSError) as error:
        if isinstance(error, OSError):
            # A file or a disk failed where no command expected it.
            where, remedy = error.filename or "the disk", "make room, or choose another folder, then start again"
            said = str(ClipselError(where, expected="to read and write it", found=reason_of(error), remedy=remedy))
        else:
            said = str(error)
        report_end("failed", said)
        if os.environ.get("CLIPSEL_DEBUG"):
            raise
        complain(said)
        sys.exit(1)
    except SystemExit as ending:
        state, said = _ENDINGS.get(ending.code, ("failed", f"exit code {ending.code}"))
        report_end(state, said)
        if state == "stopped":
            complain(said)
        raise
    except BaseException as error:
        report_end("failed", f"{type(error).__name__}: {error}")
        raise
