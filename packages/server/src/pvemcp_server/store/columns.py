"""Column types that hold exactly the same on SQLite and PostgreSQL, and tables made of records."""

import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Enum,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

HIGHEST_ID = 2**31 - 1  # PostgreSQL refuses to compare an id with a larger number
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# of clocks of several machines; what began further in the future shows a clock that was set back
CLOCK_SKEW = timedelta(minutes=1)


class Moment(TypeDecorator[datetime]):
    """A time in UTC, stored as whole microseconds since 1970.

    Anything else that was written into the database reads as 1970: whatever it ends has ended, and
    a changed row of the audit can be read and found.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        try:
            return None if value is None else EPOCH + value * MICROSECOND
        except (TypeError, OverflowError):
            return EPOCH


class JsonText(TypeDecorator[Any]):
    """A JSON value stored as text, so that both databases return it unchanged."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else json.loads(value)


# The column type of each Python type; every other type, such as list[str], is stored as JsonText
COLUMN_TYPES: dict[type, Any] = {
    str: Text,
    int: Integer,
    bool: Boolean,
    bytes: LargeBinary,
    datetime: Moment,
}


class ColumnArgs:
    """What a record's column has beyond its name, Python type and nullability.

    `Annotated[str, ColumnArgs(type=String(64), unique=True)]`; the arguments are those of
    `sqlalchemy.Column`.
    """

    def __init__(self, *arguments: Any, type: Any = None, **options: Any) -> None:  # noqa: A002 - SQLAlchemy's word
        self.arguments = arguments
        self.type = type
        self.options = options


def record_table(
    name: str, metadata: MetaData, record: type, *more: Column[Any] | UniqueConstraint
) -> Table:
    """Make the table of a dataclass: one column for each field, and `more`, which has no field.

    The annotation declares the column: `str | None` is a nullable text, and `ColumnArgs` adds a
    length, a key or an index.

    Row ids are never reused (sqlite_autoincrement; PostgreSQL's sequences behave so anyway): a
    cache that is keyed by the id of a deleted identity must not serve it for a new one.
    """
    hints = get_type_hints(record, include_extras=True)
    columns = [_column(field.name, hints[field.name]) for field in fields(record)]
    return Table(name, metadata, *columns, *more, sqlite_autoincrement=True)


def _column(name: str, hint: Any) -> Column[Any]:
    extra = ColumnArgs()
    if get_origin(hint) is Annotated:
        hint, extra = get_args(hint)
    nullable = NoneType in get_args(hint)
    kind = get_args(hint)[0] if nullable else hint
    options = {"nullable": nullable, **extra.options}
    return Column(name, extra.type or _column_type(kind), *extra.arguments, **options)


def _column_type(kind: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return Enum(kind, native_enum=False, length=16, values_callable=_values)
    return COLUMN_TYPES.get(kind, JsonText)


def _values(kind: type[StrEnum]) -> list[str]:
    return [member.value for member in kind]


def microseconds(moment: datetime) -> int:
    """Return the microseconds since 1970."""
    return (moment - EPOCH) // MICROSECOND


utc_now = partial(datetime.now, UTC)
"""The current time in UTC."""
