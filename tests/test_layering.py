"""Who may import whom, held against the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parent.parent
CORE = "clipsel_core"
EVERYWHERE = {
    "__version__",
    *(
        "cache",
        "cluster",
        "errors",
        "files",
        "leases",
        "npy",
        "places",
        "processes",
        "reach",
        "status",
        "tasks",
        "uids",
        "workers",
    ),
}
# A room may import itself, what is everywhere, and these.
ROOMS: dict[str, set[str]] = {
    "jobs": set(),
    "pool": set(),
    "scoring": set(),
    "runs": {"pool", "scoring"},
    "curation": {"pool", "runs.store", "runs.columns"},
    "columns": {"pool", "runs", "curation"},
    "demo": {"pool", "runs", "curation", "scoring"},
    "commands": {"pool", "runs", "curation", "columns", "demo", "doctor", "terminal"},
}
# Within a room, what a group of files may import of its own room.
GROUPS: dict[str, set[str]] = {
    "pool/sources": set(),
    "pool/making": {"pool.sources"},
    "curation/recipes": set(),
    "curation/index": {"curation.recipes"},
    "curation/selecting": {"curation.recipes", "curation.index"},
    "curation/exploring": {"curation.recipes", "curation.index"},
}
PARTS: dict[str, set[str]] = {
    "gallery": set(),
    "jobs": set(),
    "search": {"gallery", "jobs"},
    "pair": {"gallery", "jobs", "search"},
    "select": {"gallery", "pair"},
    "map": {"gallery", "jobs", "pair"},
    "compare": {"gallery", "pair"},
    "distributions": {"gallery", "pair"},
}
PAGES_MAY = {
    "columns.captions",
    "curation",
    "jobs",
    "runs.columns",
    "runs.cost",
    "runs.store",
    "pool.conventions",
    "pool.images",
    "pool.layout",
    "pool.target_files",
    "pool.making.decode",
    "pool.sources.record",
}
SCORING_PACKAGES = {"torch", "numpy"}
TRITON_FILES = {"kernels.py"}


def imports_of(file: Path) -> set[str]:
    """Every module that a file imports anywhere, also inside functions; type-checking imports too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            assert node.module is not None
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def allowed(module: str, permitted: set[str]) -> bool:
    inner = module.removeprefix(f"{CORE}.")
    return any(inner == name or inner.startswith(f"{name}.") for name in permitted | EVERYWHERE)


def core_imports(file: Path) -> set[str]:
    return {module for module in imports_of(file) if module == CORE or module.startswith(CORE + ".")}


def files_of(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_rooms__import_only_what_lies_before_them(room):
    for file in files_of(f"{CORE}/{room}"):
        wrong = {module for module in core_imports(file) if not allowed(module, ROOMS[room] | {room})}
        assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("group", GROUPS)
def test_groups__import_only_what_lies_before_them(group):
    room, _, own = group.partition("/")
    inner = {folder.name for folder in (ROOT / CORE / room).iterdir() if folder.is_dir()}
    for file in files_of(f"{CORE}/{group}"):
        used = {module.split(".")[2] for module in core_imports(file) if module.startswith(f"{CORE}.{room}.")} & inner
        wrong = {f"{room}.{name}" for name in used - {own}} - GROUPS[group]
        assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("group", PARTS)
def test_parts__import_only_what_lies_before_them(group):
    for file in files_of(f"pages/parts/{group}"):
        modules = {module for module in imports_of(file) if module.startswith("pages.parts.")}
        wrong = {module.split(".")[2] for module in modules} & set(PARTS) - {group} - PARTS[group]
        assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}"


def test_parts__what_all_share_knows_no_page():
    for file in (ROOT / "pages" / "parts").glob("*.py"):
        wrong = {module for module in imports_of(file) if module.split(".")[2:3] and module.split(".")[2] in PARTS}
        assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}"


def test_pages__import_only_the_light_side():
    for file in [ROOT / "app.py", *files_of("pages")]:
        wrong = {module for module in core_imports(file) if not allowed(module, PAGES_MAY)}
        assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}"


def test_scoring__needs_torch_and_numpy_alone():
    for file in files_of(f"{CORE}/scoring"):
        packages = {module.partition(".")[0] for module in imports_of(file)}
        permitted = SCORING_PACKAGES | ({"triton"} if file.name in TRITON_FILES else set())
        wrong = packages - permitted - set(sys.stdlib_module_names) - {CORE}
        assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}"


def run_alone(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a process that has imported nothing yet."""
    options = {"cwd": ROOT, "capture_output": True, "text": True, "check": True, "timeout": PATIENCE_S}
    return subprocess.run([sys.executable, "-c", code], **options)


def test_scoring__imports_triton_only_where_it_computes():
    modules = [f"{CORE}.scoring.{file.stem}" for file in files_of(f"{CORE}/scoring") if file.name not in TRITON_FILES]
    code = f"import sys; import {', '.join(modules)}; print('triton' in sys.modules)"
    shown = run_alone(code)
    assert shown.stdout.strip() == "False", shown.stdout + shown.stderr


def test_streamlit__only_in_the_face():
    for file in files_of(CORE):
        assert "streamlit" not in {module.partition(".")[0] for module in imports_of(file)}, file


def test_rooms__no_import_at_the_door():
    """A package's __init__ that imports would make every reader of one module pay for all."""
    for file in (ROOT / CORE).rglob("__init__.py"):
        assert not imports_of(file), file


def test_pages__open_without_torch_and_umap():
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files_of("pages/parts")]
    check = "print([m for m in ('torch', 'umap', 'open_clip') if m in sys.modules])"
    code = f"import sys; import {', '.join(modules)}; {check}"
    shown = run_alone(code)
    assert shown.stdout.strip() == "[]", shown.stdout + shown.stderr


def test_cli__says_what_there_is_without_loading_it():
    heavy = ("torch", "triton", "umap", "open_clip", "duckdb", "numba", "pandas", "pyarrow", "numpy")
    code = f"import sys; import {CORE}.cli; print([m for m in {heavy} if m in sys.modules])"
    shown = run_alone(code)
    assert shown.stdout.strip() == "[]", shown.stdout + shown.stderr


def test_cli__selects_without_loading_what_takes_longer(tmp_path):
    """numba, pandas and torch take longer to import than a million pairs take to select from; DuckDB reads the pool's
    table, which this recipe does not ask for."""
    demo = ROOT / "data" / "demo" / "run"
    command = ["select", str(demo), "--recipe", str(demo / "recipes" / "two_steps.yaml"), "--out", f"{tmp_path}/a.npy"]
    code = f"""
import sys
from tests.waiting import PATIENCE_S
from {CORE}.cli import app
app({command}, standalone_mode=False)
print([m for m in ("torch", "numba", "pandas", "umap", "duckdb", "streamlit") if m in sys.modules])
"""
    shown = run_alone(code)
    assert shown.stdout.splitlines()[-1] == "[]", shown.stdout + shown.stderr


def test_allowed__can_say_no():
    assert allowed("clipsel_core.uids.from_hex", set())
    assert allowed("clipsel_core.uids", set())
    assert allowed("clipsel_core.pool.layout.Pool", {"pool"})
    assert not allowed("clipsel_core.scoring.normsim.normsim", {"pool"})
    assert not allowed("clipsel_core.runs.local.score", {"runs.store"})
