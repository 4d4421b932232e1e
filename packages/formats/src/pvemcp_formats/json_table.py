"""JsonCompact and JsonNormal: the names of the columns once, or in every row."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import orjson

from pvemcp_formats.errors import Unreadable, Unwritable
from pvemcp_formats.table import Row, Table
from pvemcp_formats.values import timestamp


def write_compact(table: Table) -> str:
    """Write rows as `{"data":{"headers":[…],"rows":[[…]]}}`."""
    return dumps({"data": {"headers": table.columns, "rows": table.tuples()}})


def write_normal(table: Table) -> str:
    """Write rows as `{"data":[{…}]}`."""
    return dumps({"data": table.records()})


def write_document(document: Row) -> str:
    """Write a document as `{"data":{…}}`."""
    return dumps({"data": document})


def read_compact(text: str) -> list[dict[str, Any]]:
    """Read the rows of JsonCompact."""
    table = _data(text)
    if isinstance(table, dict) and table.keys() == {"headers", "rows"}:
        return [_row(table["headers"], row) for row in table["rows"]]
    raise Unreadable('expected {"data":{"headers":[…],"rows":[…]}}')


def read_normal(text: str) -> list[dict[str, Any]]:
    """Read the rows of JsonNormal."""
    rows = _data(text)
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        return rows
    raise Unreadable('expected {"data":[{…}]}')


def read_document(text: str) -> dict[str, Any]:
    """Read the document of either JSON format."""
    document = _data(text)
    if isinstance(document, dict):
        return document
    raise Unreadable('expected {"data":{…}}')


def dumps(value: object) -> str:
    """Return compact JSON.

    NaN and infinities become null, a datetime becomes text, integers keep every digit.
    """
    try:
        return _encode(value).decode()
    except orjson.JSONEncodeError as error:
        if "64-bit" not in str(error):
            raise Unwritable(str(error.__cause__ or error)) from error
    return _encode(_with_large_integers(value)).decode()


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, float):
        return float(value)
    raise Unwritable(f"cannot encode a value of type {type(value).__name__}")


_encode = partial(orjson.dumps, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _with_large_integers(value: object) -> object:
    # orjson only writes integers of up to 64 bits, but it accepts fragments of JSON
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return orjson.Fragment(str(value))
    if isinstance(value, Mapping):
        return {key: _with_large_integers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_large_integers(item) for item in value]
    return value


def _data(text: str) -> Any:
    try:
        # orjson reads integers beyond 64 bits as floats
        value = json.loads(text, parse_constant=_reject_constant)
    except json.JSONDecodeError as error:
        raise Unreadable(error.msg, error.lineno) from error
    except RecursionError as error:
        raise Unreadable("nested too deeply") from error
    except ValueError as error:  # more digits than Python converts
        raise Unreadable("a number is too long") from error
    if isinstance(value, dict) and value.keys() == {"data"}:
        return value["data"]
    raise Unreadable('expected one object with the key "data"')


def _reject_constant(constant: str) -> None:
    raise Unreadable(f"{constant} is not JSON")


def _row(headers: Sequence[str], row: object) -> dict[str, Any]:
    if isinstance(row, list) and len(row) == len(headers):
        return dict(zip(headers, row, strict=True))
    raise Unreadable(f"expected {len(headers)} values in every row")
