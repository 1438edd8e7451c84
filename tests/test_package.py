"""What the package asks for is said once: the other files agree with pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINNED = re.compile(r"^([A-Za-z0-9_.\-]+)==([^ ;\\]+)(?: ; ([^\\]+?))? \\$")


def pins(lock: str) -> list[tuple[str, Version, str]]:
    """Name, version and marker of what a lock pins."""
    lines = (ROOT / lock).read_text("utf-8").splitlines()
    return [
        (name, Version(version), marker)
        for name, version, marker in (found.groups(default="") for found in map(PINNED.match, lines) if found)
    ]


def test_requirements__agree_with_the_package():
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == PROJECT["dependencies"]


LOCKS = [
    ("requirements.lock", [*PROJECT["dependencies"], *EXTRAS["build"]]),
    ("requirements-dev.lock", [*PROJECT["dependencies"], *EXTRAS["build"], *EXTRAS["dev"]]),
]


@pytest.mark.parametrize(("lock", "ranges"), LOCKS, ids=["app", "dev"])
def test_lock__pins_all_that_is_asked_for_within_its_range(lock, ranges):
    found = pins(lock)
    for wanted in map(Requirement, ranges):
        versions = [version for name, version, _ in found if name == canonicalize_name(wanted.name)]
        assert versions, f"{wanted.name} is not in {lock}: make lock"
        assert all(wanted.specifier.contains(version) for version in versions), f"{wanted}: make lock"


def test_lock__development_has_the_versions_of_the_app():
    app, dev = ({(name, version) for name, version, _ in pins(f"requirements{kind}.lock")} for kind in ("", "-dev"))
    assert app <= dev


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_lock__has_a_hash_for_each_and_no_address(lock):
    text = (ROOT / lock).read_text("utf-8")
    assert "://" not in text
    entries = re.split(r"\n(?=[a-z0-9])", text)[1:]
    assert len(entries) == len(pins(lock))
    assert all("--hash=sha256:" in entry for entry in entries)
