"""Shutdown: the client closes its end, a signal arrives, or the client's process is gone."""

import asyncio
import signal
import sys
from collections.abc import Callable
from enum import Enum

from pvemcp_bridge.parent import parent_alive

__all__ = ["Reason", "Shutdown"]

_POLL_SECONDS = 1.0


class Reason(Enum):
    """Reason to shut down, with the seconds for pending replies and for closing the session."""

    INPUT_CLOSED = 10.0, 2.0
    SIGNAL = 0.8, 0.4
    PARENT_GONE = 0.1, 0.4
    OUTPUT_BROKEN = 0.0, 0.4

    @property
    def reply_seconds(self) -> float:
        return self.value[0]

    @property
    def close_seconds(self) -> float:
        return self.value[1]


class Shutdown:
    """Request to shut down; the first reason counts.

    `immediate` is set when a second reason arrives that leaves no time for pending replies.
    """

    def __init__(self) -> None:
        self.immediate = asyncio.Event()
        self._reason: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
        self._parent_watch = asyncio.create_task(self._watch_parent(parent_alive()))
        self._handle_signals()

    async def wait(self) -> Reason:
        """Wait until there is a reason to shut down."""
        return await self._reason

    def request(self, reason: Reason) -> None:
        """Shut down for this reason."""
        if not self._reason.done():
            self._reason.set_result(reason)
        elif reason is not Reason.INPUT_CLOSED:
            self.immediate.set()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        if sys.platform == "win32":
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGBREAK):
                signal.signal(
                    number, lambda *_: loop.call_soon_threadsafe(self.request, Reason.SIGNAL)
                )
        else:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, self.request, Reason.SIGNAL)

    async def _watch_parent(self, is_alive: Callable[[], bool]) -> None:
        while is_alive():  # noqa: ASYNC110 - no event announces the end of a parent process
            await asyncio.sleep(_POLL_SECONDS)
        self.request(Reason.PARENT_GONE)
