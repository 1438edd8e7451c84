"""What can go wrong, in words a person can act on, and how are these words carried from one process to another?"""

from __future__ import annotations

import copyreg
import os
from collections.abc import Iterator
from typing import Any

_LONGEST_QUOTE = 60


class ClipselError(Exception):
    """Base of every error that clipsel raises on purpose; its text is one line.

    where: the file, shard, row or line that is wrong.
    expected, found: both sides of the disagreement.
    remedy: what to do about it. What cannot be printed, as files may be called or hold, is U+FFFD.

    >>> str(ClipselError("00012.npz", expected="10,000 rows", found="9,998", remedy="download it again"))
    '00012.npz: expected 10,000 rows, found 9,998; download it again'
    """

    def __init__(self, where: object, *, expected: str, found: str, remedy: str = "") -> None:
        self.where, self.expected, self.found, self.remedy = str(where), expected, found, remedy
        line = f"{where}: expected {expected}, found {found}" + (f"; {remedy}" if remedy else "")
        super().__init__("".join(c if c.isprintable() else "\ufffd" for c in " ".join(line.split())))

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception would be made again from its text alone.
        return copyreg.__newobj__, (type(self), *self.args), vars(self).copy()  # type: ignore[attr-defined]


def reason_of(error: Exception) -> str:
    """Why something could not be read, in one line: the system's words, or the reader's without its advice to unpickle.

    >>> reason_of(FileNotFoundError(2, "No such file or directory", "a.npy")), reason_of(EOFError())
    ('No such file or directory', 'EOFError')
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = str(error).split("\n")[0] or type(error).__name__
    return "no plain array" if "pickle" in said or "Python objects" in said else said


def quoted(value: object) -> str:
    """A value from outside as an error quotes it: on one line, without control characters, 60 characters at most.

    >>> print(quoted("a tab:\\t"))
    'a tab:\\t'
    """
    said = repr(value)
    return said if len(said) <= _LONGEST_QUOTE else f"{said[:_LONGEST_QUOTE]}..."


def counted(number: float, things: str) -> str:
    """So many of them, thousands separated. things: their plural, which ends in a bare s.

    >>> counted(1, "pairs"), counted(12_800_000, "pairs"), counted(0, "tars")
    ('1 pair', '12,800,000 pairs', '0 tars')
    """
    return f"{int(number):,} {things_of(number, things)}"


def things_of(number: float, things: str) -> str:
    """The word alone, for where the number stands elsewhere. number, things: as in counted.

    >>> things_of(1, "pairs"), things_of(2, "pairs")
    ('pair', 'pairs')
    """
    return things.removesuffix("s") if int(number) == 1 else things


def duration(seconds: float) -> str:
    """A length of time in the two largest units that matter: 3725 is 1 h 2 min."""
    if seconds < 1:
        return "less than 1 s"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600} h"


def parts(error: ClipselError | OSError) -> dict[str, Any]:
    """An error as values that JSON can hold, for another process; `from_parts` makes it again there."""
    if isinstance(error, ClipselError):
        said = {"where": error.where, "expected": error.expected, "found": error.found, "remedy": error.remedy}
        return {"type": type(error).__name__, **said, "notes": getattr(error, "__notes__", [])}
    if error.errno is None:
        return {"type": "OSError", "arguments": [str(error)]}
    name = error.filename
    file = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else name
    return {"type": "OSError", "arguments": [error.errno, error.strerror, file]}


def from_parts(carried: Any) -> ClipselError | OSError:
    """The error whose `parts` these are, of its own type; a ClipselError where this process knows no such type.

    Raises: ValueError where they are no error's parts.

    >>> from_parts(parts(UidError("row 3", expected="32 hex digits", found="31")))
    UidError('row 3: expected 32 hex digits, found 31')
    """
    try:
        if carried["type"] == "OSError":
            return OSError(*carried["arguments"])
        kind = next((known for known in _kinds() if known.__name__ == carried["type"]), ClipselError)
        error, said = kind.__new__(kind), {name: carried[name] for name in ("expected", "found", "remedy")}
        # Not the type's own way to make one, which may take other arguments.
        ClipselError.__init__(error, carried["where"], **said)
        for note in carried["notes"]:
            error.add_note(note)
    except (KeyError, TypeError) as problem:
        raise ValueError(f"no error's parts: {carried!r}") from problem
    return error


def _kinds(kind: type[ClipselError] = ClipselError) -> Iterator[type[ClipselError]]:
    yield kind
    for more in kind.__subclasses__():
        yield from _kinds(more)


class UidError(ClipselError):
    """A uid, or a file of uids, is malformed, repeated, out of order or unknown."""


class PoolFormatError(ClipselError):
    """A pool's files are missing, disagree with each other, or hold values that cannot be scored."""


class TeacherError(ClipselError):
    """A teacher cannot be found or loaded."""


class TargetError(ClipselError):
    """A target's file cannot be read or does not fit the pool's embeddings."""


class ScoringError(ClipselError):
    """Arguments of a scoring function that do not fit together or are out of range."""


class RunError(ClipselError):
    """A run's folder is incomplete, belongs to another configuration, or cannot be written."""


class ColumnError(ClipselError):
    """A column's values cannot be read, or do not belong to the run's pairs."""


class RecipeError(ClipselError):
    """A recipe does not say what to select; `where` names the file and line."""


class SamplingError(ClipselError, ValueError):
    """Samples cannot be drawn as asked: an argument is out of range, or a cap cannot be met."""


class ExportError(ClipselError):
    """A subset cannot be written where it was asked to be."""


class JobError(ClipselError):
    """A job cannot be started."""


class WorkerError(ClipselError):
    """A process that does part of the work failed at it in a way that nobody foresaw."""


class LostWorkerError(WorkerError):
    """A process that does part of the work ended before it was done."""
