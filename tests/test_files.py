"""Does a write that fails name the file that was asked for?"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsel_core.files import write_atomically


def by_python(aside):
    (aside / "within").write_text("a")


def by_arrow(aside):
    pq.write_table(pa.table({"a": [1]}), aside / "within")


@pytest.mark.parametrize("write", [by_python, by_arrow])
def test_write_atomically__an_error_names_the_file_that_was_meant(tmp_path, write):
    with pytest.raises(OSError, match="No such file or directory") as caught:
        write_atomically(tmp_path / "a.parquet", write)
    assert caught.value.filename == str(tmp_path / "a.parquet")


def test_write_atomically__another_file_s_error_stays_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(tmp_path / "a", lambda aside: (tmp_path / "source").read_bytes())
    assert caught.value.filename == str(tmp_path / "source")
