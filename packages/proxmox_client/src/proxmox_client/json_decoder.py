"""Decoding of response bodies to typed answers, with tolerance for Proxmox's varying types.

Also of lists in one text: tags, guests, storages, content types, roles, nodes.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from math import isfinite
from typing import Any, Final, Generic, Self, TypeVar, get_args, get_origin

import msgspec

T = TypeVar("T")

_MALFORMED_VALUES: Final = 8  # of one row, before the row is given up
_MOST_LOST: Final = 1_000  # malformed rows of an answer
_MOST_LEFT_OUT: Final = 50_000  # values of an answer: each takes 10 µs of the event loop
_BITS: Final = 64  # of Proxmox's counters
_MOST_DIGITS: Final = 20
_HUGE: Final = re.compile(rb"[:\[,]\s*-?[0-9]{20,}")
_IDENTIFYING: Final = (
    *("id", "upid", "volid", "sid", "vmid", "name", "hostname"),
    *("devpath", "rule", "storage", "node", "backup-id", "store", "ns"),
)
_PLACE: Final = re.compile(r"`\$\.data\.(?P<member>[^.`\[]+)")
_ESCAPED: Final = re.compile(
    r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
"""Escapes of backslashes and surrogate pairs, and halves of pairs, which are no text."""
MOST_ITEMS: Final = 10_000
"""Items of a list in one text; the longest that Proxmox writes are the guests of a backup job."""
MORE: Final = "…"
"""The last item of a longer list: its others are left out."""
_SEPARATORS: Final = re.compile(r"[,;\s]+")
_left_out: ContextVar[list[str] | None] = ContextVar("proxmox_client_left_out", default=None)


class Answer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base class of Proxmox's answers: frozen, and nearly every field may be absent."""


