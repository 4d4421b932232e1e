"""Decoding of response bodies to typed answers, with tolerance for Proxmox's varying types.

Also of lists in one text: tags, guests, storages, content types, roles, nodes.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache, partial
from math import isfinite
from typing import Any, ClassVar, Final, Generic, Self, TypeVar, get_args, get_origin

import msgspec

from proxmox_client.names import reported

T = TypeVar("T")

_MALFORMED_VALUES: Final = 8  # of one row, before the row is given up
_MOST_LOST: Final = 1_000  # malformed rows of an answer
_MOST_LEFT_OUT: Final = 50_000  # values of an answer: each takes 10 µs of the event loop
_MOST_VALUES: Final = 3_000_000  # of an answer that fits
_MOST_OBJECTS: Final = 500_000  # and lists in it; the largest clusters have 240,000 rows
_MOST_ROWS: Final = 50_000  # objects and lists where a cluster has few rows of the kind
_MOST_TOLERATED: Final = 800_000  # values that are parsed or loosened because they don't fit
_COST_OF_ROW: Final = 15  # such values
_MOST_MEMBERS: Final = 10_000  # of a row or configuration
_MOST_TEXTS: Final = 100_000  # that are taken out to count what is outside of them
_BITS: Final = 64  # of Proxmox's counters
_MOST_DIGITS: Final = 20
_NUMBERS: Final = bytes.maketrans(b"123456789:[,-\t\n\r", b"000000000       ")
_HUGE: Final = b" " + b"0" * 20
"""The first digits of a number beyond _BITS, or about, once _NUMBERS has made all of them alike.

