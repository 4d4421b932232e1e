"""Failed attempts in a row, and the locks that follow, for all processes together."""

from typing import Final

from pvemcp_server.store.fleet import NOW, Fleet

# a lock that ends later than the longest one shows a clock that was set back
_LEFT: Final = f"""
CASE WHEN f.locked_until - {NOW} BETWEEN 0 AND $2::float8 THEN f.locked_until - {NOW} ELSE 0 END"""
_COUNT: Final = f"""
INSERT INTO failures AS f (name, number, locked_until, seconds, changed)
VALUES ($1, 1, 0, 0, {NOW})
ON CONFLICT (name) DO UPDATE SET
    (number, locked_until, seconds) = (
        SELECT
            CASE WHEN left_over > 0 THEN f.number ELSE f.number + 1 END,
            CASE
                WHEN left_over > 0 THEN f.locked_until
                WHEN f.number + 1 < $3::int THEN 0
                ELSE {NOW} + least($2, $4::float8 * 2 ^ least(f.number + 1 - $3, 10))
            END,
            left_over
        FROM (SELECT {_LEFT}) AS l (left_over)
    ),
    changed = excluded.changed
RETURNING seconds"""  # noqa: S608 - constants of this module and of `fleet`
_SECONDS: Final = f"SELECT {_LEFT} AS seconds FROM failures AS f WHERE name = $1"  # noqa: S608
_UNDO: Final = """
WITH last AS (DELETE FROM failures WHERE name = $1 AND number <= 1)
UPDATE failures SET number = number - 1, locked_until = 0 WHERE name = $1 AND number > 1"""
_CLEAR: Final = "DELETE FROM failures WHERE name = $1"


class SharedFailures:
    """Counts failed attempts by name; raise StateUnavailable when the database does not answer."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    @property
    def are_used(self) -> bool:
        """Whether this process shares them; a command counts for itself."""
        return self._fleet.takes_part

    async def count(self, name: str, *, free: int, first: float, longest: float) -> float:
        """Count an attempt and return 0, or the seconds until the lock ends, if there is one.

        From the attempt `free` on, each locks the name for twice as long, between `first` and
        `longest` seconds.
        """
        [row] = await self._fleet.fetch(_COUNT, name, longest, free, first)
        return float(row["seconds"])

    async def seconds(self, name: str, longest: float) -> float:
        """Return the seconds until the lock of the name ends; 0 without one."""
        rows = await self._fleet.fetch(_SECONDS, name, longest)
        return float(rows[0]["seconds"]) if rows else 0.0

    async def undo(self, name: str) -> None:
        """Take back an attempt, and the lock that followed it."""
        await self._fleet.fetch(_UNDO, name)

    async def clear(self, name: str) -> None:
        """Forget the attempts."""
        await self._fleet.fetch(_CLEAR, name)
