"""Toon: `{"data":[…]}` and `{"data":{…}}` in TOON."""

from typing import Any

from pvemcp_formats import toon
from pvemcp_formats.errors import Unreadable
from pvemcp_formats.table import Row, Table


def write_rows(table: Table) -> str:
    """Write rows as `data[2]{vmid,name}:` and one indented line each."""
    return toon.encode_table("data", table)


def write_document(document: Row) -> str:
    """Write a document under the name `data`."""
    return toon.encode({"data": document})


def read_rows(text: str) -> list[dict[str, Any]]:
    """Read the rows of the list `data`."""
    rows = _data(text)
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        return rows
    raise Unreadable("expected one list of objects named data")


def read_document(text: str) -> dict[str, Any]:
    """Read the object `data`."""
    document = _data(text)
    if isinstance(document, dict):
        return document
    raise Unreadable("expected one object named data")


def _data(text: str) -> Any:
    document = toon.decode(text)
    return document.get("data") if isinstance(document, dict) else None