A search for this takes a fifteenth of the time of a regular expression.
"""
_IDENTIFYING: Final = (
    *("id", "upid", "volid", "sid", "vmid", "name", "hostname"),
    *("devpath", "rule", "storage", "node", "backup-id", "store", "ns"),
)
_PLACE: Final = re.compile(r"`\$\.data\.(?P<member>[^.`\[]+)")
_SURROGATE: Final = re.compile(r"\\u[dD]")
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
    """Base class of Proxmox's answers: frozen, and nearly every field may be absent.

    `are_many` is whether a large cluster lists hundreds of thousands of them.
    """

    are_many: ClassVar[bool] = False


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


def decode(
    body: bytes, answer: type[T], prepare: Callable[[list[Any]], list[Any]] | None = None
) -> Envelope[T]:
    """Decode a body; accept numbers in strings and 0/1 for booleans.

    A body that doesn't fit is decoded a second time with more tolerance, because Perl sends a
    number for text, and `null` or an empty string for a missing value. Then `prepare` may correct
    the rows of a list: those that fit are decoded, the others are plain values. Raise
    msgspec.MsgspecError or ValueError when that fails too.

    Both block the event loop, so a body of too many values is ValueError before it is decoded: a
    host can send 32 MiB of `[],` as 30 KB of gzip. What doesn't fit may have far fewer values, and
    so may rows of which no cluster has many: callers look at each of them more than once.
    """
    are_many = _are_many(answer)  # type: ignore[arg-type]  # a class is hashable
    if len(body) > (most := _MOST_OBJECTS if are_many else _MOST_ROWS):  # it takes a byte for each
        _require_few_values(body, most)
    with suppress(msgspec.MsgspecError, UnicodeDecodeError):
        return _fitting(body, _envelope(answer))  # type: ignore[arg-type]  # a class is hashable
    body = _repaired(body)
    if get_origin(answer) is list and (prepare or _left_out.get() is not None):
        (row,) = get_args(answer)
        page: Envelope[Any] = _read_rows(body, row)
        rows = prepare(list(page.data)) if prepare else page.data
        return page.replaced(convert_rows(rows, row))
    return convert(_content(body, answer), _envelope(answer))  # type: ignore[arg-type]  # see above


def _fitting(body: bytes | msgspec.Raw, answer: type[T]) -> T:
    """Decode what fits at once; raise msgspec.MsgspecError for anything else."""
    if _HUGE in bytes(body).translate(_NUMBERS):
        raise msgspec.ValidationError("a number of more than 64 bits")
    fitting: T = _decoder(answer).decode(body)  # type: ignore[arg-type]  # a class is hashable
    return fitting


def _read_rows(body: bytes, row: Any) -> Envelope[Any]:
    """Return a list with each row decoded, or as a plain value if it doesn't fit.

    Raise ValueError when those have more than _MOST_TOLERATED values.
    """
    try:
        rows: Envelope[Any] = _decoder(Envelope[list[msgspec.Raw]]).decode(body)
    except msgspec.MsgspecError:  # no list, or with values that are no JSON, such as NaN
        return convert(_content(body, list[Any]), Envelope[list[Any]])
    has_huge = _HUGE in body.translate(_NUMBERS)
    read = partial(_fitting, answer=row) if has_huge else _decoder(row).decode
    return rows.replaced(_each_row(rows.data, read))


def _each_row(rows: list[msgspec.Raw], read: Callable[[msgspec.Raw], Any]) -> Iterator[Any]:
    tolerance = _Tolerance()
    for each in rows:
        try:
            yield read(each)
        except msgspec.MsgspecError:
            yield tolerance.json(each)


@cache
def _are_many(answer: Any) -> bool:
    """Return whether such an answer may have as many objects as a large cluster has rows."""
    kind = get_origin(answer)
    if kind is list:
        (row,) = get_args(answer)
        return any(getattr(each, "are_many", False) for each in get_args(row) or (row,))
    return kind is not dict


def _content(body: bytes, answer: Any) -> Any:
    """Return a body as plain values; an empty list or mapping is sent as null, or not at all."""
    content, kind = _Tolerance().json(body), get_origin(answer)
    if isinstance(content, dict) and content.get("data") is None:
        return {**content, "data": kind() if kind in (list, dict) else None}
    return content


def _require_few_values(body: bytes, most: int) -> None:
    """Raise ValueError for a body whose values would take seconds, whatever reads them."""
    if _exceeds(body, most):
        # the text of a file, for example, may have any number of commas and brackets
        plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
        if plain.count(b'"') > 2 * _MOST_TEXTS or _exceeds(b"".join(plain.split(b'"')[::2]), most):
            raise ValueError("it has too many values")


def _exceeds(body: bytes, most: int) -> bool:
    objects = body.count(b"{") + body.count(b"[")
    return objects > most or body.count(b",") > _MOST_VALUES


def _repaired(body: bytes) -> bytes:
    """Return a body as UTF-8, without what is no text."""
    text = body.decode(errors="replace")
    if _SURROGATE.search(text):
        if text.count("\\") > _MOST_TOLERATED:
            raise ValueError("it has too many escapes")
        text = _ESCAPED.sub(_whole_characters, text)
    return text.encode()


def _whole_characters(escaped: re.Match[str]) -> str:
    """Return the escape; the replacement character for half of a surrogate pair."""
    return "\ufffd" if escaped["half"] else escaped[0]


def convert_rows(rows: Any, row: Any) -> list[Any]:
    """Convert the rows of a list, in a `tolerate_malformed` block as far as that is possible.

    A row that is decoded already stays. Raise ValueError when more than _MOST_LOST cannot be
    converted, or than _MOST_LEFT_OUT values, or when the malformed rows have more than
    _MOST_TOLERATED: a few kilobytes of compressed zeros would take minutes.
    """
    left_out = _left_out.get()
    if left_out is None or not isinstance(rows, list | Iterator):
        return convert(rows, list[row])
    envelope = _envelope(row)  # msgspec remembers how to read it, unlike a union
    converted, lost, values, tolerance = [], 0, 0, _Tolerance()
    for each in rows:
        if isinstance(each, Answer):
            converted.append(each)
            continue
        one, without = _convert_row(each, envelope, tolerance)
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
    if isinstance(value, dict) and len(value) > _MOST_MEMBERS:
        raise ValueError(f"it has more than {_MOST_MEMBERS:,} members")
    rows: list[T] = convert_rows([value], answer)
    return rows[0] if rows else convert(value, answer)


def _convert_row(
    value: Any, envelope: type[Envelope[T]], tolerance: "_Tolerance"
) -> tuple[T | None, list[str]]:
    """Convert a row without the values that don't fit, and return their names too.

    A row that needs them, or has too many of them or of any members, is None.
    """
    with suppress(msgspec.ValidationError):
        return msgspec.convert({"data": value}, envelope, strict=False).data, []
    if not isinstance(value, dict) or len(value) > _MOST_MEMBERS:
        return None, []
    rest = tolerance.loosen(value)
    without: list[str] = []
    for _ in range(_MALFORMED_VALUES):
        try:
            return msgspec.convert({"data": rest}, envelope, strict=False).data, without
        except msgspec.ValidationError as error:
            place = _PLACE.search(str(error))
            if place is None or place["member"] not in rest:
                break
            del rest[place["member"]]
            without.append(place["member"])
    return None, without


def _name_of(row: Any) -> str:
    """Return what identifies a row for a reader."""
    names = (row.get(key) for key in _IDENTIFYING) if isinstance(row, dict) else ()
    return next((reported(str(name)) for name in names if name), "a row without a name")


def convert(value: object, answer: type[T]) -> T:
    """Convert an already decoded value with the tolerance of `decode`."""
    try:
        return msgspec.convert(value, answer, strict=False)
    except msgspec.ValidationError:
        return msgspec.convert(_Tolerance().loosen(value), answer, strict=False)


class _Tolerance:
    """The number of values of an answer that may still be parsed or loosened."""

    def __init__(self) -> None:
        self._left = _MOST_TOLERATED

    def _take(self, values: int) -> None:
        self._left -= values
        if self._left < 0:
            raise ValueError(f"its malformed parts have more than {_MOST_TOLERATED:,} values")

    def json(self, body: bytes | msgspec.Raw) -> Any:
        """Return the content of a body; raise ValueError that says what is there instead of JSON.

        Numbers beyond all bounds become a value that fits no field.
        """
        body = bytes(body)
        self._take(_COST_OF_ROW + sum(map(body.count, (b",", b"{", b"["))))
        try:
            return json.loads(
                body, parse_constant=_no_value, parse_float=_finite, parse_int=_bounded
            )
        except ValueError:
            kind = "a web page" if body.lstrip().startswith(b"<") else "no JSON"
            raise ValueError(f"it is {kind}, so it is not Proxmox that answered") from None

    def loosen(self, value: Any) -> Any:
        """Drop null and empty members, and turn numbers to text, which fits text and numbers."""
        if isinstance(value, bool | Answer) or value is None:
            return value
        if not isinstance(value, dict | list):
            return str(value)
        self._take(1 + len(value))
        if isinstance(value, list):
            return [self.loosen(item) for item in value]
        return {key: self.loosen(v) for key, v in value.items() if v is not None and v != ""}


@cache
def _decoder(answer: type[T]) -> "msgspec.json.Decoder[T]":
    return msgspec.json.Decoder(answer, strict=False)


@cache
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
