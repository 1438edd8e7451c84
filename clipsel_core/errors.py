"""What can go wrong, in words a person can act on."""

from __future__ import annotations


class ClipselError(Exception):
    """Base of every error that clipsel raises on purpose; its text is one line.

    where: the file, shard, row or line that is wrong.
    expected, found: both sides of the disagreement.
    remedy: what to do about it.

    >>> str(ClipselError("00012.npz", expected="10,000 rows", found="9,998", remedy="download it again"))
    '00012.npz: expected 10,000 rows, found 9,998; download it again'
    """

    def __init__(self, where: object, *, expected: str, found: str, remedy: str = "") -> None:
        self.where, self.expected, self.found, self.remedy = str(where), expected, found, remedy
        line = f"{where}: expected {expected}, found {found}"
        super().__init__(" ".join(f"{line}; {remedy}".split()) if remedy else " ".join(line.split()))


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
