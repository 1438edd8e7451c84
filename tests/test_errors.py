"""Can a person read every error, whatever the file is called and holds?"""

from __future__ import annotations

import io

import numpy as np
import pytest

from clipsel_core import uids
from clipsel_core.curation.exploring.searches import read_vector
from clipsel_core.errors import ClipselError, RunError, UidError, reason_of


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
        with pytest.raises(kind, match="found no plain array"):
            read(path)


def test_reason_of__a_file_that_is_not_there(tmp_path):
    with pytest.raises(RunError, match=r"a\.npy: expected a \.npy of one embedding, found No such file or directory$"):
        read_vector(tmp_path / "a.npy")
    assert reason_of(io.UnsupportedOperation("fileno")) == "fileno"
