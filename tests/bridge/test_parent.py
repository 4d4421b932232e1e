"""The check of the client's process on Windows, with simulated system calls."""

import ctypes
import importlib.util
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from pvemcp_bridge import parent

TIMED_OUT, SIGNALLED = 0x102, 0
CLIENT, BOOTLOADER = 100, 200


class Windows:
    """Processes by id with their parents; the handle of a process is its id plus 1000."""

    def __init__(self, parents, forbidden=()):
        self.parents = parents
        self.forbidden = forbidden
        self.ended = set()
        self.opened = []
        self.kernel32 = self.ntdll = self
        self.OpenProcess = partial(
            self._open
        )  # a partial lets the code under test set its result type

    def _open(self, right, inherit, process):
        if process not in self.parents or process in self.forbidden:
            return None
        self.opened.append(process)
        return process + 1000

    def WaitForSingleObject(self, handle, milliseconds):  # noqa: N802 - Windows names it so
        return SIGNALLED if handle.value - 1000 in self.ended else TIMED_OUT

    def NtQueryInformationProcess(self, handle, kind, into, size, length):  # noqa: N802 - likewise
        assert (kind, size) == (0, 6 * ctypes.sizeof(ctypes.c_size_t))
        if handle.value is None:
            return 0xC000_0008
        into._obj[5] = self.parents[handle.value - 1000]
        return 0

    def CloseHandle(self, handle):  # noqa: N802 - likewise
        if handle.value is not None:
            self.opened.remove(handle.value - 1000)


@pytest.fixture
def on_windows(monkeypatch):
    """Start the check like a process on Windows whose parent is the bootloader."""

    def watch(windows, *, one_file):
        monkeypatch.setattr(ctypes, "windll", windows, raising=False)
        monkeypatch.setattr(os, "getppid", lambda: BOOTLOADER)
        if one_file:
            monkeypatch.setattr(sys, "_MEIPASS", str(Path("unpacked", "_MEI1")), raising=False)
        spec = importlib.util.spec_from_file_location("parent_on_windows", parent.__file__)
        module = importlib.util.module_from_spec(spec)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "platform", "win32")
            spec.loader.exec_module(module)
            return module.parent_alive()

    return watch


@pytest.mark.parametrize("gone", [CLIENT, BOOTLOADER])
def test_a_single_file_binary_watches_client_and_bootloader(on_windows, gone):
    windows = Windows({BOOTLOADER: CLIENT, CLIENT: 1})
    alive = on_windows(windows, one_file=True)
    assert windows.opened == [BOOTLOADER, CLIENT]
    assert alive()
    windows.ended.add(gone)
    assert not alive()


def test_a_folder_binary_watches_only_its_parent(on_windows):
    windows = Windows({BOOTLOADER: CLIENT, CLIENT: 1})
    alive = on_windows(windows, one_file=False)
    assert windows.opened == [BOOTLOADER]
    windows.ended.add(CLIENT)
    assert alive()
    windows.ended.add(BOOTLOADER)
    assert not alive()


@pytest.mark.parametrize("forbidden", [(CLIENT,), (BOOTLOADER, CLIENT)])
def test_a_process_without_access_counts_as_alive(on_windows, forbidden):
    alive = on_windows(Windows({BOOTLOADER: CLIENT, CLIENT: 1}, forbidden), one_file=True)
    assert alive()


def test_a_client_that_has_already_ended_is_not_watched(on_windows):
    assert on_windows(Windows({BOOTLOADER: CLIENT}), one_file=True)()
