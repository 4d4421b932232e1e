"""What ends the bridge: the client closing its end, a signal, the client's process gone."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path

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
        self._watch = asyncio.create_task(self._watch_parent(_parent_alive()))
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


if sys.platform == "win32":
    import ctypes

    def _parent_alive() -> Callable[[], bool]:
        """The number of the parent stays after it is gone; its handle tells."""
        synchronize, timed_out = 0x00100000, 0x102
        kernel = ctypes.windll.kernel32
        kernel.OpenProcess.restype = ctypes.c_void_p
        handle = ctypes.c_void_p(kernel.OpenProcess(synchronize, False, os.getppid()))
        if handle.value is None:
            return lambda: True  # not ours to watch; the end of the input will tell
        return lambda: bool(kernel.WaitForSingleObject(handle, 0) == timed_out)

else:

    def _parent_alive() -> Callable[[], bool]:
        """An orphan gets another parent at once."""
        parent = os.getppid()
        if not _is_one_file():
            return lambda: os.getppid() == parent
        # between us and the client stands the process that unpacked us; it becomes the orphan
        client = _parent_of(parent)
        return lambda: os.getppid() == parent and _parent_of(parent) == client

    def _is_one_file() -> bool:
        """Whether this program was unpacked from a single file."""
        unpacked = getattr(sys, "_MEIPASS", None)
        return unpacked is not None and Path(unpacked).parent != Path(sys.executable).parent

    def _parent_of(process: int) -> int:
        """The number of a process's parent, 0 for a process that is gone."""
        try:
            if (stat := Path(f"/proc/{process}/stat")).parent.parent.is_dir():
                return int(stat.read_text().rpartition(")")[2].split()[1])
            asked = ["/bin/ps", "-o", "ppid=", "-p", str(process)]
            return int(subprocess.check_output(asked))  # noqa: S603 - a fixed program and a number
        except (OSError, subprocess.SubprocessError):
            return 0
