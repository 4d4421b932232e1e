"""Check on every system whether the process that started the bridge is alive.

A single-file binary unpacks itself and starts the real program. Then the client is the parent's
parent, and the process between the two keeps running after the client ends.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["parent_alive"]


def _is_one_file() -> bool:
    """Return whether this program was unpacked from a single file."""
    unpacked = getattr(sys, "_MEIPASS", None)
    return unpacked is not None and Path(unpacked).parent != Path(sys.executable).parent


if sys.platform == "win32":
    import ctypes

    _SYNCHRONIZE, _QUERY = 0x0010_0000, 0x1000
    _STILL_RUNNING = 0x102  # waiting for its end timed out
    _PARENT = 5  # index in the six words of a process's basic information

    def parent_alive() -> Callable[[], bool]:
        """Return a check that uses handles, because Windows reuses process ids soon."""
        checks = [_is_running(os.getppid())]
        if _is_one_file():
            checks.append(_is_running(_parent_of(os.getppid())))
        return lambda: all(check() for check in checks)

    def _is_running(process: int) -> Callable[[], bool]:
        handle = _open(process, _SYNCHRONIZE)
        if handle.value is None:
            return lambda: True  # no right to watch it; the end of the input is noticed anyway
        wait = ctypes.windll.kernel32.WaitForSingleObject
        return lambda: bool(wait(handle, 0) == _STILL_RUNNING)

    def _parent_of(process: int) -> int:
        """Return the id of a process's parent, 0 if it is unknown."""
        handle = _open(process, _QUERY)
        information = (ctypes.c_size_t * 6)()
        size = ctypes.sizeof(information)
        ctypes.windll.ntdll.NtQueryInformationProcess(
            handle, 0, ctypes.byref(information), size, None
        )
        ctypes.windll.kernel32.CloseHandle(handle)
        return int(information[_PARENT])

    def _open(process: int, right: int) -> ctypes.c_void_p:
        kernel = ctypes.windll.kernel32
        kernel.OpenProcess.restype = ctypes.c_void_p
        return ctypes.c_void_p(kernel.OpenProcess(right, False, process))

else:

    def parent_alive() -> Callable[[], bool]:
        """Return a check of the parent's id: an orphan gets another parent at once."""
        parent = os.getppid()
        if not _is_one_file():
            return lambda: os.getppid() == parent
        client = _parent_of(parent)
        return lambda: os.getppid() == parent and _parent_of(parent) == client

    def _parent_of(process: int) -> int:
        """Return the id of a process's parent, 0 if the process is gone."""
        try:
            if (stat := Path(f"/proc/{process}/stat")).parent.parent.is_dir():
                return int(stat.read_text().rpartition(")")[2].split()[1])
            command = ["/bin/ps", "-o", "ppid=", "-p", str(process)]
            return int(subprocess.check_output(command))  # noqa: S603 - a fixed program and a number
        except (OSError, subprocess.SubprocessError):
            return 0
