"""Rules of the TOON specification 4.4 for decoding, beyond the output of the encoder."""

import pytest
from tests.cases import walk

from pvemcp_formats import Unreadable, toon


@walk(
    ("text", "value"),
    [
        ("", {}),
        ("\n\n", {}),
        ("hello", "hello"),
        ("42", 42),
        ("true", True),
        ("null", None),
        ('""', ""),
        ("[]", []),
        ("[0]:", []),
        ("[2", "[2"),
        ("[1,2]", "[1,2]"),
        ("user:", {"user": {}}),
        (": 1", {"": 1}),
        ("- a: 1", {"- a": 1}),
    ],
)
def test_a_document_is_a_list_a_scalar_or_an_object(text, value):
    assert toon.decode(text) == value


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ("1.5000", 1.5),
        ("-1E+03", -1000),
        ("2.5e2", 250),
        ("3E-02", 0.03),
        ("1e6", 1000000),
        ("-0", 0),
        ("-0.0", 0),
        ("0e1", 0),
        ("05", "05"),
        ("-05", "-05"),
        (".5", ".5"),
        ("1.", "1."),
        ("+1", "+1"),
        ("+1e2", "+1e2"),
        ("Infinity", "Infinity"),
        ("-Infinity", "-Infinity"),
        ("NaN", "NaN"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("٤٢", "٤٢"),
        ("1e999", "1e999"),
        ("9" * 5_000, "9" * 5_000),
        ("123456789012345678901234567890", 123456789012345678901234567890),
    ],
    ids=lambda value: str(value)[:30],
)
def test_only_json_numbers_are_numbers(token, value):
    assert toon.decode(token) == value
    assert toon.decode(f"value: {token}") == {"value": value}
    assert toon.decode(f"[2]: {token},x") == [value, "x"]


@walk(
    ("token", "value"),
    [
        ('"a:b,c"', "a:b,c"),
        ('" padded "', " padded "),
        ('"line\\nbreak"', "line\nbreak"),
        ('"tab\\there"', "tab\there"),
        ('"back\\\\slash"', "back\\slash"),
        ('"say \\"hi\\""', 'say "hi"'),
        ('"a\\u0004b"', "a\x04b"),
        ('"\\u00Abx\\u00e9"', "«xé"),
        ('"raw \x01 and \t"', "raw \x01 and \t"),
        ('"🚀 launch"', "🚀 launch"),
        ('"true"', "true"),
        ('"42"', "42"),
        ('"[2]: x"', "[2]: x"),
        ('"accept (argv[2]) and: go"', "accept (argv[2]) and: go"),
        ("-x", "-x"),
        ("b:c", "b:c"),
        ("#x", "#x"),
        ("hello # world", "hello # world"),
        ("foo [2]: bar", "foo [2]: bar"),
        ("b [2]{x,y}: 1,2", "b [2]{x,y}: 1,2"),
        ("a,b", "a,b"),
        ("v\t", "v\t"),
        ("\u00a0v", "\u00a0v"),
    ],
)
def test_the_value_is_everything_after_the_colon(token, value):
    assert toon.decode(f"key: {token}") == {"key": value}


@walk(
    ("key", "name"),
    [
        ("user.name", "user.name"),
        ("foo-bar", "foo-bar"),
        ("2key", "2key"),
        ('"order:id"', "order:id"),
        ('"[index]"', "[index]"),
        ('"{key}"', "{key}"),
        ('""', ""),
        ('" a "', " a "),
        ('"123"', "123"),
        ('"line\\nbreak"', "line\nbreak"),
        ('"\\t:x"', "\t:x"),
        ('"x\\u00E9y"', "xéy"),
        ('"key\ttab"', "key\ttab"),
        ('"k[2]: y"', "k[2]: y"),
        ('"has \\"[2]\\" in it"', 'has "[2]" in it'),
        ("__proto__", "__proto__"),
        ('a"b:c"d', 'a"b:c"d'),
    ],
)
def test_a_key_is_quoted_or_everything_before_the_colon(key, name):
    assert toon.decode(f"{key}: 1") == {name: 1}
    assert toon.decode(f"{key} : 1") == {name: 1}
    assert toon.decode(f"{key}:\n  a: 1") == {name: {"a": 1}}
    assert toon.decode(f"{key}[2]: 1,2") == {name: [1, 2]}
    assert toon.decode(f"{key}[1]{{x}}:\n  1") == {name: [{"x": 1}]}
    assert toon.decode(f"u[1:]{{x}}:\n  {key}: 1") == {"u": {name: {"x": 1}}}


