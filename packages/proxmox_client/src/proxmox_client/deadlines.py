"""Deadlines that cover all requests of a block, and time limits of single operations."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

from proxmox_client.errors import DeadlineExceeded

_deadline: ContextVar[float | None] = ContextVar("proxmox_client_deadline", default=None)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Limit every request and wait inside the block, also in tasks that it starts.

    An inner block can only shorten the outer one. Calls that are cut off raise `DeadlineExceeded`.
    """
    end = asyncio.get_running_loop().time() + seconds
    outer = _deadline.get()
    reset = _deadline.set(end if outer is None else min(outer, end))
    try:
        yield
    finally:
        _deadline.reset(reset)


def remaining() -> float | None:
    """Return the seconds left in the surrounding `deadline` block, or None outside of one."""
    end = _deadline.get()
    return None if end is None else end - asyncio.get_running_loop().time()


@asynccontextmanager
async def time_limit(seconds: float | None, operation: str) -> AsyncIterator[None]:
    """Raise `DeadlineExceeded` when the body outlasts the surrounding deadline or `seconds`.

    A TimeoutError that the body itself raises passes through unchanged.
    """
    limits = [limit for limit in (remaining(), seconds) if limit is not None]
    limit = min(limits, default=None)
    if limit is not None and limit <= 0:
        raise DeadlineExceeded(f"No time was left for {operation}")
    try:
        async with asyncio.timeout(limit) as timer:
            yield
    except TimeoutError as error:
        if not timer.expired():
            raise
        raise DeadlineExceeded(f"{operation} took longer than {limit:.2f} s") from error
