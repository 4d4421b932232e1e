"""The four formats by name, with their writers and readers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pvemcp_formats import csv_table, json_table, toon_table
from pvemcp_formats.table import Row, Table


class Format(StrEnum):
    """Format of rows and documents; the values are the public names."""

    JSON_COMPACT = "JsonCompact"
    JSON_NORMAL = "JsonNormal"
    TOON = "Toon"
    CSV = "Csv"


@dataclass(frozen=True, slots=True)
class Codec:
    """The four functions of a format."""

    write_rows: Callable[[Table], str]
    write_document: Callable[[Row], str]
    read_rows: Callable[[str], list[dict[str, Any]]]
    read_document: Callable[[str], dict[str, Any]]


CODECS = {
    Format.JSON_COMPACT: Codec(
        json_table.write_compact,
        json_table.write_document,
        json_table.read_compact,
        json_table.read_document,
    ),
    Format.JSON_NORMAL: Codec(
        json_table.write_normal,
        json_table.write_document,
        json_table.read_normal,
        json_table.read_document,
    ),
    Format.TOON: Codec(
        toon_table.write_rows,
        toon_table.write_document,
        toon_table.read_rows,
        toon_table.read_document,
    ),
    Format.CSV: Codec(
        csv_table.write_rows,
        csv_table.write_document,
        csv_table.read_rows,
        csv_table.read_document,
    ),
}


def encode(rows: Sequence[Row], format: Format, *, columns: Sequence[str] | None = None) -> str:  # noqa: A002 - the usual term
    """Return the rows as text, with these columns or all keys in order of first appearance."""
    return CODECS[format].write_rows(Table.of(rows, columns))


def encode_document(document: Row, format: Format) -> str:  # noqa: A002 - the usual term
    """Return a single mapping as text."""
    return CODECS[format].write_document(document)


def decode(text: str, format: Format) -> list[dict[str, Any]]:  # noqa: A002 - the usual term
    """Return the rows of a text from `encode`; raise Unreadable for any other text."""
    return CODECS[format].read_rows(text)


def decode_document(text: str, format: Format) -> dict[str, Any]:  # noqa: A002 - the usual term
    """Return the document of a text from `encode_document`; raise Unreadable for any other."""
    return CODECS[format].read_document(text)