def test_keys_that_differ_only_in_normalization_are_different():
    assert toon.decode("\u00e9: 1\ne\u0301: 2") == {"\u00e9": 1, "e\u0301": 2}


@walk(
    ("text", "value"),
    [
        ("[3]: a , b ,c", ["a", "b", "c"]),
        ("[3|]: a | b | c", ["a", "b", "c"]),
        ("[3\t]: a \t b \t c", ["a", "b", "c"]),
        ('[2]: "a" , "b"', ["a", "b"]),
        ("[3]: a,,c", ["a", "", "c"]),
        ("[2]: \u00a0a\u00a0,b", ["\u00a0a\u00a0", "b"]),
        ("[2]: a,\tb", ["a", "\tb"]),
        ('[2]: "a\tb","c\td"', ["a\tb", "c\td"]),
        ('[2]: a"b,c",d', ['a"b,c"', "d"]),
        ("[1]: []", ["[]"]),
        ("[2\t]: a,b\tc,d", ["a,b", "c,d"]),
        ("[1|]:\n  - tags[3]: a,b,c", [{"tags": ["a", "b", "c"]}]),
        ("[2\t]:\n  - s: a,b\n  - s: c", [{"s": "a,b"}, {"s": "c"}]),
        ("tags[0]:", {"tags": []}),
        ('"": []', {"": []}),
        ("[2]:\n  - []\n  - [0]:", [[], []]),
        ("[2]:\n  -\n  - ", [{}, {}]),
        ("[3]:\n  - [2]\n  - a[2]{x,x}\n  - [1,2]", ["[2]", "a[2]{x,x}", "[1,2]"]),
        ('[1]:\n  - "[2]: x"', ["[2]: x"]),
        ("[1]:\n  - #x", ["#x"]),
        ("[1]:\n  -   a: 1", [{"a": 1}]),
        ("[1]:\n  - a: 1\n    - y: 2", [{"a": 1, "- y": 2}]),
        ("[1]:\n  - n: A\n    d[0]:", [{"n": "A", "d": []}]),
        ("a[1]:\n  - x\nb: 2", {"a": ["x"], "b": 2}),
    ],
)
def test_lists(text, value):
    assert toon.decode(text) == value


