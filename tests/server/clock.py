"""A clock that the tests of the server set."""

from datetime import UTC, datetime

START = datetime(2026, 6, 1, tzinfo=UTC)


class Clock:
    """A clock that stands still until a test changes `time`."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        """Return the time in seconds, as `time.monotonic` counts them."""
        return 1_000 + (self.time - START).total_seconds()