class Envelope(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """The object around every answer; `total` counts all rows when `data` is one page."""

    data: T
    total: int | None = None

    def replaced(self, data: Any) -> Self:
        """Return the envelope with other data."""
        return msgspec.structs.replace(self, data=data)


@contextmanager
def tolerate_malformed() -> Iterator[list[str]]:
    """Leave out what cannot be decoded of a list's rows, inside the block; yield what that is.

    A value that a row can do without costs that value, any other the whole row. Tasks that the
    block starts are tolerant too. Outside of such a block the whole answer is an error.
    """
    left_out: list[str] = []
    reset = _left_out.set(left_out)
    try:
        yield left_out
    finally:
        _left_out.reset(reset)


def leave_out(what: str) -> bool:
    """Report what is malformed; return False outside of a `tolerate_malformed` block."""
    left_out = _left_out.get()
    if left_out is not None:
        left_out.append(what)
    return left_out is not None


def decode(body: bytes, answer: type[T]) -> Envelope[T]:
    """Decode a body; accept numbers in strings and 0/1 for booleans.

    A body that doesn't fit is decoded a second time with more tolerance, because Perl sends a
    number for text, and `null` or an empty string for a missing value. Raise msgspec.MsgspecError
    or ValueError when that fails too.
    """
    try:
        if not _HUGE.search(body):
            return _decoder(answer).decode(body)  # type: ignore[arg-type]  # a class is hashable
        raise msgspec.ValidationError("a number of more than 64 bits")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        content = _json(body)
        if answer is msgspec.Raw and isinstance(content, dict):
            data: Any = msgspec.Raw(msgspec.json.encode(content.get("data")))
            return Envelope(data=data)
        if isinstance(content, dict) and content.get("data") is None:
            # an empty list or mapping is sent as null, or not at all
            kind = get_origin(answer)
            content = {**content, "data": kind() if kind in (list, dict) else None}
        try:
            return convert(content, _envelope(answer))
        except msgspec.ValidationError:
            if get_origin(answer) is not list or not isinstance(content, dict):
                raise
            rows = convert_rows(content.get("data"), get_args(answer)[0])
            return convert({**content, "data": []}, _envelope(answer)).replaced(rows)


def convert_rows(rows: Any, row: Any) -> list[Any]:
    """Convert the rows of a list, in a `tolerate_malformed` block as far as that is possible.

    Raise ValueError when more than _MOST_LOST cannot be converted, or than _MOST_LEFT_OUT values:
    a few kilobytes of compressed zeros would take minutes.
    """
    left_out = _left_out.get()
    if left_out is None or not isinstance(rows, list):
        return convert(rows, list[row])
    envelope = _envelope(row)  # msgspec remembers how to read it, unlike a union
    converted, lost, values = [], 0, 0
    for each in rows:
        one, without = _convert_row(each, envelope)
        values += len(without)
        if one is not None:
            converted.append(one)
        elif (lost := lost + 1) > _MOST_LOST:
            raise ValueError(f"more than {_MOST_LOST:,} of its rows are malformed")
        if values > _MOST_LEFT_OUT:
            raise ValueError(f"more than {_MOST_LEFT_OUT:,} values of its rows are malformed")
        if one is None or without:
            name = _name_of(each)
            left_out.append(name if one is None else f"{', '.join(sorted(without))} of {name}")
    return converted


def convert_object(value: Any, answer: type[T]) -> T:
    """Convert an object, in a `tolerate_malformed` block without the values that don't fit."""
    rows: list[T] = convert_rows([value], answer)
    return rows[0] if rows else convert(value, answer)


def _convert_row(value: Any, envelope: type[Envelope[T]]) -> tuple[T | None, list[str]]:
    """Convert a row without the values that don't fit, and return their names too.

    A row that needs them, or has too many of them, is None.
    """
    rest = dict(value) if isinstance(value, dict) else value
    without: list[str] = []
    for _ in range(_MALFORMED_VALUES):
        try:
            return convert({"data": rest}, envelope).data, without
        except msgspec.ValidationError as error:
            place = _PLACE.search(str(error))
            if place is None or not isinstance(rest, dict) or place["member"] not in rest:
                break
            del rest[place["member"]]
            without.append(place["member"])
    return None, without


def _name_of(row: Any) -> str:
    """Return what identifies a row for a reader."""
    names = (row.get(key) for key in _IDENTIFYING) if isinstance(row, dict) else ()
    return next((str(name)[:80] for name in names if name), "a row without a name")


def _json(body: bytes) -> Any:
    """Return the content of a body; raise ValueError that says what is there instead of JSON."""
    try:
        return json.loads(
            _ESCAPED.sub(_whole_characters, body.decode(errors="replace")),
            parse_constant=_no_value,
            parse_float=_finite,
            parse_int=_bounded,
        )
    except ValueError:
        kind = "a web page" if body.lstrip().startswith(b"<") else "no JSON"
        raise ValueError(f"it is {kind}, so it is not Proxmox that answered") from None


def _whole_characters(escaped: re.Match[str]) -> str:
    """Return the escape; the replacement character for half of a surrogate pair."""
    return "\ufffd" if escaped["half"] else escaped[0]


def convert(value: object, answer: type[T]) -> T:
    """Convert an already decoded value with the tolerance of `decode`."""
    try:
        return msgspec.convert(value, answer, strict=False)
    except msgspec.ValidationError:
        return msgspec.convert(_loosen(value), answer, strict=False)


@cache
def _decoder(answer: type[T]) -> "msgspec.json.Decoder[Envelope[T]]":
    return msgspec.json.Decoder(_envelope(answer), strict=False)


def _envelope(answer: type[T]) -> type[Envelope[T]]:
    return Envelope[answer]  # type: ignore[valid-type]  # a type made at run time


def _finite(text: str) -> Any:
    number = float(text)
    return number if isfinite(number) else _no_value(text)


def _bounded(digits: str) -> Any:
    number = int(digits) if len(digits) <= _MOST_DIGITS else None
    return _no_value(digits) if number is None or number.bit_length() > _BITS else number


def _no_value(_text: str) -> Any:
    """Return a value that fits no field, for NaN and numbers beyond all bounds."""
    return {}


def split_list(text: str | None) -> list[str]:
    """Return the items of a list, without empty ones.

    Like `split_list` in PVE/Tools.pm: comma, semicolon and white space separate; in a text with NUL
    bytes only these do. Cleared tags are stored as one blank, which is an empty list. Of a list
    of more than MOST_ITEMS, the first ones and MORE: a few kilobytes of gzip hold millions.
    """
    if not text:
        return []
    has_nul = "\0" in text
    parts = text.split("\0", MOST_ITEMS) if has_nul else _SEPARATORS.split(text, MOST_ITEMS)
    items = [part for part in parts[:MOST_ITEMS] if part]
    return items if len(parts) <= MOST_ITEMS else [*items, MORE]


def _loosen(value: Any) -> Any:
    """Drop null and empty members, and turn numbers to text, which fits text and number fields."""
    if isinstance(value, dict):
        return {key: _loosen(v) for key, v in value.items() if v is not None and v != ""}
    if isinstance(value, list):
        return [_loosen(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    return str(value)
