"""What a caller compares with, as values of the field's type: the meaning of all comparisons."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any, Final

from pvemcp_server.errors import BadArgument
from pvemcp_server.query.names import shown
from pvemcp_server.tables.registry import Field, Kind, Unit

Value = str | int | float
"""As the database has it: times are epoch seconds, truth is 1 or 0, text is without case."""

LARGEST: Final = 2**63 - 1

_NUMBER: Final = re.compile(r"[+-]?\d{1,30}(\.\d{1,30})?([eE][+-]?\d{1,3})?", re.ASCII)
_SIZE: Final = re.compile(r"([+-]?\d{1,18}(?:\.\d{1,18})?)\s*([kKmMgGtTpP]?)(i?)([bB]?)", re.ASCII)
_SPAN: Final = re.compile(r"([+-]?)\s*(\d{1,9})\s*([smhdwSHDW])", re.ASCII)  # M could be months
_SPANS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_TRUTH: Final = {"true": 1, "false": 0, "yes": 1, "no": 0, "1": 1, "0": 0, "on": 1, "off": 0}
_FIRST: Final = -62_135_596_800  # epoch seconds of 0001-01-01
_LAST: Final = 253_402_300_799  # and of the last second of 9999
_BYTES: Final = {Unit.BYTES: 1, Unit.BYTES_PER_SECOND: 1, Unit.MIB: 1 << 20}


def typed(given: Any, field: Field, at: str, now: datetime) -> Value:
    """The value for comparisons with that field; BadArgument when it can't be one."""
    if given is None:
        raise BadArgument(at, "null equals nothing.", hint="Use IS NULL or IS NOT NULL.")
    read: Callable[[Any], Value | None] = {
        Kind.TEXT: _text,
        Kind.LIST: _text,
        Kind.BOOLEAN: _truth,
        Kind.TIME: lambda one: _time(one, now),
        Kind.INTEGER: lambda one: _quantity(one, field.unit),
        Kind.NUMBER: lambda one: _quantity(one, field.unit),
    }[field.kind]
    value = read(given)
    if value is None:
        raise BadArgument(
            at, f"{shown(given)} doesn't fit {field.name}, which is {article(field)}.",
            hint=_HINTS.get(field.unit) or _HINTS.get(field.kind, ""),
        )  # fmt: skip
    return value


def folded(text: str) -> str:
    """Text as it is compared: without case."""
    return text.casefold()


def article(field: Field) -> str:
    """What a field holds, for people."""
    unit = f" in {field.unit}" if field.unit and field.unit is not Unit.TIME else ""
    return f"{'an' if field.kind is Kind.INTEGER else 'a'} {field.kind}{unit}"


def _text(given: Any) -> str | None:
    """A number may stand for its digits: names can be made of them."""
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        return None
    text = str(given)
    return folded(text) if _can_be_written(text) else None


def _can_be_written(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return len(text) <= 10_000


def _truth(given: Any) -> int | None:
    if isinstance(given, float):
        return None
    return _TRUTH.get(str(given).strip().lower())


def _quantity(given: Any, unit: Unit | None) -> Value | None:
    number = _number(given)
    if number is not None or not isinstance(given, str):
        return number
    text = given.strip()
    if unit is Unit.PERCENT:
        return _number(text.removesuffix("%").strip())
    if unit is Unit.SECONDS:
        return _span(text)
    return _size(text, _BYTES[unit]) if unit in _BYTES else None


def _number(given: Any) -> Value | None:
    if isinstance(given, str) and _NUMBER.fullmatch(given.strip()):
        given = float(given) if set(given) & set(".eE") else int(given)
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None
    if isinstance(given, int):
        return given if -LARGEST <= given <= LARGEST else None
    return given if isfinite(given) else None


def _size(text: str, unit: int) -> Value | None:
    """Sizes in bytes: KiB and a bare K count by 1024, as Proxmox does; KB counts by 1000."""
    found = _SIZE.fullmatch(text)
    if not found:
        return None
    digits, prefix, binary, byte = found.groups()
    base = 1000 if byte and prefix and not binary else 1024
    size = float(digits) * base ** _POWERS[prefix.lower()] / unit
    return _number(int(size) if size.is_integer() else size)


def _span(text: str) -> Value | None:
    found = _SPAN.fullmatch(text)
    if not found:
        return None
    seconds = int(found[2]) * _SPANS[found[3].lower()]
    return -seconds if found[1] == "-" else seconds


def _time(given: Any, now: datetime) -> Value | None:
    """An epoch, a date, a moment (UTC when no zone is said), or how far from now."""
    if not isinstance(given, str):
        return _epoch(given)
    text = given.strip()
    if text.lower() == "now":
        return int(now.timestamp())
    if found := _SPAN.fullmatch(text):
        return _moved(now, _span(text)) if found[1] else None
    return _moment(text)


def _epoch(given: Any) -> Value | None:
    """Seconds within the years 1 to 9999: milliseconds are not taken for them."""
    seconds = _number(given)
    return seconds if seconds is not None and _FIRST <= float(seconds) <= _LAST else None


def _moved(now: datetime, seconds: Value | None) -> Value | None:
    return int(now.timestamp()) + int(seconds) if seconds is not None else None


def _moment(text: str) -> Value | None:
    if not text.isascii() or "-" not in text:
        return None
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return None
    aware = read if read.tzinfo else read.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)


_HINTS: Final[dict[Any, str]] = {
    Unit.BYTES: 'Write 8589934592 or "8GiB".',
    Unit.BYTES_PER_SECOND: 'Write 1048576 or "1MiB".',
    Unit.MIB: 'Write 8192 or "8GiB".',
    Unit.PERCENT: 'Write 80 or "80%".',
    Unit.SECONDS: 'Write 3600 or "1h".',
    Unit.COUNT: "Write a number.",
    Kind.TIME: 'Write "-30d", "-24h", "now", "2026-01-31" or "2026-01-31T08:00:00Z".',
    Kind.BOOLEAN: "Write true or false.",
    Kind.TEXT: "Write text.",
    Kind.INTEGER: "Write a number.",
    Kind.NUMBER: "Write a number.",
}
_HINTS[Unit.TIME] = _HINTS[Kind.TIME]
