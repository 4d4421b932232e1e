"""One deadline for all that is asked inside a block, however many requests that takes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

from proxmox_client.errors import DeadlineExceeded

_deadline: ContextVar[float | None] = ContextVar("proxmox_client_deadline", default=None)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Bound every request and wait inside the block, also in tasks started there.

    An inner block can only shorten the outer one. What is cut off raises `DeadlineExceeded`.
    """
    end = asyncio.get_running_loop().time() + seconds
    outer = _deadline.get()
    mark = _deadline.set(end if outer is None else min(outer, end))
    try:
        yield
    finally:
        _deadline.reset(mark)


def remaining() -> float | None:
    """Seconds left in the surrounding block, or None outside of one."""
    end = _deadline.get()
    return None if end is None else end - asyncio.get_running_loop().time()


@asynccontextmanager
async def bounded(seconds: float | None, what: str) -> AsyncIterator[None]:
    """Raise `DeadlineExceeded` when the body outlasts the surrounding deadline or `seconds`."""
    limits = [limit for limit in (remaining(), seconds) if limit is not None]
    limit = min(limits) if limits else None
    if limit is not None and limit <= 0:
        raise DeadlineExceeded(f"No time was left for {what}")
    try:
        async with asyncio.timeout(limit) as timer:
            yield
    except TimeoutError as error:
        if not timer.expired():
            raise
        raise DeadlineExceeded(f"{what} took longer than {limit:.2f} s") from error
