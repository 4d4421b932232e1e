"""Housekeeping beside the main work."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio


@asynccontextmanager
async def housekeeping(
    work: Callable[[anyio.Event], Coroutine[Any, Any, None]],
) -> AsyncIterator[None]:
    """Runs `work` beside the body; it ends by itself after the event is set at the body's end."""
    stop = anyio.Event()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work, stop)
            try:
                yield
            finally:
                stop.set()
    except BaseExceptionGroup as group:
        # an error of the body stays what it is, for whoever answers it by its type
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
