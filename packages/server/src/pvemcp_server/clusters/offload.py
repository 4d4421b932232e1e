"""Work on many things is done aside, so that the event loop answers meanwhile."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

MANY: Final = 2000  # things; about five milliseconds of work


async def offload(size: int, work: Callable[[], T]) -> T:
    """What the work gives: at once when it is about few things, else from a thread."""
    return await asyncio.to_thread(work) if size > MANY else work()
