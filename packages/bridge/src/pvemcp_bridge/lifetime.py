"""What ends the bridge: the client closing its end, a signal, the client's process gone."""

import asyncio
import signal
import sys
from collections.abc import Callable
from enum import Enum

from pvemcp_bridge.parent import parent_alive

__all__ = ["Ending", "Lifetime"]

_PARENT_SECONDS = 1.0


class Ending(Enum):
    """Why the bridge ends; how many seconds the replies still have, and then the farewell."""

    INPUT_CLOSED = 10.0, 2.0
    SIGNAL = 0.8, 0.4
    PARENT_GONE = 0.1, 0.4
    OUTPUT_BROKEN = 0.0, 0.4

    @property
    def replies(self) -> float:
        return self.value[0]

    @property
    def farewell(self) -> float:
        return self.value[1]


class Lifetime:
    """Waits for the first reason to end; `hurry` is set by every one that cannot wait."""

    def __init__(self) -> None:
        self.hurry = asyncio.Event()
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._watch = asyncio.create_task(self._watch_parent(parent_alive()))
        self._catch_signals()

    async def ending(self) -> Ending:
        """The reason, once there is one."""
        return await self._ending

    def end(self, why: Ending) -> None:
        """Notes a reason."""
        if not self._ending.done():
            self._ending.set_result(why)
        elif why is not Ending.INPUT_CLOSED:
            self.hurry.set()

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        if sys.platform == "win32":
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGBREAK):
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(self.end, Ending.SIGNAL))
        else:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, self.end, Ending.SIGNAL)

    async def _watch_parent(self, alive: Callable[[], bool]) -> None:
        while alive():  # noqa: ASYNC110 - no event tells of a parent's end
            await asyncio.sleep(_PARENT_SECONDS)
        self.end(Ending.PARENT_GONE)