@walk(
    ("text", "value"),
    [
        ("[1]{id,n}:\n  1 , Ada ", [{"id": 1, "n": "Ada"}]),
        ("[1]{ a , n{x} , b }:\n  1,2,3", [{"a": 1, "n": {"x": 2}, "b": 3}]),
        ('[1]{"a{b}",c}:\n  1,2', [{"a{b}": 1, "c": 2}]),
        ('[1]{x"}"y}:\n  1', [{'x"}"y': 1}]),
        ('[1]{"x\\"y"}:\n  1', [{'x"y': 1}]),
        ('[1|]{"a|b"}:\n  1', [{"a|b": 1}]),
        ("[1]{2key}:\n  1", [{"2key": 1}]),
        ('[1]{"",x}:\n  1,2', [{"": 1, "x": 2}]),
        ("[1]{id,note}:\n  1,a:b", [{"id": 1, "note": "a:b"}]),
        ('[1]{note,id}:\n  "[2]: x",1', [{"note": "[2]: x", "id": 1}]),
        ('[1]{tag}:\n  "#a"', [{"tag": "#a"}]),
        ("[1]{a}:\n  []", [{"a": "[]"}]),
        ("[0]{a,b}:", []),
        ("t[1]{a,b}:\n  1,2\nx: 3,4", {"t": [{"a": 1, "b": 2}], "x": "3,4"}),
        ("m[2:]{v}:\n  a,b: 5\n  k[2]: 6", {"m": {"a,b": {"v": 5}, "k[2]": {"v": 6}}}),
        ("m[1:]{v}:\n  a: []", {"m": {"a": {"v": "[]"}}}),
        ("m[0:]{v}:", {"m": {}}),
        ('m[1:]{v}:\n  "a:b": "x,y"', {"m": {"a:b": {"v": "x,y"}}}),
        ("m[1:]{x}:\n  a: 1\nn: 3", {"m": {"a": {"x": 1}}, "n": 3}),
    ],
)
def test_tables(text, value):
    assert toon.decode(text) == value


@walk(
    ("text", "value"),
    [
        ("# heading\n[2]: a,b", ["a", "b"]),
        ("#hello", {}),
        ("\n# c\n\n# d\n", {}),
        ("a: 1\n   # any indentation\nb: 2", {"a": 1, "b": 2}),
        ("u:\n  id: 1\n# outside\n  n: A", {"u": {"id": 1, "n": "A"}}),
        ("[2]:\n  - a\n  # note\n  - b", ["a", "b"]),
        ("[2]{id}:\n  # note\n  1\n  # note\n  2", [{"id": 1}, {"id": 2}]),
        ("m[2:]{v}:\n  a: 1\n# note\n  b: 2", {"m": {"a": {"v": 1}, "b": {"v": 2}}}),
        ('# "unterminated\na: 1', {"a": 1}),
    ],
)
def test_a_line_that_begins_with_a_hash_is_a_comment(text, value):
    assert toon.decode(text) == value


@walk(
    ("text", "value"),
    [
        ("a: 1\n\nb: 2\n\n", {"a": 1, "b": 2}),
        ("a: 1\n   \nb: 2", {"a": 1, "b": 2}),
        ("a:\n  b: 1\n\n  c: 2", {"a": {"b": 1, "c": 2}}),
        ("[1]:\n\n  - a\n\n", ["a"]),
        ("[1]{id}:\n\n  1", [{"id": 1}]),
        ("m[1:]{v}:\n\n  a: 1", {"m": {"a": {"v": 1}}}),
        ("i[1]:\n  - a\n\nb: 2", {"i": ["a"], "b": 2}),
        ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        ("[1]{a,b}:\r\n  1,2\r\n", [{"a": 1, "b": 2}]),
        ('a: "x\\ry"\r\n', {"a": "x\ry"}),
        ("a: x\r\r\nb: 1", {"a": "x\r", "b": 1}),
        ("a: 1\n\r\nb: 2", {"a": 1, "b": 2}),
        ("a: 1\r", {"a": 1}),
        ("\ufeffa: 1", {"a": 1}),
        ("\ufeff\ufeffa: 1", {"\ufeffa": 1}),
    ],
)
def test_blank_lines_and_line_ends(text, value):
    assert toon.decode(text) == value


