"""Whether the process that started the bridge still lives, on every system.

A single-file binary unpacks itself and starts the real program: the client is the parent's parent
then, and the process between the two lives on without it.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["parent_alive"]


def _is_one_file() -> bool:
    """Whether this program was unpacked from a single file."""
    unpacked = getattr(sys, "_MEIPASS", None)
    return unpacked is not None and Path(unpacked).parent != Path(sys.executable).parent


if sys.platform == "win32":
    import ctypes

    _SYNCHRONIZE, _QUERY = 0x0010_0000, 0x1000
    _STILL_RUNNING = 0x102  # the wait for its end timed out
    _PARENT = 5  # of the six words that a process's basic information has

    def parent_alive() -> Callable[[], bool]:
        """Asks by handle: the number of a process may soon be another's."""
        watched = [_running(os.getppid())]
        if _is_one_file():
            watched.append(_running(_parent_of(os.getppid())))
        return lambda: all(alive() for alive in watched)

    def _running(process: int) -> Callable[[], bool]:
        handle = _opened(process, _SYNCHRONIZE)
        if handle.value is None:
            return lambda: True  # not ours to watch; the end of the input will tell
        wait = ctypes.windll.kernel32.WaitForSingleObject
        return lambda: bool(wait(handle, 0) == _STILL_RUNNING)

    def _parent_of(process: int) -> int:
        """The number of a process's parent, 0 where the system does not tell."""
        handle = _opened(process, _QUERY)
        facts = (ctypes.c_size_t * 6)()
        size = ctypes.sizeof(facts)
        ctypes.windll.ntdll.NtQueryInformationProcess(handle, 0, ctypes.byref(facts), size, None)
        ctypes.windll.kernel32.CloseHandle(handle)
        return int(facts[_PARENT])

    def _opened(process: int, right: int) -> ctypes.c_void_p:
        kernel = ctypes.windll.kernel32
        kernel.OpenProcess.restype = ctypes.c_void_p
        return ctypes.c_void_p(kernel.OpenProcess(right, False, process))

else:

    def parent_alive() -> Callable[[], bool]:
        """Asks for the parent's number: an orphan gets another parent at once."""
        parent = os.getppid()
        if not _is_one_file():
            return lambda: os.getppid() == parent
        client = _parent_of(parent)
        return lambda: os.getppid() == parent and _parent_of(parent) == client

    def _parent_of(process: int) -> int:
        """The number of a process's parent, 0 for a process that is gone."""
        try:
            if (stat := Path(f"/proc/{process}/stat")).parent.parent.is_dir():
                return int(stat.read_text().rpartition(")")[2].split()[1])
            asked = ["/bin/ps", "-o", "ppid=", "-p", str(process)]
            return int(subprocess.check_output(asked))  # noqa: S603 - a fixed program and a number
        except (OSError, subprocess.SubprocessError):
            return 0
