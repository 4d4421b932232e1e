"""Converts the values of a query to the type of the compared field: the rules of all comparisons.

docs/users/query.md states them for users.
"""

import re
from datetime import UTC, date, datetime, timedelta
from math import isfinite
from typing import Any, Final

from pvemcp_server.errors import BadArgument
from pvemcp_server.query.names import abbreviated
from pvemcp_server.tables.rows import Field, Kind, Unit

Value = str | int | float
"""As the database stores it: times are epoch seconds, booleans 1 or 0, text is casefolded."""

LARGEST: Final = 2**63 - 1

_NUMBER: Final = re.compile(r"[+-]?\d{1,30}(\.\d{1,30})?([eE][+-]?\d{1,3})?", re.ASCII)
_SIZE: Final = re.compile(r"([+-]?\d{1,18}(?:\.\d{1,18})?)\s*([kKmMgGtTpP]?)(i?)([bB]?)", re.ASCII)
_DURATION: Final = re.compile(r"([+-]?)\s*(\d{1,9})\s*([smhdwySHDWY])", re.ASCII)  # M: months?
_ISO_DURATION: Final = re.compile(
    r"([+-]?)P(?=.)(?:(\d{1,5})Y)?(?:(\d{1,6})W)?(?:(\d{1,7})D)?"
    r"(?:T(?=.)(?:(\d{1,8})H)?(?:(\d{1,9})M)?(?:(\d{1,9})S)?)?",
    re.ASCII | re.IGNORECASE,
)
_AGO: Final = re.compile(r"(in )?(\d{1,9}) ?([a-z]+?)s?( ago)?", re.ASCII)  # in 2 days, 2 days ago
_UNITS: Final = {
    "s": "s", "sec": "s", "second": "s", "min": "m", "minute": "m", "h": "h", "hour": "h",
    "d": "d", "day": "d", "w": "w", "week": "w", "y": "y", "year": "y",
}  # fmt: skip
_DAY: Final = re.compile(
    r"(today|yesterday|tomorrow|\d{4}-\d\d-\d\d|\d{1,2}\.\d{1,2}\.\d{4}"
    r"|\d{1,2} [a-z]{3,9} \d{4}|[a-z]{3,9} \d{1,2},? \d{4})"
    r"(?:,?[ T](\d{1,2}:\d\d(?::\d\d)?))?",
    re.ASCII,
)
_DAYS: Final = {"yesterday": -1, "today": 0, "tomorrow": 1}
_MONTHS: Final = {
    name: str(number)
    for number, month in enumerate(
        (
            *("january", "february", "march", "april", "may", "june"),
            *("july", "august", "september", "october", "november", "december"),
        ),
        1,
    )
    for name in (month, month[:3])
}
_EPOCH: Final = re.compile(r"\d{9,10}(\.\d+)?", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_BOOLEANS: Final = {"true": 1, "false": 0, "yes": 1, "no": 0, "1": 1, "0": 0, "on": 1, "off": 0}
FIRST_TIME: Final = -62_135_596_800  # epoch seconds of 0001-01-01
LAST_TIME: Final = 253_402_300_799  # and of the last second of 9999
_BYTES: Final = {Unit.BYTES: 1, Unit.BYTES_PER_SECOND: 1, Unit.MIB: 1 << 20}


def convert(value: Any, field: Field, at: str, now: datetime) -> Value:
    """Convert a value for comparisons with the field; raise BadArgument when it doesn't fit."""
    if value is None:
        raise BadArgument(at, "null equals nothing.", hint="Use IS NULL or IS NOT NULL.")
    converted: Value | None
    match field.kind:
        case Kind.TEXT | Kind.LIST:
            converted = _text(value)
        case Kind.BOOLEAN:
            converted = _boolean(value)
        case Kind.TIME:
            converted = _time(value, now)
        case Kind.INTEGER | Kind.NUMBER:
            converted = _quantity(value, field.unit)
    if converted is None:
        raise BadArgument(
            at, f"{abbreviated(value)} doesn't fit {field.name}, which is {type_name(field)}.",
            hint=_hint(field),
        )  # fmt: skip
    return converted


def type_name(field: Field) -> str:
    """Return the field's type and unit with an article, for error messages."""
    unit = f" in {field.unit}" if field.unit and field.unit is not Unit.TIME else ""
    return f"{'an' if field.kind is Kind.INTEGER else 'a'} {field.kind}{unit}"


def _text(value: Any) -> str | None:
    """Convert text, or a number to its digits: names can consist of them."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return None
    return text.casefold() if len(text) <= 10_000 else None


def _boolean(value: Any) -> int | None:
    return None if isinstance(value, float) else _BOOLEANS.get(str(value).strip().lower())


def _quantity(value: Any, unit: Unit | None) -> Value | None:
    number = _number(value)
    if number is not None or not isinstance(value, str):
        return number
    text = value.strip()
    if unit is Unit.PERCENT:
        return _number(text.removesuffix("%").strip())
    if unit is Unit.SECONDS:
        return _duration(text)
    return _size(text, _BYTES[unit]) if unit in _BYTES else None


def _number(value: Any) -> Value | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value) if set(value) & set(".eE") else int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return value if -LARGEST <= value <= LARGEST else None
    return value if isfinite(value) else None


def _size(text: str, unit: int) -> Value | None:
    """Convert a size to multiples of `unit` bytes.

    KiB and a bare K count by 1024, as in Proxmox; KB counts by 1000.
    """
    match = _SIZE.fullmatch(text)
    if not match:
        return None
    digits, prefix, binary, byte = match.groups()
    base = 1000 if byte and prefix and not binary else 1024
    size = float(digits) * base ** _POWERS[prefix.lower()] / unit
    return _number(int(size) if size.is_integer() else size)


def _duration(text: str) -> int | None:
    """Return the seconds of a duration such as 24h, -1y or P1DT12H; a year has 365 days."""
    if match := _DURATION.fullmatch(text):
        seconds = int(match[2]) * _SECONDS[match[3].lower()]
    elif match := _ISO_DURATION.fullmatch(text):
        parts = zip("ywdhms", match.groups("0")[1:], strict=True)
        seconds = sum(int(number) * _SECONDS[unit] for unit, number in parts)
    else:
        return None
    return -seconds if match[1] == "-" else seconds


def _hint(field: Field) -> str:
    """Return examples of what fits the field."""
    return _HINTS.get(field.unit) or _HINTS.get(field.kind, "")


def _time(value: Any, now: datetime) -> Value | None:
    """Convert a time: epoch seconds, or a text that `time_of` reads."""
    if not isinstance(value, str):
        seconds = _number(value)
        # within the years 1 to 9999, so that milliseconds are not read as seconds
        valid = seconds is not None and FIRST_TIME <= float(seconds) <= LAST_TIME
        return seconds if valid else None
    return time_of(value, now)


def time_of(text: str, now: datetime) -> int | None:
    """Return the epoch seconds of a time as people write it; None for other texts.

    These are "now", a distance ("-24h", "7 days ago", "in 2 hours", "P1D"), a day with or without a
    time of it ("yesterday", "28.11.2026 14:30", "28 Nov 2026"), epoch seconds, and ISO 8601. UTC
    unless it says more. A distance without a sign lies in the past.
    """
    text = text.strip()
    word = text.lower()
    if word == "now":
        return int(now.timestamp())
    distance = _duration(text)
    if distance is not None:
        return int(now.timestamp()) + (distance if text[0] in "+-" else -distance)
    match = _AGO.fullmatch(word)
    if match and match[3] in _UNITS and bool(match[1]) != bool(match[4]):
        seconds = int(match[2]) * _SECONDS[_UNITS[match[3]]]
        return int(now.timestamp()) + (seconds if match[1] else -seconds)
    if _EPOCH.fullmatch(text):
        return int(float(text))
    day, clock = _day_and_clock(word, now)
    return _iso_time(f"{day}T{clock or '00:00'}" if day else text)


def reading_of(value: Any, field: Field) -> str:
    """Return how a distance without a sign is read, which may be meant as a time to come."""
    text = value.strip() if isinstance(value, str) else ""
    if field.kind is not Kind.TIME or not text or text[0] in "+-" or _duration(text) is None:
        return ""
    return f'"{text}" is read as {text} ago; "+{text}" is from now on.'


def day_of(text: str, now: datetime) -> date | None:
    """Return the day if the text names one without a time of it."""
    day, clock = _day_and_clock(text.strip().lower(), now)
    return None if clock else day


def _day_and_clock(text: str, now: datetime) -> tuple[date | None, str]:
    match = _DAY.fullmatch(text)
    if not match:
        return None, ""
    name, clock = match[1], match[2] or ""
    if clock[1:2] == ":":
        clock = f"0{clock}"
    if name in _DAYS:
        return now.astimezone(UTC).date() + timedelta(days=_DAYS[name]), clock
    try:
        return date.fromisoformat(_iso_day(name)), clock
    except ValueError:
        return None, ""


def _iso_day(name: str) -> str:
    """Return a day as ISO 8601: 2027-01-31 for 31.1.2027, 31 jan 2027 and january 31, 2027."""
    if "-" in name:
        return name
    day, month, year = re.split(r"[ .]", name.replace(",", ""))
    if day.isalpha():
        day, month = month, day
    return f"{year}-{_MONTHS.get(month, month).zfill(2)}-{day.zfill(2)}"


def _iso_time(text: str) -> int | None:
    if not text.isascii() or "-" not in text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)


_HINTS: Final[dict[Any, str]] = {
    Unit.BYTES: 'Write 8589934592 or "8GiB".',
    Unit.BYTES_PER_SECOND: 'Write 1048576 or "1MiB".',
    Unit.MIB: 'Write 8192 or "8GiB".',
    Unit.PERCENT: 'Write 80 or "80%".',
    Unit.SECONDS: 'Write 3600 or "1h".',
    Unit.COUNT: "Write a number.",
    Kind.TIME: 'Write "-30d", "-24h", "now", "yesterday", "2026-01-31", "2026-01-31T08:00:00Z" or '
    "epoch seconds.",
    Kind.BOOLEAN: "Write true or false.",
    Kind.TEXT: "Write text.",
    Kind.INTEGER: "Write a number.",
    Kind.NUMBER: "Write a number.",
}
_HINTS[Unit.TIME] = _HINTS[Kind.TIME]