@walk(
    ("text", "value"),
    [
        ("n: A\nn: B", {"n": "B"}),
        ("o:\n  n: A\n  n: B", {"o": {"n": "B"}}),
        ("[1]:\n  - id: 1\n    id: 2", [{"id": 2}]),
        ("[1]{a,a,b,b{x}}:\n  1,2,3,4", [{"a": 2, "b": {"x": 4}}]),
        ("m[2:]{v}:\n  a: 1\n  a: 2", {"m": {"a": {"v": 2}}}),
        ("[1]: a,b", ["a", "b"]),
        ("[0]: 1", [1]),
        ("[99999999999999999999]: 1", [1]),
        ("[1]:\n  - 1\n  - 2", [1, 2]),
        ("a[0]:\n  - x", {"a": ["x"]}),
        ("[1]{x}:\n  1\n  2", [{"x": 1}, {"x": 2}]),
        ("m[1:]{v}:\n  a: 1\n  b: 2", {"m": {"a": {"v": 1}, "b": {"v": 2}}}),
        ("[2]{id}:\n  #1\n  2", [{"id": 2}]),
        ("[3]:\n  - a\n\n\n  - b", ["a", "b"]),
        ("[2]{id}:\n  1\n\n  2", [{"id": 1}, {"id": 2}]),
        ("m[2:]{v}:\n  a: 1\n\n  b: 2", {"m": {"a": {"v": 1}, "b": {"v": 2}}}),
        ("a:\n   b: 1", {"a": {"b": 1}}),
        ("a:\n   b:\n     c: 1", {"a": {"b": {"c": 1}}}),
        ("a:\n      b: 1\n      c: 2", {"a": {"b": 1, "c": 2}}),
        ("[2]{a}:\n      1\n      2", [{"a": 1}, {"a": 2}]),
        ("a:\n\tb: 1", {"a": {"b": 1}}),
        ("[3]{id}:\n  1\n\t#x\n  2", [{"id": 1}, {"id": "#x"}, {"id": 2}]),
        ("a: 1\n\t\nb: 2", {"a": 1, "b": 2}),
    ],
)
def test_strict_reading_rejects_what_lenient_reading_accepts(text, value):
    assert toon.decode(text, strict=False) == value
    with pytest.raises(Unreadable):
        toon.decode(text)


@walk(
    "text",
    [
        # texts
        '"a\\x"',
        'v: "a\\u00b"',
        'v: "a\\uD800b"',
        'v: "\\ud83d\\ude00"',
        '"a\\x": 1',
        '"unterminated',
        'k: "abc" def',
        'k: "a"\t',
        '"a"\t: 1',
        '[2]: "a" b,c',
        # what is not a document
        "hello\nworld",
        "a:\n  user",
        "  a: 1",
        "[2]: 1,2\njunk: 3",
        "[]\njunk: 3",
        "[1:]{v}:\n  a: 1\njunk: 3",
        "items[2]{id,n}\n  1,A\n  2,B",
        # headers
        "foo[1][bar]: 10",
        "foo[bar]: 10",
        "foo[2]extra: a,b",
        "foo [2]: a,b",
        "key[]: 1,2",
        "x[03]: a,b,c",
        "x[-1]: a",
        "x[+3]: a",
        "x[3.7]: a",
        "x[1e1]: a",
        "x[#2]: a,b",
        f"x[{'9' * 5_000}]: a",
        "x[2,]: a,b",
        "x[2: a",
        "x[2] :\n  1,2",
        "x[2] {a,b}:\n  1,2",
        "[#2]: a,b",
        "[1]:\n  - [#2]: a,b",
        "a:\n  [2]: 1,2",
        "a: 1\n[2]: x,y",
        # fields
        "x[1]{}:\n  1",
        "x[1]{id,meta{}}:\n  1",
        "x[1]{id,c{n:\n  1,A",
        "x[0]{x,}:",
        "x[0]{b {c}}:",
        "x[0]{x,{y}}:",
        "x[0]{a}b}:",
        "x[1|]{a,b}:\n  1,2",
        "x[1]{a|b}:\n  1",
        'x[1]{"a"b}:\n  1',
        "x[2]{a,b}: 1,2",
        # tables with keys
        "m[2:]:\n  a: 1\n  b: 2",
        "m[2:]{v}",
        "m[2|:]{v}:\n  a: 1\n  b: 2",
        "m[03:]{v}:\n  a: 1",
        "m[2 :]{v}:\n  a: 1",
        "m[2:,]{v}:\n  a: 1",
        "m[1:]{v}: x\n  a: 1",
        "m[2:]{v}:\n  a: 1\n  5",
        "m[1:]{v}:\n  a:",
        "m[1:]{a,b}:\n  k: 1",
        "[1]:\n  - [1:]{v}:\n      a: 1",
        "[1]:\n  - [2]{x}:\n    1\n    2",
        # rows
        "[2]{id,n}:\n  1,A\n  2",
        "[1]{a}:\n  1,2",
        "[1]{id,c{n,m}}:\n  1,A",
        "[1\t]{a\tb}:\n  1,2",
        "[2]{a,b}:\n  1,2\n  c: 3,4",
        # indentation
        "a: 1\n  b: 2",
        "a: 1\n    b: 2",
        "a: 1\n  hello",
        "a: 1\n  - x",
        "a:\n  b: 1\n      c: 2",
        "u[1]{a}:\n  1\n    junk: 9",
        "[1]:\n  - a: 1\n      deep: 1",
        "[2]:\n  - a\n    b: 1\n  - c",
        "[2]:\n  - a\n  x: 1",
        "[2]:\n  - a\n  -b",
        "k[1]:\n  - x: 1\n  bare",
        "x[1]:\n  - a[1]{p}:\n    1",
    ],
)
def test_malformed_text_is_rejected_in_both_modes(text):
    for strict in (True, False):
        with pytest.raises(Unreadable):
            toon.decode(text, strict=strict)


