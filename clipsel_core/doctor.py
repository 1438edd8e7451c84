"""What is installed here, what can it compute with, and which teachers are at hand?"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from clipsel_core import cache
from clipsel_core.errors import ClipselError
from clipsel_core.tasks import allowed_cores, lines_of

Health = Literal["ok", "absent", "wrong"]

_GIB = 1 << 30
# Features of a CPU that decide how fast it multiplies, as /proc/cpuinfo spells them.
_FEATURES = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 bfloat16", "amx_bf16": "AMX bfloat16"}
_EXTRAS = {
    "triton": "the GPU kernels; comes with torch's CUDA build",
    "s3fs": "pools, runs and sources on s3://: pip install 'clipsel[s3]'",
    "gcsfs": "pools, runs and sources on gs://: pip install 'clipsel[gcs]'",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    area: "packages", "devices", "teachers", "cache" or "extras". state: "absent" where it is missing and need not be
    there, "wrong" where clipsel cannot work as it is. remedy: what to do about it, or what it would bring; may be "".
    """

    area: str
    name: str
    value: str
    state: Health = "ok"
    remedy: str = ""


def examine(folder: Path | None = None) -> list[Finding]:
    """Looks at everything, area by area. folder: where teachers of one's own are looked for, besides the caches."""
    found = [*_packages(), *_devices(), *_teachers(folder), _cache()]
    for package, brings in _EXTRAS.items():
        try:
            found.append(Finding("extras", package, version(package), remedy=brings))
        except PackageNotFoundError:
            found.append(Finding("extras", package, "not installed", "absent", brings))
    return found


def _packages() -> Iterator[Finding]:
    python = platform.python_version()
    old = sys.version_info < (3, 11)
    yield Finding("packages", "python", python, "wrong" if old else "ok", "needs 3.11 or newer" if old else "")
    try:
        lines = requires("clipsel") or []
    except PackageNotFoundError:
        yield Finding("packages", "clipsel", "not installed", "wrong", "pip install . in its folder")
        return
    yield from _required(lines)


def _required(lines: Iterable[str]) -> Iterator[Finding]:
    """What clipsel needs on a machine like this one; lines: as a package's metadata has them."""
    for requirement in map(Requirement, lines):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        remedy = f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Finding("packages", requirement.name, "not installed", "wrong", remedy)
            continue
        fits = requirement.specifier.contains(found, prereleases=True)
        yield Finding("packages", requirement.name, found, "ok" if fits else "wrong", "" if fits else remedy)


def _devices() -> Iterator[Finding]:
    cpu: dict[str, str] = {}  # what Linux says of its first core
    for line in lines_of(Path("/proc/cpuinfo")):
        name, _, value = line.partition(":")
        cpu.setdefault(name.strip(), value.strip())
    yield Finding("devices", "cpu", f"{allowed_cores()} cores, {cpu.get('model name') or platform.machine()}")
    flags = cpu.get("flags", "").split()
    known = [name for flag, name in _FEATURES.items() if flag in flags]
    yield Finding("devices", "cpu features", ", ".join(known) or "none known", "ok" if known else "absent")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    free = next((line.split()[1] for line in lines_of(Path("/proc/meminfo")) if line.startswith("MemAvailable:")), None)
    available = "" if free is None else f", {int(free) * 1024 / _GIB:.1f} GiB available"
    yield Finding("devices", "memory", f"{total:.1f} GiB{available}")
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("devices", "torch", str(error).split("\n")[0], "wrong", "install torch again")
        return
    count = torch.cuda.device_count()
    for place in range(count):
        major, minor = torch.cuda.get_device_capability(place)
        size = torch.cuda.get_device_properties(place).total_memory / _GIB
        kernels = "" if major >= 8 else "older than Ampere: computes without the Triton kernels"
        value = f"{torch.cuda.get_device_name(place)}, compute capability {major}.{minor}, {size:.0f} GiB"
        yield Finding("devices", f"cuda:{place}", value, remedy=kernels)
    if not count:
        yield Finding("devices", "gpu", "none that torch can use", "absent", "clipsel computes on the CPU")


def _teachers(folder: Path | None) -> Iterator[Finding]:
    """Folders as open_clip saves a teacher, a little below a folder; then the models that were downloaded."""
    depths = ("", "*/", "*/*/")
    files = sorted(file for depth in depths if folder for file in folder.glob(f"{depth}open_clip_config.json"))
    own = [Finding("teachers", f"local-dir:{file.parent}", "a folder with its checkpoint") for file in files]
    found = [*own, *_cached_teachers()]
    yield from found
    if not found:
        remedy = "embed downloads the one that it is asked for"
        yield Finding("teachers", "on disk", "none", "absent", remedy)


def _cache() -> Finding:
    """How full the cache is of what was made of runs that lie in stores, or cannot be written to."""
    try:
        said = f"{cache.used_bytes() / 1e9:.1f} of {cache.most_bytes() / 1e9:.1f} GB in {cache.runs_folder()}"
        return Finding("cache", "runs", said, remedy=f"{cache.VARIABLE} says how much")
    except (ClipselError, OSError) as error:
        return Finding("cache", "runs", str(error), "wrong")


def _cached_teachers() -> Iterator[Finding]:
    """open_clip's models whose weights were downloaded before."""
    try:
        import open_clip
        from huggingface_hub import try_to_load_from_cache
        from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
    except ImportError as error:
        yield Finding("teachers", "open_clip", str(error), "wrong", "install it again")
        return
    cache = Path("~/.cache/clip").expanduser()
    for model, tag in open_clip.list_pretrained():
        known = open_clip.get_pretrained_cfg(model, tag)
        repository, _, name = (known.get("hf_hub") or "").rpartition("/")
        files = [name] if name else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
        in_hub = bool(repository) and any(isinstance(try_to_load_from_cache(repository, file), str) for file in files)
        url = known.get("url") or ""
        if in_hub or (url and (cache / url.rpartition("/")[2]).is_file()):
            text = open_clip.get_model_config(model)["text_cfg"]
            needs = [
                (text.get("hf_tokenizer_name"), "tokenizer_config.json"),
                (text.get("hf_model_name"), "config.json"),
            ]
            lacks = any(name and not isinstance(try_to_load_from_cache(name, file), str) for name, file in needs)
            remedy = "its tokenizer comes from huggingface.co when it is first used" if lacks else ""
            yield Finding("teachers", f"{model} {tag}", "downloaded", remedy=remedy)
