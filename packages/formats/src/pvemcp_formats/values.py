"""What a cell may hold, and how scalars that JSON lacks become ones it has."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from pvemcp_formats.errors import Unwritable

Scalar: TypeAlias = bool | int | float | str | datetime | None
Value: TypeAlias = "Scalar | Sequence[Value] | Mapping[str, Value]"

CONTAINERS = (Mapping, list, tuple)


def is_scalar(value: object) -> bool:
    """Whether the value fits into one cell of a table."""
    return not isinstance(value, CONTAINERS)


def all_scalar(values: Sequence[object]) -> bool:
    """Whether every value fits into one cell; asks once per type, not once per value."""
    return not any(issubclass(kind, CONTAINERS) for kind in set(map(type, values)))


def timestamp(moment: datetime) -> str:
    """The moment as ISO 8601 in UTC to the second; a naive one is taken as UTC."""
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment.year > 999 else _early(moment)


def _early(moment: datetime) -> str:
    # strftime does not pad years below 1000 on every platform
    return moment.replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def utf8(text: str) -> str:
    """The text itself, once it is known that it can be sent."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unwritable(f"half a surrogate pair at character {error.start}") from error
    return text
