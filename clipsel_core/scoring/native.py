"""How does this package come by the one function that it has in C?

Compiled on first use with the machine's C compiler, which takes half a second, and kept in the user's cache folder
under the hash of its source. Where there is no compiler, or no CPU for it, everything but `--precision bf16` works.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from clipsel_core.errors import ScoringError
from clipsel_core.files import cache_folder, write_atomically

_SOURCE = Path(__file__).with_name("rounded.c")
# Contraction would let each compiler choose for itself where to round.
_FLAGS = ("-O3", "-ffp-contract=off", "-shared", "-fPIC")
_COMPILERS = ("cc", "gcc", "clang")
_WHERE = "precision bf16"


@functools.cache
def sum_exp2() -> Callable[..., None]:
    """The function of that name in rounded.c, which says what it takes; tensors are given by their data_ptr().

    It holds no lock of Python while it computes, so that threads run side by side.
    Raises: ScoringError where this machine cannot run or compile it.
    """
    if not torch.cpu.get_capabilities().get("avx512_bf16"):
        expected = "a CPU that multiplies bfloat16 (AVX-512 BF16: Zen 4, Sapphire Rapids, or newer)"
        raise ScoringError(_WHERE, expected=expected, found="another", remedy="use exact")
    pointer, count, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    function = _library().sum_exp2
    function.argtypes = [pointer, pointer, count, count, count, count, number, pointer, pointer, pointer, pointer]
    function.restype = None
    return function


def _library() -> ctypes.CDLL:
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", ""), *_COMPILERS))), None)
    name = hashlib.sha256(_SOURCE.read_bytes() + repr(_FLAGS).encode()).hexdigest()[:16]
    kept = cache_folder() / f"rounded-{name}.so"
    try:
        if not kept.exists():
            write_atomically(kept, functools.partial(_compile, compiler))
        return ctypes.CDLL(str(kept))
    except OSError:
        # A cache folder that cannot be written, or a library in it that is damaged or of another system.
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / kept.name
            _compile(compiler, library)
            return ctypes.CDLL(str(library))


def _compile(compiler: str | None, out: Path) -> None:
    if compiler is None:
        raise ScoringError(_WHERE, expected="a C compiler", found="none", remedy="install gcc, or use exact")
    command = [compiler, *_FLAGS, str(_SOURCE), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        remedy = "install gcc 10 or newer, or use exact"
        raise ScoringError(_WHERE, expected=f"{compiler} to compile {_SOURCE.name}", found=said, remedy=remedy)
