"""The text of each format, and decoding it again."""

from datetime import UTC, datetime, timedelta, timezone
from enum import IntEnum, StrEnum
from types import MappingProxyType

import pytest

from pvemcp_formats import (
    Format,
    Unreadable,
    Unwritable,
    decode,
    decode_document,
    encode,
    encode_document,
)

ROWS = [
    {"vmid": 100, "name": "web", "cpu": 1.5, "lock": None},
    {"vmid": 101, "name": "a,b", "cpu": 2.0, "lock": "", "tags": "x"},
]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (
            Format.JSON_COMPACT,
            (
                '{"data":{"headers":["vmid","name","cpu","lock","tags"],"rows":'
                '[[100,"web",1.5,null,null],[101,"a,b",2.0,"","x"]]}}'
            ),
        ),
        (
            Format.JSON_NORMAL,
            (
                '{"data":[{"vmid":100,"name":"web","cpu":1.5,"lock":null,"tags":null},'
                '{"vmid":101,"name":"a,b","cpu":2.0,"lock":"","tags":"x"}]}'
            ),
        ),
        (
            Format.TOON,
            'data[2]{vmid,name,cpu,lock,tags}:\n  100,web,1.5,null,null\n  101,"a,b",2,"",x',
        ),
        (Format.CSV, 'vmid,name,cpu,lock,tags\n100,web,1.5,,\n101,"a,b",2,"",x'),
    ],
)
def test_rows_have_the_columns_of_all_rows_in_order_of_appearance(form, text):
    assert encode(ROWS, form) == text
    assert decode(text, form) == [ROWS[0] | {"tags": None}, ROWS[1]]


@pytest.mark.parametrize("form", Format)
def test_named_columns_set_the_selection_and_the_order(form):
    text = encode(ROWS, form, columns=["name", "new", "vmid"])
    assert [list(row.items()) for row in decode(text, form)] == [
        [("name", "web"), ("new", None), ("vmid", 100)],
        [("name", "a,b"), ("new", None), ("vmid", 101)],
    ]


@pytest.mark.parametrize("form", Format)
def test_the_order_of_keys_in_later_rows_does_not_matter(form):
    text = encode([{"a": 1, "b": 2}, {"b": 3, "a": 4}], form)
    assert decode(text, form) == [{"a": 1, "b": 2}, {"a": 4, "b": 3}]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (Format.JSON_COMPACT, '{"data":{"headers":["a","b"],"rows":[]}}'),
        (Format.JSON_NORMAL, '{"data":[]}'),
        (Format.TOON, "data[0]{a,b}:"),
        (Format.CSV, "a,b"),
    ],
)
def test_an_empty_list_keeps_its_columns_where_possible(form, text):
    assert encode([], form, columns=["a", "b"]) == text
    assert decode(text, form) == []


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (Format.JSON_COMPACT, '{"data":{"headers":[],"rows":[]}}'),
        (Format.JSON_NORMAL, '{"data":[]}'),
        (Format.TOON, "data: []"),
        (Format.CSV, ""),
    ],
)
def test_no_rows_and_no_columns_can_be_encoded(form, text):
    assert encode([], form) == text
    assert decode(text, form) == []


DOCUMENT = {"name": "lab", "ok": True, "vms": {"total": 2, "off": 1}, "nodes": [], "ceph": None}


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (
            Format.JSON_COMPACT,
            '{"data":{"name":"lab","ok":true,"vms":{"total":2,"off":1},"nodes":[],"ceph":null}}',
        ),
        (
            Format.JSON_NORMAL,
            '{"data":{"name":"lab","ok":true,"vms":{"total":2,"off":1},"nodes":[],"ceph":null}}',
        ),
        (
            Format.TOON,
            (
                "data:\n  name: lab\n  ok: true\n  vms:\n    total: 2\n    off: 1\n"
                "  nodes: []\n  ceph: null"
            ),
        ),
    ],
)
def test_a_document_is_an_object_under_data(form, text):
    assert encode_document(DOCUMENT, form) == text
    assert decode_document(text, form) == DOCUMENT


def test_a_document_in_csv_is_one_record_with_nested_values_as_json():
    text = 'name,ok,vms,nodes,ceph\nlab,true,"{""total"":2,""off"":1}",[],'
    assert encode_document(DOCUMENT, Format.CSV) == text
    flattened = DOCUMENT | {"vms": '{"total":2,"off":1}', "nodes": "[]"}
    assert decode_document(text, Format.CSV) == flattened


