"""Rules of the TOON specification 4.4 for encoding."""

import math
from datetime import UTC, datetime

import pytest
from tests.cases import walk

from pvemcp_formats import Unwritable, toon


@walk(
    ("value", "text"),
    [
        ("hello", "hello"),
        ("Ada_99", "Ada_99"),
        ("café 你好 🚀 x", "café 你好 🚀 x"),
        ("a-b #c", "a-b #c"),
        ("non\u00a0breaking\u00a0", "non\u00a0breaking\u00a0"),
        ("", '""'),
        ("true", '"true"'),
        ("false", '"false"'),
        ("null", '"null"'),
        ("True", "True"),
        ("42", '"42"'),
        ("-3.14", '"-3.14"'),
        ("1e-6", '"1e-6"'),
        ("1E9", '"1E9"'),
        ("05", '"05"'),
        ("+1", '"+1"'),
        ("1.", "1."),
        (".5", ".5"),
        ("٤٢", "٤٢"),
        ("1\n", '"1\\n"'),
        ("one\ntwo", '"one\\ntwo"'),
        ("tab\there", '"tab\\there"'),
        ("return\rhere", '"return\\rhere"'),
        ("a\x04\x08\x0cb\x1f", '"a\\u0004\\u0008\\u000cb\\u001f"'),
        ("a:\x7f\x85\u2028b", '"a:\x7f\x85\u2028b"'),
        ("C:\\Users", '"C:\\\\Users"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("[3]: x,y", '"[3]: x,y"'),
        ("[test]", '"[test]"'),
        ("a[test]", '"a[test]"'),
        ("{key}", '"{key}"'),
        ("a:b", '"a:b"'),
        ("a,b", '"a,b"'),
        ("a,🚀", '"a,🚀"'),
        ("-", '"-"'),
        ("-x", '"-x"'),
        ("- item", '"- item"'),
        ("#hello", '"#hello"'),
        ("-\u0301", '"-\u0301"'),
        ("#\u0301", '"#\u0301"'),
        ("x:\u0301", '"x:\u0301"'),
        (" padded ", '" padded "'),
        ("  ", '"  "'),
        ("\ufeff8", '"\ufeff8"'),
    ],
)
def test_text_is_quoted_where_it_would_be_ambiguous(value, text):
    assert toon.encode(value) == text
    assert toon.decode(text) == value


@walk(
    ("value", "text"),
    [
        (42, "42"),
        (-7, "-7"),
        (0, "0"),
        (-0.0, "0"),
        (3.14, "3.14"),
        (1.0, "1"),
        (1e6, "1000000"),
        (0.000001, "0.000001"),
        (-0.00000125, "-0.00000125"),
        (0.00012, "0.00012"),
        (1e-7, "1e-7"),
        (1.5e-10, "1.5e-10"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (-2.5e300, "-2.5e+300"),
        (5e-324, "5e-324"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1 / 3, "0.3333333333333333"),
        (2**53 - 1, "9007199254740991"),
        (123456789012345680000, "123456789012345680000"),
        (-(2**100), "-1267650600228229401496703205376"),
        (True, "true"),
        (False, "false"),
        (None, "null"),
    ],
)
def test_a_number_has_its_shortest_exact_digits(value, text):
    assert toon.encode(value) == text
    assert toon.decode(text) == value


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_nan_and_infinities_are_null(number):
    assert toon.encode([number, 1]) == "[2]: null,1"


@walk(
    ("value", "text"),
    [
        ({}, ""),
        ({"id": 123, "name": "Ada", "active": True}, "id: 123\nname: Ada\nactive: true"),
        ({"id": 1, "value": None}, "id: 1\nvalue: null"),
        ({"a": {"b": {"c": "deep"}}}, "a:\n  b:\n    c: deep"),
        ({"user": {}}, "user:"),
        ({"order:id": 7}, '"order:id": 7'),
        ({"[index]": 5}, '"[index]": 5'),
        ({"{key}": 5}, '"{key}": 5'),
        ({"a,b": 1}, '"a,b": 1'),
        ({"full name": "Ada"}, '"full name": Ada'),
        ({"-lead": 1}, '"-lead": 1'),
        ({" a ": 1}, '" a ": 1'),
        ({"123": "x"}, '"123": x'),
        ({"": 1}, '"": 1'),
        ({"é": 1}, '"é": 1'),
        ({"user.name": 1, "_x9": 2}, "user.name: 1\n_x9: 2"),
        ({"line\nbreak": 1, "tab\t": 2}, '"line\\nbreak": 1\n"tab\\t": 2'),
        ({'he said "hi"': 1}, '"he said \\"hi\\"": 1'),
        ({"a\x04b": 1, "c\x1fd": 2}, '"a\\u0004b": 1\n"c\\u001fd": 2'),
    ],
)
def test_an_object_has_one_line_per_member(value, text):
    assert toon.encode(value) == text
    assert toon.decode(text) == value


@walk(
    ("value", "text"),
    [
        ([], "[]"),
        ({"tags": []}, "tags: []"),
        ({"": []}, '"": []'),
        ({"tags": ["reading", "gaming"]}, "tags[2]: reading,gaming"),
        ({"": [1, 2]}, '""[2]: 1,2'),
        ({"my-key": [1]}, '"my-key"[1]: 1'),
        (["x", "y", "true", True, 10], '[5]: x,y,"true",true,10'),
        ([""], '[1]: ""'),
        (["a", "", "b"], '[3]: a,"",b'),
        ([" ", "  "], '[2]: " ","  "'),
        (["a", "b,c", "d:e"], '[3]: a,"b,c","d:e"'),
        (["[5]", "- item", "{key}"], '[3]: "[5]","- item","{key}"'),
        ([["a", "b"], ["c,d", "true"]], '[2]:\n  - [2]: a,b\n  - [2]: "c,d","true"'),
        ([[], []], "[2]:\n  - [0]:\n  - [0]:"),
        ({"pairs": [[1], [2, 3]]}, "pairs[2]:\n  - [1]: 1\n  - [2]: 2,3"),
        ([[[1]]], "[1]:\n  - [1]:\n    - [1]: 1"),
        ([1, {"a": 1}, "text"], "[3]:\n  - 1\n  - a: 1\n  - text"),
        ([{"a": 1}, [1, 2]], "[2]:\n  - a: 1\n  - [2]: 1,2"),
        (
            ["all", {"id": 1, "n": "A"}, [{"id": 2}, {"s": "x"}]],
            "[3]:\n  - all\n  - id: 1\n    n: A\n  - [2]:\n    - id: 2\n    - s: x",
        ),
        (
            {"u": {"id": 1, "tags": ["a", "b"], "on": True, "prefs": []}},
            "u:\n  id: 1\n  tags[2]: a,b\n  on: true\n  prefs: []",
        ),
    ],
)
def test_a_list_is_on_one_line_or_has_items(value, text):
    assert toon.encode(value) == text
    assert toon.decode(text) == value


@walk(
    ("value", "text"),
    [
        ([{"id": 1}, {"id": 2}], "[2]{id}:\n  1\n  2"),
        (
            {"items": [{"sku": "A1", "price": 9.99}, {"sku": "B2", "price": 14.5}]},
            "items[2]{sku,price}:\n  A1,9.99\n  B2,14.5",
        ),
        ([{"id": 1, "v": None}, {"id": 2, "v": "t"}], "[2]{id,v}:\n  1,null\n  2,t"),
        (
            [{"s": "A,1", "d": "x: y"}, {"s": "", "d": "true"}],
            '[2]{s,d}:\n  "A,1","x: y"\n  "","true"',
        ),
        ([{"tag": "#a"}, {"tag": "b"}], '[2]{tag}:\n  "#a"\n  b'),
        ([{"order:id": 1, "full name": "A"}], '[1]{"order:id","full name"}:\n  1,A'),
        ({"": [{"id": 1}]}, '""[1]{id}:\n  1'),
        ([{"a": 1, "b": 2}, {"b": 20, "a": 10}], "[2]{a,b}:\n  1,2\n  10,20"),
        (
            [{"id": 1, "at": {"x": 1, "y": 2}, "n": 3}, {"id": 4, "at": {"y": 6, "x": 5}, "n": 7}],
            "[2]{id,at{x,y},n}:\n  1,1,2,3\n  4,5,6,7",
        ),
        (
            [{"from": {"n": "A", "c": "B"}, "to": {"n": "C", "c": "D"}}],
            "[1]{from{n,c},to{n,c}}:\n  A,B,C,D",
        ),
        ([{"id": 1, "geo": {"at": {"lat": 1.5}}}], "[1]{id,geo{at{lat}}}:\n  1,1.5"),
        ([{"id": 1, "c": {"full name": "A"}}], '[1]{id,c{"full name"}}:\n  1,A'),
        (
            [{"t": {"p": {"x": 1}, "q": {"x": 2}}, "o": 9}],
            "[1]{t{p{x},q{x}},o}:\n  1,2,9",
        ),
    ],
)
def test_uniform_objects_are_a_table(value, text):
    assert toon.encode(value) == text
    assert toon.decode(text) == value


@walk(
    ("value", "text"),
    [
        ([{"id": 1}, {"id": 2, "n": "A"}], "[2]:\n  - id: 1\n  - id: 2\n    n: A"),
        (
            [{"id": 1, "in": {"x": 1}}, {"id": 2, "in": {"y": 2}}],
            "[2]:\n  - id: 1\n    in:\n      x: 1\n  - id: 2\n    in:\n      y: 2",
        ),
        (
            [{"id": 1, "c": {"n": "A"}}, {"id": 2, "c": None}],
            "[2]:\n  - id: 1\n    c:\n      n: A\n  - id: 2\n    c: null",
        ),
        ([{"c": {"n": "A", "t": ["x"]}}], "[1]:\n  - c:\n      n: A\n      t[1]: x"),
        ([{"id": 1, "meta": {}}], "[1]:\n  - id: 1\n    meta:"),
        ([{"a": {}, "b": 1}], "[1]:\n  - a:\n    b: 1"),
        ([{}, {}], "[2]:\n  -\n  -"),
        (["first", {}], "[2]:\n  - first\n  -"),
        ([{"nums": [1, 2], "n": "A"}], "[1]:\n  - nums[2]: 1,2\n    n: A"),
        ([{"n": "A", "nums": [1, 2]}], "[1]:\n  - n: A\n    nums[2]: 1,2"),
        ([{"d": [], "n": "x"}, 1], "[2]:\n  - d: []\n    n: x\n  - 1"),
        (
            [{"m": [[1, 2], [3]], "n": "g"}],
            "[1]:\n  - m[2]:\n      - [2]: 1,2\n      - [1]: 3\n    n: g",
        ),
        (
            [{"users": [{"id": 1, "n": "A"}, {"id": 2, "n": "B"}], "s": "on"}],
            "[1]:\n  - users[2]{id,n}:\n      1,A\n      2,B\n    s: on",
        ),
        (
            [{"s": "on", "users": [{"id": 1}]}],
            "[1]:\n  - s: on\n    users[1]{id}:\n      1",
        ),
        (
            [{"users": [{"id": 1, "n": "A"}, {"id": 2}], "s": "on"}],
            "[1]:\n  - users[2]:\n      - id: 1\n        n: A\n      - id: 2\n    s: on",
        ),
    ],
)
def test_objects_with_different_shapes_are_items(value, text):
    assert toon.encode(value) == text
    assert toon.decode(text) == value


@walk(
    ("value", "text"),
    [
        (
            {"hosts": {"a": {"ip": "x", "port": 80}, "b": {"port": 90, "ip": "y"}}},
            "hosts[2:]{ip,port}:\n  a: x,80\n  b: y,90",
        ),
        ({"al": {"age": 3}, "bo": {"age": 2}}, "[2:]{age}:\n  al: 3\n  bo: 2"),
        (
            {"r": {"eu": {"n": "E", "at": {"x": 5}}, "us": {"n": "A", "at": {"x": 4}}}},
            "r[2:]{n,at{x}}:\n  eu: E,5\n  us: A,4",
        ),
        ({"ids": {"42": {"v": 1}, "my key": {"v": 2}}}, 'ids[2:]{v}:\n  "42": 1\n  "my key": 2'),
        ({"n": {"x": {"t": "a,b"}, "y": {"t": "c"}}}, 'n[2:]{t}:\n  x: "a,b"\n  y: c'),
        ({"c": {"only": {"a": 1}}}, "c:\n  only:\n    a: 1"),
        (
            {"e": {"d": {"h": 1}, "p": {"h": 2, "q": 3}}},
            "e:\n  d:\n    h: 1\n  p:\n    h: 2\n    q: 3",
        ),
        ({"m": {"a": {"x": 1}, "b": 2}}, "m:\n  a:\n    x: 1\n  b: 2"),
        ({"m": {"a": {"t": ["x"]}, "b": {"t": ["y"]}}}, "m:\n  a:\n    t[1]: x\n  b:\n    t[1]: y"),
        ({"m": {"a": {}, "b": {}}}, "m:\n  a:\n  b:"),
        (
            [{"c": {"a": {"x": 1}, "b": {"x": 2}}, "s": "on"}, {"s": "off"}],
            "[2]:\n  - c[2:]{x}:\n      a: 1\n      b: 2\n    s: on\n  - s: off",
        ),
        (
            [{"a": {"x": 1}, "b": {"x": 2}}, 5],
            "[2]:\n  - a:\n      x: 1\n    b:\n      x: 2\n  - 5",
        ),
    ],
)
def test_an_object_of_uniform_objects_is_a_table_with_keys(value, text):
    assert toon.encode(value) == text
    assert toon.decode(text) == value


@walk(
    ("value", "delimiter", "text"),
    [
        (["a", "b"], "\t", "[2\t]: a\tb"),
        (["a", "b"], "|", "[2|]: a|b"),
        ([], "|", "[]"),
        (["a,b", "c|d", "e\tf"], "|", '[3|]: a,b|"c|d"|"e\\tf"'),
        (["a,b", "c|d", "e\tf"], "\t", '[3\t]: a,b\tc|d\t"e\\tf"'),
        (["true", "42"], "|", '[2|]: "true"|"42"'),
        ([{"id": 1, "n": "a,b"}], "\t", "[1\t]{id\tn}:\n  1\ta,b"),
        ([{"id": 1, "a|b": {"x": 2, "y": 3}}], "|", '[1|]{id|"a|b"{x|y}}:\n  1|2|3'),
        ({"p": [["a", "b|c"], []]}, "|", 'p[2|]:\n  - [2|]: a|"b|c"\n  - [0|]:'),
        (
            {"h": {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 4}}},
            "|",
            "h[2:|]{x|y}:\n  a: 1|2\n  b: 3|4",
        ),
        ({"note": "a,b"}, "|", "note: a,b"),
        ({"note": "a|b"}, "|", 'note: "a|b"'),
    ],
)
def test_another_delimiter_is_in_the_header(value, delimiter, text):
    assert toon.encode(value, delimiter=delimiter) == text
    assert toon.decode(text) == value


def test_the_indentation_can_be_wider():
    text = "user:\n    name: Ada\n    tags[1]:\n        - [1]: a"
    value = {"user": {"name": "Ada", "tags": [["a"]]}}
    assert toon.encode(value, indent=4) == text
    assert toon.decode(text, indent=4) == value


def test_any_other_delimiter_is_rejected():
    with pytest.raises(ValueError, match="delimiter ';'"):
        toon.encode([1], delimiter=";")


@pytest.mark.parametrize("work", [toon.encode, toon.decode])
def test_an_indentation_of_zero_is_rejected(work):
    with pytest.raises(ValueError, match="at least one space"):
        work("a: 1", indent=0)


def test_a_time_is_text_in_utc():
    moment = datetime(2026, 11, 22, 9, 17, 13, 999, tzinfo=UTC)
    assert toon.encode([{"at": moment}]) == '[1]{at}:\n  "2026-11-22T09:17:13Z"'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "cannot encode a value of type object"),
        ({1: "x"}, "a key must be text, not int"),
        ("half \ud83d", "half a surrogate pair at character 5"),
        ([{"k\udc00": 1}], "half a surrogate pair"),
    ],
)
def test_a_value_without_a_json_form_is_rejected(value, message):
    with pytest.raises(Unwritable, match=message):
        toon.encode(value)


def test_a_value_nested_too_deeply_is_rejected():
    value: object = "x"
    for _ in range(5_000):
        value = [value]
    with pytest.raises(Unwritable, match="nested too deeply"):
        toon.encode(value)
