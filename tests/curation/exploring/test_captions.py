"""Searching captions against plain Python, with captions and words that mean harm to a query."""

from __future__ import annotations

import unicodedata

import pyarrow.parquet as pq
import pytest

from clipsel_core.curation.exploring import captions as module
from clipsel_core.curation.exploring.captions import CaptionScan
from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import PoolFormatError
from clipsel_core.runs.store import Run
from tests.pages.worlds import make_run

CAPTIONS = (
    "Two red Houses",
    "a RED house, 100% new",
    "a red_house",
    "red",
    "100 percent",
    "",
    "it's '; DROP TABLE x; --",
    "back\\slash",
    "Straße ÄÖ",
    "red house red house",
    "red",
    "infrared, reddish, Fred: covered",
    "credit-red",
    "a re\u0301d cafe\u0301",
    "réd 3d red2 ²red",
    "黑猫在屋顶上",
    "我的red狗 コーヒーカップ",
    "แมวดำ кот котёнок",
    "IMG_red_01.jpg\nred\nhouse's",
)
# By their names, as Unicode has them: those of scripts without blanks between words.
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


def is_in_word(letter: str) -> bool:
    """Whether a character goes on a word that is written in a script with blanks."""
    return unicodedata.category(letter)[0] in "LMN" and not unicodedata.name(letter, "").startswith(UNSPACED)


def holds(caption: str, word: str) -> bool:
    """Whether a caption holds a whole word."""
    caption, word = caption.lower(), word.lower()
    for place in range(len(caption)):
        if caption.startswith(word, place):
            before, behind = caption[:place][-1:], caption[place + len(word) :][:1]
            cut = before and is_in_word(before) and is_in_word(word[0])
            if not cut and not (behind and is_in_word(behind) and is_in_word(word[-1])):
                return True
    return False


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    root = make_run(tmp_path_factory.mktemp("captions"), pairs=(8, 3, 9), captions=CAPTIONS, images=False)
    return Run.open(root)


def test_for_words__are_whole_ones(run):
    """Worked out by hand: inside Chinese and Japanese words may begin anywhere, elsewhere they may not."""
    for word, rows in (("red", [0, 1, 2, 3, 9, 10, 12, 16, 18]), ("猫", [15]), ("кот", [17]), ("cafe", [])):
        assert found(CaptionScan.for_words(ScoreTable.open(run), [word])) == rows


def found(scan: CaptionScan, pairs: int = 20) -> list[int]:
    while not scan.finished:
        scan.step()
    rows = bitmaps.rows(scan.bits).tolist()
    assert scan.found == len(rows)
    assert scan.done == scan.total == pairs
    return rows


@pytest.mark.parametrize("step_rows", [1, 10, 1_000])
@pytest.mark.parametrize(
    "asked",
    [["red"], ["RED", "house"], ["%"], ["_"], ["\\"], ["'"], ["straße"], ["äö"], ["--"], ["nowhere"], ["caption"]]
    + [
        [word]
        for word in ("reds", "ed", "cafe", "cafe\u0301", "café", "d", "3d", "²red", "red2", "credit", "01", "img")
    ]
    + [
        [word]
        for word in (
            "猫",
            "黑猫",
            "屋顶",
            "狗",
            "コーヒ",
            "カップ",
            "ップ",
            "ดำ",
            "แมว",
            "кот",
            "кот".upper(),
            "red狗",
            "house's",
            "s",
        )
    ],
)
def test_for_words__finds_what_python_finds(run, asked, step_rows, monkeypatch):
    monkeypatch.setattr(module, "_STEP_ROWS", step_rows)
    texts = [*CAPTIONS, *(f"caption of pair {row}" for row in range(len(CAPTIONS), 20))]
    expected = [row for row, text in enumerate(texts) if all(holds(text, word) for word in asked)]
    assert found(CaptionScan.for_words(ScoreTable.open(run), asked)) == expected


def test_for_words__refuses_a_row_that_is_another_pair_than_was_scored(tmp_path):
    table = ScoreTable.open(Run.open(make_run(tmp_path, pairs=(4, 4), captions=CAPTIONS, images=False)))
    path = tmp_path / "pool" / "metadata" / "00000000.parquet"
    pq.write_table(pq.read_table(path).take([3, 2, 1, 0]), path)
    with pytest.raises(PoolFormatError, match=r"00000000\.parquet, row 0: expected the pair that was scored"):
        found(CaptionScan.for_words(table, ["red"]), 8)
    assert found(CaptionScan.for_words(table, ["percent"]), 8) == [4]


@pytest.mark.parametrize("caption", ["red", "", "it's '; DROP TABLE x; --", "Red", "a red%house"])
def test_for_caption__is_letter_by_letter(run, caption):
    expected = [row for row, text in enumerate(CAPTIONS) if text == caption]
    assert found(CaptionScan.for_caption(ScoreTable.open(run), caption)) == expected


def test_step__can_stop_in_between(run, monkeypatch):
    monkeypatch.setattr(module, "_STEP_ROWS", 1)
    scan = CaptionScan.for_words(ScoreTable.open(run), ["red"])
    scan.step()
    assert (scan.done, scan.total, scan.finished) == (8, 20, False)
    assert bitmaps.rows(scan.bits).tolist() == [0, 1, 2, 3]


def test_for_caption__takes_a_missing_caption_for_an_empty_one(tmp_path):
    root = make_run(tmp_path, pairs=(3,), images=False)
    file = tmp_path / "pool" / "metadata" / "00000000.parquet"
    table = pq.read_table(file)
    place = table.schema.get_field_index("text")
    pq.write_table(table.set_column(place, "text", [["x", None, ""]]), file)
    assert found(CaptionScan.for_caption(ScoreTable.open(Run.open(root)), ""), 3) == [1, 2]


def test_scan__looks_only_where_metadata_is(tmp_path):
    root = make_run(tmp_path, pairs=(3, 4, 5), images=False)
    table = ScoreTable.open(Run.open(root))
    (tmp_path / "pool" / "metadata" / "00000001.parquet").unlink()
    scan = CaptionScan.for_words(table, ["caption"])
    while not scan.finished:
        scan.step()
    assert bitmaps.rows(scan.bits).tolist() == [0, 1, 2, 7, 8, 9, 10, 11]


def test_scan__says_what_is_missing(run, tmp_path):
    table = ScoreTable.open(run)
    for asked in ([], ["x"] * 9):
        with pytest.raises(PoolFormatError, match="1 to 8 words"):
            CaptionScan.for_words(table, asked)
    alone = make_run(tmp_path, pairs=(3,), images=False)
    (tmp_path / "pool").rename(tmp_path / "moved")
    with pytest.raises(PoolFormatError, match="no pool"):
        CaptionScan.for_caption(ScoreTable.open(Run.open(alone)), "x")


def test_step__names_a_damaged_file(tmp_path):
    root = make_run(tmp_path, pairs=(3,), images=False)
    scan = CaptionScan.for_words(ScoreTable.open(Run.open(root)), ["x"])
    (tmp_path / "pool" / "metadata" / "00000000.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(PoolFormatError, match="readable parquet"):
        scan.step()
