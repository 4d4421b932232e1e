"""Types of values, and the conversion of scalars that JSON does not have."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from pvemcp_formats.errors import Unwritable

Scalar: TypeAlias = bool | int | float | str | datetime | None
Value: TypeAlias = "Scalar | Sequence[Value] | Mapping[str, Value]"

CONTAINERS = (Mapping, list, tuple)


def is_scalar(value: object) -> bool:
    """Return whether the value fits into one cell of a table."""
    return not isinstance(value, CONTAINERS)


def all_scalar(values: Sequence[object]) -> bool:
    """Return whether every value fits into one cell; check each type once, not each value."""
    return not any(issubclass(kind, CONTAINERS) for kind in set(map(type, values)))


def timestamp(moment: datetime) -> str:
    """Return a time as ISO 8601 in UTC to the second; a naive one counts as UTC."""
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if moment.year > 999:
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    # strftime does not pad years below 1000 on every platform
    return moment.replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def utf8(text: str) -> str:
    """Return the text if it can be encoded as UTF-8, else raise Unwritable."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unwritable(f"half a surrogate pair at character {error.start}") from error
    return text
