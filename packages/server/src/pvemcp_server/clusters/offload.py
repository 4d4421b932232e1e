"""Offloading of work on many items to a thread, so that the event loop keeps serving."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

MANY: Final = 2000  # items; about five milliseconds of work


async def offload(size: int, work: Callable[[], T]) -> T:
    """Run the work: directly when it is about few items, else in a thread."""
    return await asyncio.to_thread(work) if size > MANY else work()
