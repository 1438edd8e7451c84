"""Can a person read every error, whatever the file is called and holds, and wherever it was raised?"""

from __future__ import annotations

import ast
import copy
import importlib
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from clipsel_core import errors, uids
from clipsel_core.curation.exploring.searches import read_vector
from clipsel_core.errors import ClipselError, RunError, UidError, counted, from_parts, parts, reason_of, things_of

CORE = Path(errors.__file__).parent
PARTS = {"where": "00012.npz", "expected": "10 rows", "found": "9", "remedy": "download it again"}


def kinds():
    """ClipselError and all that derive from it, wherever in the package they are defined: found in its text."""
    defined = []
    for file in sorted(CORE.rglob("*.py")):
        module = ".".join(file.relative_to(CORE.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                defined.append((module, node.name, {ast.unparse(base).rpartition(".")[2] for base in node.bases}))
    names, before = {"ClipselError"}, set()
    while names != before:
        before = names
        names = names | {name for _, name, bases in defined if bases & names}
    return [getattr(importlib.import_module(module), name) for module, name, _ in defined if name in names]


def made(kind):
    """One of a kind, with all its parts, and more: whatever arguments it may take."""
    error = kind.__new__(kind)
    ClipselError.__init__(error, **PARTS)
    error.rows = [9, 10]
    error.add_note("a note")
    return error


def pickled(error):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        error = pickle.loads(pickle.dumps(error, protocol))
    return error


def test_kinds__are_found_where_they_are_defined():
    assert {ClipselError, *ClipselError.__subclasses__()} <= set(kinds())


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("carry", [copy.copy, copy.deepcopy, pickled])
def test_errors__survive_pickling_and_copying_with_all_their_parts(kind, carry):
    error = made(kind)
    again = carry(error)
    assert type(again) is kind
    assert again is not error
    assert vars(again) == {**PARTS, "rows": [9, 10], "__notes__": ["a note"]}
    assert (str(again), again.args) == (str(error), error.args)
    again.remedy = "another"
    assert error.remedy == PARTS["remedy"]


@pytest.mark.parametrize("kind", kinds())
def test_parts__are_the_same_error_in_another_process(kind):
    error = made(kind)
    again = from_parts(json.loads(json.dumps(parts(error))))
    assert type(again) is kind
    assert {name: getattr(again, name) for name in PARTS} == PARTS
    assert (str(again), again.__notes__) == (str(error), ["a note"])


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file or directory", "/a/b.tar"),
        OSError(28, "No space left on device"),
        OSError(5, "Input/output error", b"/a/\xff"),
        TimeoutError("no answer in time"),
    ],
)
def test_parts__of_a_file_or_a_disk(error):
    again = from_parts(json.loads(json.dumps(parts(error))))
    assert isinstance(again, OSError)
    assert (again.errno, again.strerror, reason_of(again)) == (error.errno, error.strerror, reason_of(error))
    if error.errno:
        assert type(again) is type(error)
        assert again.filename in (error.filename, "/a/\udcff")


def test_from_parts__a_type_that_is_none_of_ours():
    for name in ("AnotherError", "SystemExit", "Exception", "_kinds"):
        again = from_parts({**parts(made(RunError)), "type": name})
        assert type(again) is ClipselError
        assert str(again) == str(made(RunError))


@pytest.mark.parametrize("said", [None, 7, "failed", [], {}, {"type": "RunError"}, {"type": "OSError", "arguments": 7}])
def test_from_parts__what_is_no_error(said):
    with pytest.raises(ValueError, match="no error's parts"):
        from_parts(said)


def test_error__is_one_line_that_can_be_printed():
    said = str(ClipselError("bad\x1b[31m\udcff.npy", expected="a\nb", found="NUL \0", remedy="do\tthis"))
    assert said == "bad\ufffd[31m\ufffd.npy: expected a b, found NUL \ufffd; do this"
    said.encode()


@pytest.mark.parametrize("content", [b"hello", "pickled"])
def test_reason_of__never_advises_to_unpickle(tmp_path, content):
    path = tmp_path / "a.npy"
    if content == "pickled":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(content)
    for read, kind in ((uids.read_subset, UidError), (read_vector, RunError)):
        with pytest.raises(kind, match=r"found (no plain array|no \.npy header|objects, which are never loaded)"):
            read(path)


def test_reason_of__a_file_that_is_not_there(tmp_path):
    with pytest.raises(RunError, match=r"a\.npy: expected a \.npy of one embedding, found No such file or directory$"):
        read_vector(tmp_path / "a.npy")
    assert reason_of(io.UnsupportedOperation("fileno")) == "fileno"


@pytest.mark.parametrize(("number", "said"), [(0, "0 pairs"), (1, "1 pair"), (2, "2 pairs"), (1234, "1,234 pairs")])
def test_counted__one_is_no_plural(number, said):
    assert counted(number, "pairs") == said
    assert said.endswith(" " + things_of(number, "pairs"))
