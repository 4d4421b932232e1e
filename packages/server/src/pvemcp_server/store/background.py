"""Background tasks that run beside the main work."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio


async def ticks(stop: anyio.Event, seconds: float) -> AsyncIterator[None]:
    """Yield every `seconds`, and a last time after the event was set."""
    last = False
    while not last:
        with anyio.move_on_after(seconds):
            await stop.wait()
        last = stop.is_set()
        yield


async def first_of(*events: anyio.Event) -> None:
    """Wait until one of the events is set."""
    async with anyio.create_task_group() as tasks:
        for event in events:
            tasks.start_soon(_cancel_after, event, tasks.cancel_scope)


async def _cancel_after(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


@asynccontextmanager
async def housekeeping(
    work: Callable[[anyio.Event], Coroutine[Any, Any, None]],
) -> AsyncIterator[None]:
    """Run `work` beside the body; set its event at the end of the body and wait for it.

    The work is not cancelled, so that it can write what it has buffered. An error of the body or of
    the work keeps its type.
    """
    stop = anyio.Event()
    failed: Exception | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work, stop)
            try:
                yield
            except Exception as error:  # noqa: BLE001 - raised again after the work has finished
                failed = error
            finally:
                stop.set()
    except BaseExceptionGroup as group:
        # unwrapped, because the callers handle errors by their type
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
    if failed is not None:
        raise failed