@pytest.mark.parametrize("form", Format)
def test_an_empty_document_is_decoded_as_one(form):
    assert decode_document(encode_document({}, form), form) == {}


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 11, 22, 9, 17, 13, 999_999, tzinfo=UTC), "2026-11-22T09:17:13Z"),
        (datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2))), "2025-12-31T23:00:00Z"),
        (datetime(2026, 1, 1, 1), "2026-01-01T01:00:00Z"),  # noqa: DTZ001 - naive on purpose
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z"),
    ],
)
@pytest.mark.parametrize("form", Format)
def test_a_time_is_iso_8601_in_utc_to_the_second(form, moment, text):
    assert decode(encode([{"at": moment}], form), form) == [{"at": text}]


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("number", [2**53 + 1, -(2**63) - 1, 2**64, 10**60, 5e-324, 1.5e300, -0.1])
def test_a_number_keeps_every_digit(form, number):
    read = decode(encode([{"n": number, "nested": 1}], form), form)
    assert read == [{"n": number, "nested": 1}]


@pytest.mark.parametrize("form", [Format.JSON_COMPACT, Format.JSON_NORMAL, Format.TOON])
def test_a_nested_large_integer_keeps_every_digit(form):
    rows = [{"n": [2**70, {"m": 2**71}]}]
    assert decode(encode(rows, form), form) == rows


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinities_are_null(form, number):
    assert decode(encode([{"n": number, "m": 1}], form), form) == [{"n": None, "m": 1}]


@pytest.mark.parametrize("form", Format)
def test_control_and_other_characters_are_kept(form):
    text = "".join(map(chr, [*range(0x20), 0x7F, 0x85, 0x2028, 0xFEFF, 0x1F680]))
    rows = [{text: text, "b": f"é{text}"}]
    assert decode(encode(rows, form), form) == rows


class Colour(StrEnum):
    RED = "true"


class Level(IntEnum):
    HIGH = 5


class Ratio(float):
    pass


@pytest.mark.parametrize("form", Format)
def test_a_value_of_a_subclass_is_written_like_its_base(form):
    rows = [{"a": Colour.RED, "b": Level.HIGH, "c": Ratio(1.5)}, {"a": "x", "b": 1, "c": None}]
    assert decode(encode(rows, form), form) == [
        {"a": "true", "b": 5, "c": 1.5},
        {"a": "x", "b": 1, "c": None},
    ]


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("rows", [[{"a": 1, "b": 2}], [{"a": 1, "b": 2}, {"a": 3}]])
def test_a_row_may_be_any_mapping(form, rows):
    proxies = [MappingProxyType(row) for row in rows]
    assert encode(proxies, form) == encode(rows, form)


@pytest.mark.parametrize("form", Format)
def test_a_value_of_an_unknown_type_is_rejected(form):
    with pytest.raises(Unwritable, match="cannot encode a value of type object"):
        encode([{"a": object(), "b": 1}], form)


@pytest.mark.parametrize("form", Format)
def test_half_a_surrogate_pair_is_rejected(form):
    with pytest.raises(Unwritable):
        encode([{"a": "\ud83d", "b": 1}], form)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (Format.JSON_COMPACT, "{"),
        (Format.JSON_COMPACT, "[]"),
        (Format.JSON_COMPACT, '{"data":[]}'),
        (Format.JSON_COMPACT, '{"data":{"headers":["a"],"rows":[[1,2]]}}'),
        (Format.JSON_COMPACT, '{"data":{"headers":["a"],"rows":[1]}}'),
        (Format.JSON_NORMAL, '{"data":[NaN]}'),
        (Format.JSON_NORMAL, '{"data":[1]}'),
        (Format.JSON_NORMAL, '{"data":[],"more":1}'),
        (Format.JSON_NORMAL, '{"data":' + "[" * 100_000),
        (Format.TOON, "data: 1"),
        (Format.TOON, "rows[1]{a}:\n  1"),
        (Format.TOON, "data[1]: 1"),
        (Format.CSV, "a,b\n1"),
        (Format.CSV, 'a\n"1'),
        (Format.CSV, 'a\n1"2'),
        (Format.CSV, "a\n1\r2"),
    ],
    ids=lambda value: value[:40],
)
def test_text_in_another_format_is_rejected(form, text):
    with pytest.raises(Unreadable):
        decode(text, form)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (Format.JSON_COMPACT, '{"data":[]}'),
        (Format.TOON, "data: 1"),
        (Format.TOON, "a: 1"),
        (Format.CSV, "a\n1\n2"),
    ],
)
def test_text_without_a_document_is_rejected(form, text):
    with pytest.raises(Unreadable):
        decode_document(text, form)


def test_an_error_in_json_names_the_line():
    with pytest.raises(Unreadable, match="line 2: ") as caught:
        decode('{"data":\n[}', Format.JSON_NORMAL)
    assert caught.value.line == 2
