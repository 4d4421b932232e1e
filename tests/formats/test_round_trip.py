"""Decoding restores every encoded value."""

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvemcp_formats import (
    Format,
    Unreadable,
    decode,
    decode_document,
    encode,
    encode_document,
    toon,
)

NESTED = (Format.JSON_COMPACT, Format.JSON_NORMAL, Format.TOON)
# drawing an example costs more than all formats: each example goes through each of them
texts = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    [
        "",
        " ",
        "-",
        "- a",
        "#",
        "true",
        "null",
        "1",
        "05",
        "+1",
        "a,b",
        "a: b",
        "[1]",
        '"',
        "\\",
        "\n",
    ]
)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
columns = st.lists(texts, min_size=1, max_size=4, unique=True)


def tables(cells):
    return columns.flatmap(
        lambda names: st.lists(st.fixed_dictionaries(dict.fromkeys(names, cells)))
    )


@given(tables(scalars))
def test_rows_of_scalars_are_restored_in_csv(rows):
    assert decode(encode(rows, Format.CSV), Format.CSV) == rows


@given(tables(values))
def test_rows_of_any_values_are_restored_in_json_and_toon(rows):
    for form in NESTED:
        assert decode(encode(rows, form), form) == rows, form


@given(st.lists(st.dictionaries(texts, scalars, min_size=1)))
def test_missing_values_are_restored_as_null(rows):
    names = dict.fromkeys(name for row in rows for name in row)
    completed = [dict.fromkeys(names) | row for row in rows]
    for form in Format:
        assert decode(encode(rows, form), form) == completed, form


@given(st.dictionaries(texts, values))
def test_a_document_is_restored(document):
    for form in NESTED:
        assert decode_document(encode_document(document, form), form) == document, form


@given(values, st.sampled_from(",\t|"), st.sampled_from([1, 2, 4]))
def test_any_value_is_restored_from_toon(value, delimiter, indent):
    text = toon.encode(value, delimiter=delimiter, indent=indent)
    assert toon.decode(text, indent=indent) == value
    assert toon.decode(text, indent=indent, strict=False) == value


@given(values)
def test_toon_keeps_the_order_of_keys_outside_tables(value):
    if isinstance(value, dict):
        assert list(toon.decode(toon.encode(value))) == list(value)


@given(st.text())
@pytest.mark.parametrize("strict", [True, False])
def test_toon_reads_or_rejects_any_text(strict, text):
    try:
        value = toon.decode(text, strict=strict)
    except Unreadable:
        return
    assert not isinstance(value, float) or math.isfinite(value)
    assert toon.decode(toon.encode(value)) == value


@given(st.text())
def test_every_format_reads_or_rejects_any_text(text):
    for form in Format:
        with suppress(Unreadable):
            assert isinstance(decode(text, form), list), form
