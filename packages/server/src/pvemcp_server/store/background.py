"""Housekeeping beside the main work."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio


async def rounds(stop: anyio.Event, seconds: float) -> AsyncIterator[None]:
    """Yields every so many seconds, and a last time when the event has been set."""
    last = False
    while not last:
        with anyio.move_on_after(seconds):
            await stop.wait()
        last = stop.is_set()
        yield


@asynccontextmanager
async def housekeeping(
    work: Callable[[anyio.Event], Coroutine[Any, Any, None]],
) -> AsyncIterator[None]:
    """Runs `work` beside the body; it ends by itself after the event is set at the body's end."""
    stop = anyio.Event()
    failed: Exception | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work, stop)
            try:
                yield
            except Exception as error:  # noqa: BLE001 - raised again once the work has had its end
                failed = error
            finally:
                stop.set()
    except BaseExceptionGroup as group:
        # an error of the work stays what it is, for whoever answers it by its type
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
    if failed is not None:
        raise failed
