"""Calls that may block for long, in threads that do not delay the end of the process."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["in_thread"]


async def in_thread(function: Callable[..., Any], *arguments: Any, seconds: float) -> Any:
    """Return the function's result, or raise its exception, or TimeoutError after `seconds`.

    A daemon thread calls it: those of asyncio's executor would have to end before the process does.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: Exception | None) -> None:
        if future.done():
            return
        if error:
            future.set_exception(error)
        else:
            future.set_result(result)

    def call() -> None:
        result, error = None, None
        try:
            result = function(*arguments)
        except Exception as caught:  # noqa: BLE001 - raised again where the caller waits
            error = caught
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            return  # the loop is closed

    threading.Thread(target=call, daemon=True).start()
    async with asyncio.timeout(seconds):
        return await future
