"""A repository: reads and writes the rows of one table as records."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import ColumnElement, Table, false, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.errors import BadArgument, Conflict
from pvemcp_server.store.database import Database
from pvemcp_server.store.watch import Topic, bump

R = TypeVar("R")
_UNSTORABLE: Final = re.compile(r"[\0\ud800-\udfff]")


class Repository(Generic[R]):
    """A table whose rows are `record`s; each change increases the versions of `topics`.

    The methods that end in `_in` use the transaction of their caller, the others open their own.
    """

    def __init__(
        self, database: Database, table: Table, record: type[R], topics: tuple[Topic, ...] = ()
    ) -> None:
        self.database = database
        self.table = table
        self._record = record
        self._topics = topics
        self._key = next(iter(table.primary_key.columns))
        self._columns = [table.c[field.name] for field in fields(record)]  # type: ignore[arg-type]  # every record is a dataclass

    async def all(self, **equals: Any) -> list[R]:
        """Return the rows whose columns equal the values, ordered by primary key."""
        async with self.database.reading() as connection:
            return await self.all_in(connection, **equals)

    async def all_in(self, connection: AsyncConnection, **equals: Any) -> list[R]:
        """Return the rows whose columns equal the values, ordered by primary key."""
        query = select(*self._columns).where(*self._where(equals)).order_by(self._key)
        return [self._read(row) for row in (await connection.execute(query)).mappings()]

    async def find(self, **equals: Any) -> R | None:
        """Return the first row whose columns equal the values."""
        async with self.database.reading() as connection:
            return await self.find_in(connection, **equals)

    async def find_in(self, connection: AsyncConnection, **equals: Any) -> R | None:
        """Return the first row whose columns equal the values."""
        query = select(*self._columns).where(*self._where(equals)).order_by(self._key).limit(1)
        row = (await connection.execute(query)).mappings().first()
        return None if row is None else self._read(row)

    async def add(self, **values: Any) -> R:
        """Insert a row; raise BadArgument when its name is taken.

        Raise Conflict when a row that it refers to was removed.
        """
        async with self.database.writing() as connection:
            return await self.add_in(connection, **values)

    async def add_in(self, connection: AsyncConnection, **values: Any) -> R:
        """Insert a row; raise BadArgument when its name is taken.

        Raise Conflict when a row that it refers to was removed.
        """
        _check_storable(values)
        query = insert(self.table).values(**values).returning(*self._columns)
        await self._bump(connection)
        with self._conflicts(values):
            row = (await connection.execute(query)).mappings().one()
        return self._read(row)

    async def change(self, key: int | str, **values: Any) -> R | None:
        """Update a row and return it; None when it does not exist."""
        async with self.database.writing() as connection:
            return await self.change_in(connection, key, **values)

    async def change_in(
        self, connection: AsyncConnection, key: int | str, **values: Any
    ) -> R | None:
        """Update a row and return it; None when it does not exist."""
        if not values:
            return await self.find_in(connection, **{self._key.name: key})
        _check_storable(values)
        query = self.table.update().where(self._key == key).values(**values)
        await self._bump(connection)
        with self._conflicts(values):
            row = (await connection.execute(query.returning(*self._columns))).mappings().first()
        return None if row is None else self._read(row)

    async def remove(self, key: int | str) -> bool:
        """Delete a row; return whether it existed. Raise Conflict while others refer to it."""
        async with self.database.writing() as connection:
            return await self.remove_in(connection, key)

    async def remove_in(self, connection: AsyncConnection, key: int | str) -> bool:
        """Delete a row; return whether it existed. Raise Conflict while others refer to it."""
        await self._bump(connection)
        with self._conflicts({}):
            result = await connection.execute(self.table.delete().where(self._key == key))
        return bool(result.rowcount)

    async def _bump(self, connection: AsyncConnection) -> None:
        """Increase the versions before the change itself.

        Their rows act as a lock: concurrent changes of the same topics wait here for each other and
        cannot deadlock later on.
        """
        await bump(connection, *self._topics)

    def _where(self, equals: Mapping[str, Any]) -> list[ColumnElement[bool]]:
        """Return the conditions; a text that no database can hold equals nothing."""
        return [
            self.table.c[name] == value if is_storable(value) else false()
            for name, value in equals.items()
        ]

    def _read(self, row: Mapping[Any, Any]) -> R:
        return self._record(**{column.name: row[column.name] for column in self._columns})

    @contextmanager
    def _conflicts(self, values: Mapping[str, Any]) -> Iterator[None]:
        """Raise BadArgument for a name that is taken, Conflict for a reference that would break.

        A caller has checked both, so another change was made in between. Any other violation is
        our own fault.
        """
        try:
            yield
        except IntegrityError as refused:
            kind, reason = self.table.name.replace("_", " "), str(refused.orig).lower()
            if "name" in values and "uniq" in reason:
                taken = f"{values['name']!r} is already among the {kind}."
                raise BadArgument("name", taken) from None
            if "foreign key" in reason:
                text = f"Another change of what these {kind} refer to, or of what refers to them"
                raise Conflict(
                    f"{text}, was made at the same time; nothing was changed.",
                    hint="Look at them and try again.",
                ) from None
            raise


def _check_storable(values: Mapping[str, Any]) -> None:
    """Raise BadArgument for a text that not every database can hold."""
    for name, value in values.items():
        if not is_storable(value):
            raise BadArgument(name, "must not have NUL or lone surrogates.")


def is_storable(value: Any) -> bool:
    """Return whether a database takes it: all refuse lone surrogates, PostgreSQL also NUL."""
    return not (isinstance(value, str) and _UNSTORABLE.search(value))