@walk(
    "text",
    [
        # lengths
        "tags[2]: a,b,c",
        "tags[3]: a,b",
        "a[18446744073709551617]: 1",
        "a[1]:",
        "[2]:\n  - a",
        "[2]{id}:\n  1",
        "m[2:]{v}:\n  a: 1",
        "p[2]:\n  - [3]: 1,2\n  - [2]: 3,4",
        "[1]:\n  - id: 1\n    u[2]{id}:\n      1",
        # fields that appear twice
        "x[1]{a,a{x}}:\n  1,2",
        "x[0]{a,a}:",
        "x[0]{a{b,b}}:",
        # indentation
        "a:\n   b: 1",
        "[2]:\n   - id: 1\n   - id: 2",
        "a:\n    b: 1",
        "a:\n  b:\n      c: 1",
        "a:\n\tb: 1",
        "a:\n \tb: 1",
        "a: 1\n\t# no comment",
        "a: 1\n\t\nb: 2",
        # blank lines
        "[2]:\n  - a\n  \n  - b",
        "[2]:\n  - x:\n      y: 1\n\n  - 2",
        "[2]:\n  - in[2]:\n      - a\n\n      - b\n  - x",
        "[2]:\n  - in[1]{a}:\n      1\n\n  - x",
        "[2]:\n  - in[1]{a}:\n\n      1\n  - x",
        "[1]:\n  - a: 1\n\n    b: 2",
    ],
)
def test_wrong_counts_and_indentation_are_rejected_if_strict(text):
    with pytest.raises(Unreadable):
        toon.decode(text)


def test_the_indentation_is_checked_against_the_width():
    assert toon.decode("a:\n    b: 1", indent=4) == {"a": {"b": 1}}
    with pytest.raises(Unreadable, match="line 2: the indentation is not a multiple of 4"):
        toon.decode("a:\n   b: 1", indent=4)


def test_an_error_names_the_line():
    with pytest.raises(Unreadable, match="line 4: 1 values for 2 fields") as caught:
        toon.decode("# two\n[2]{a,b}:\n  1,2\n  3")
    assert caught.value.line == 4


def test_a_document_nested_too_deeply_is_rejected():
    text = "\n".join("  " * depth + "a:" for depth in range(5_000))
    with pytest.raises(Unreadable, match="nested too deeply"):
        toon.decode(text)
