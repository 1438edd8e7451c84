"""Which CLIP made a pool's embeddings, and at what temperature? POOL/teachers.json, written by `embed`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clipsel_core.errors import PoolFormatError
from clipsel_core.files import write_json

_ARCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,63}")


class TeacherInfo(BaseModel):
    """A teacher as the pool remembers it.

    model, pretrained: what open_clip was asked for. temperature: tau, 1 / exp(logit scale). weights: 32 hex digits that
    differ where any weight does. precision: what the embeddings were computed in.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    pretrained: str | None = None
    temperature: float = Field(gt=0, allow_inf_nan=False)
    weights: str = ""
    precision: str = "float32"


def read_teachers(root: Path) -> dict[str, TeacherInfo]:
    """The teachers by arch; none where the pool does not say. Raises PoolFormatError where the file is damaged."""
    path = root / "teachers.json"
    try:
        found = json.loads(path.read_bytes())
        return {arch: TeacherInfo.model_validate(info) for arch, info in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        reason = str(error).split("\n")[0]
        remedy = "give --temperature and move the file away"
        raise PoolFormatError(path, expected="teachers by arch", found=reason, remedy=remedy) from error


def find_teacher(root: Path, arch: str) -> tuple[str, str | None, str] | None:
    """The model behind a pool's embeddings as open_clip is asked for it, None where nobody says which it was.

    As the pool notes it, else the folder `teacher` beside the pool, where the demo leaves its own.
    Returns: model, pretrained, and the digest of its weights ("" where that is not known).
    Raises: PoolFormatError where teachers.json is damaged.
    """
    noted = read_teachers(root).get(arch)
    beside = root.resolve().parent / "teacher"
    if noted is None and (beside / "open_clip_config.json").is_file():
        return f"local-dir:{beside}", None, ""
    return (noted.model, noted.pretrained, noted.weights) if noted else None


def check_arch(arch: str) -> None:
    """Makes sure that a teacher's name can be part of those of columns and files. Raises PoolFormatError."""
    if not _ARCH.fullmatch(arch):
        raise PoolFormatError("--arch", expected="letters, digits, _ and -", found=repr(arch))


def add_teacher(root: Path, arch: str, info: TeacherInfo) -> None:
    """Notes a teacher, or makes sure that the one noted under this name is the same.

    Raises: PoolFormatError where another one is.
    """
    known = read_teachers(root)
    if arch in known and (known[arch].weights, known[arch].precision) != (info.weights, info.precision):
        words = ((t.model, t.pretrained, t.weights[:8], t.precision) for t in (known[arch], info))
        was, now = (" ".join(filter(None, said)) for said in words)
        remedy = "give this teacher another --arch"
        raise PoolFormatError(root / "teachers.json", expected=f"{arch} to be {was}", found=now, remedy=remedy)
    if arch not in known:
        teachers = {**known, arch: info}
        write_json(root / "teachers.json", {name: teacher.model_dump() for name, teacher in sorted(teachers.items())})
