"""A clock that the tests of this folder set."""

from datetime import UTC, datetime


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time
