"""Csv, also as other programs read it."""

import csv
import io
import shutil
import sqlite3
import subprocess

import pytest
from tests.cases import walk

from pvemcp_formats import Format, decode, encode, guard_formulas

TEXTS = [
    "plain",
    "",
    None,
    "a,b",
    'say "hi"',
    '"',
    "two\nlines",
    "carriage\rreturn",
    "both\r\nends",
    " padded ",
    "\ttab",
    "100",
    "1e5",
    "-0.5",
    "05",
    "true",
    "null",
    "NULL",
    "NA",
    "[1,2]",
    '{"a":1}',
    "é🚀",
    "a;b",
    "'",
    "\\",
    "#",
]
ROWS = [{"n": number, "text": text, "end": 0} for number, text in enumerate(TEXTS)]


@walk(
    ("value", "cell"),
    [
        (None, ""),
        ("", '""'),
        ("plain", "plain"),
        ("two words", "two words"),
        ("a,b", '"a,b"'),
        ('say "hi"', '"say ""hi"""'),
        ("two\nlines", '"two\nlines"'),
        ("carriage\rreturn", '"carriage\rreturn"'),
        (" padded", '" padded"'),
        ("padded ", '"padded "'),
        ("100", '"100"'),
        ("1e5", '"1e5"'),
        ("05", "05"),
        ("true", '"true"'),
        ("True", "True"),
        ("null", "null"),
        (100, "100"),
        (1.0, "1"),
        (1e-7, "1e-7"),
        (True, "true"),
        ([], "[]"),
        ([1, "a"], '"[1,""a""]"'),
        ({"a": None}, '"{""a"":null}"'),
    ],
)
def test_a_cell_is_quoted_where_it_would_be_ambiguous(value, cell):
    assert encode([{"a": value, "b": 0}], Format.CSV) == f"a,b\n{cell},0"


def test_both_line_ends_are_read():
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": "y\r\nz"}]
    for text in ('a,b\n1,x\n2,"y\r\nz"', 'a,b\r\n1,x\r\n2,"y\r\nz"\r\n'):
        assert decode(text, Format.CSV) == rows


@pytest.mark.parametrize("values", [[None], [None, None], [1, None], [None, 1], [""]])
def test_a_single_column_keeps_its_nulls(values):
    rows = [{"lock": value} for value in values]
    assert decode(encode(rows, Format.CSV), Format.CSV) == rows


def test_a_name_is_quoted_like_a_text():
    rows = [{"a,b": 1, "": 2, "3": 3, 'x"': 4}]
    text = encode(rows, Format.CSV)
    assert text == '"a,b","","3","x"""\n1,2,3,4'
    assert decode(text, Format.CSV) == rows


def test_our_reader_restores_every_text():
    assert decode(encode(ROWS, Format.CSV), Format.CSV) == ROWS


def test_pythons_reader_restores_every_text_but_no_null():
    records = list(csv.reader(io.StringIO(encode(ROWS, Format.CSV), newline=""), strict=True))
    assert records[0] == ["n", "text", "end"]
    assert [record[1] for record in records[1:]] == [text or "" for text in TEXTS]


def test_pandas_restores_every_text_but_no_null():
    pandas = pytest.importorskip("pandas", reason="pandas is missing: its reader is not compared")
    source = io.StringIO(encode(ROWS, Format.CSV), newline="")
    frame = pandas.read_csv(source, keep_default_na=False, dtype={"text": str})
    assert list(frame["text"]) == [text or "" for text in TEXTS]
    assert list(frame["n"]) == list(range(len(TEXTS)))


def test_pandas_restores_numbers_and_booleans():
    pandas = pytest.importorskip("pandas", reason="pandas is missing: its reader is not compared")
    rows = [{"i": 2**53 + 1, "f": 0.1, "b": True}, {"i": -1, "f": 2.5e-9, "b": False}]
    frame = pandas.read_csv(io.StringIO(encode(rows, Format.CSV)))
    assert frame.to_dict(orient="records") == rows


def test_sqlites_shell_restores_every_text_but_no_null(tmp_path):
    if not shutil.which("sqlite3"):
        pytest.skip("the program sqlite3 is missing: its CSV reader is not compared")
    (tmp_path / "rows.csv").write_bytes(encode(ROWS, Format.CSV).encode())
    orders = [".mode csv", ".import rows.csv rows"]
    command = ["sqlite3", "rows.db", *orders]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    with sqlite3.connect(tmp_path / "rows.db") as database:
        texts = database.execute("SELECT text FROM rows ORDER BY CAST(n AS INTEGER)").fetchall()
    database.close()
    assert [text for (text,) in texts] == [text or "" for text in TEXTS]


FORMULA_STARTS = ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"]


@pytest.mark.parametrize("start", [*FORMULA_STARTS, " =", "\u00a0-", "\u207a", "\ufe66"])
def test_guarded_text_does_not_start_like_a_formula(start):
    rows = [{"name": f"{start}HYPERLINK(1)", f"{start}key": None}]
    assert guard_formulas(rows) == [{"name": f"'{start}HYPERLINK(1)", f"'{start}key": None}]


def test_guarding_keeps_numbers_and_other_text():
    rows = [{"n": -5, "f": -0.5, "text": "a=b", "nested": ["=1"], "none": None}]
    assert guard_formulas(rows) == rows
    assert encode(guard_formulas(rows), Format.CSV).endswith('-5,-0.5,a=b,"[""=1""]",')
