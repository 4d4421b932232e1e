"""The four formats by name, and what each can do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pvemcp_formats import csv_table, json_table, toon_table
from pvemcp_formats.table import Row, Table


class Format(StrEnum):
    """How rows and documents are written; the values are the public names."""

    JSON_COMPACT = "JsonCompact"
    JSON_NORMAL = "JsonNormal"
    TOON = "Toon"
    CSV = "Csv"


@dataclass(frozen=True, slots=True)
class Notation:
    """The four functions that a format consists of."""

    write_rows: Callable[[Table], str]
    write_document: Callable[[Row], str]
    read_rows: Callable[[str], list[dict[str, Any]]]
    read_document: Callable[[str], dict[str, Any]]


NOTATIONS = {
    Format.JSON_COMPACT: Notation(
        json_table.write_compact,
        json_table.write_document,
        json_table.read_compact,
        json_table.read_document,
    ),
    Format.JSON_NORMAL: Notation(
        json_table.write_normal,
        json_table.write_document,
        json_table.read_normal,
        json_table.read_document,
    ),
    Format.TOON: Notation(
        toon_table.write_rows,
        toon_table.write_document,
        toon_table.read_rows,
        toon_table.read_document,
    ),
    Format.CSV: Notation(
        csv_table.write_rows,
        csv_table.write_document,
        csv_table.read_rows,
        csv_table.read_document,
    ),
}


def encode(rows: Sequence[Row], format: Format, *, columns: Sequence[str] | None = None) -> str:  # noqa: A002 - the word of the domain
    """The rows as text, under the given columns or all their keys in order of appearance."""
    return NOTATIONS[format].write_rows(Table.of(rows, columns))


def encode_document(document: Row, format: Format) -> str:  # noqa: A002 - the word of the domain
    """A single answer as text."""
    return NOTATIONS[format].write_document(document)


def decode(text: str, format: Format) -> list[dict[str, Any]]:  # noqa: A002 - the word of the domain
    """The rows that `encode` wrote."""
    return NOTATIONS[format].read_rows(text)


def decode_document(text: str, format: Format) -> dict[str, Any]:  # noqa: A002 - the word of the domain
    """The document that `encode_document` wrote."""
    return NOTATIONS[format].read_document(text)
