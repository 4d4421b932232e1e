"""SQLite for the states of tests: all engines of a process share one cache of compiled statements.

Each test opens engines of its own, and each would compile each statement again, which takes longer
than most tests. The key of a cached statement holds its dialect, so those of all engines have to be
equal, and they are: same driver, same library, no options.
"""

from typing import Any, ClassVar

from sqlalchemy import Engine
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.util import LRUCache


class SharedCacheDialect(SQLiteDialect_aiosqlite):
    """The dialect of aiosqlite with one cache for all engines."""

    supports_statement_cache = True
    compiled: ClassVar[LRUCache[Any, Any]] = LRUCache(1000)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        """Give a new engine the cache; SQLAlchemy calls this for each."""
        engine.update_execution_options(compiled_cache=cls.compiled)


def register() -> None:
    """Use the dialect for each engine that is created from now on."""
    registry.register("sqlite.aiosqlite", __name__, SharedCacheDialect.__name__)
