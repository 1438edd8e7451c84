"""What can go wrong, in words a person can act on."""

from __future__ import annotations


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


def reason_of(error: Exception) -> str:
    """Why something could not be read, in one line: the system's words, or the reader's without its advice to unpickle.

    >>> reason_of(FileNotFoundError(2, "No such file or directory", "a.npy")), reason_of(EOFError())
    ('No such file or directory', 'EOFError')
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = str(error).split("\n")[0] or type(error).__name__
    return "no plain array" if "pickle" in said or "Python objects" in said else said


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


class RecipeError(ClipselError):
    """A recipe does not say what to select; `where` names the file and line."""


class ExportError(ClipselError):
    """A subset cannot be written where it was asked to be."""


class JobError(ClipselError):
    """A job cannot be started."""
