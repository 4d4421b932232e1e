"""The lock of the state folder: a second server on the same state does not start."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.store.files import (
    config_errors,
    make_state_dir,
    open_private,
    warn_of_open_folder,
)
from pvemcp_server.store.master_key import warn_of_open_master_key

_LONGEST: Final = 1000  # characters of the file: it holds an address and a process id


@contextmanager
def state_lock(config: Config, *, shared: bool) -> Iterator[None]:
    """Hold the lock while the body runs; raise ConfigError when another server has it.

    It is exclusive, or shared among servers whose database is elsewhere. The operating system
    releases it when the process ends, also after a crash; the file remains and means nothing while
    it is not locked.
    """
    make_state_dir(config)
    warn_of_open_folder(config.state_dir)
    warn_of_open_master_key(config)
    file = _file(config)
    with config_errors(f"The lock {file} cannot be written"):
        stream = open_private(file, "a+")
    with stream:
        with config_errors(f"The lock {file} cannot be taken"):
            acquired = _try_lock(stream, shared=shared)
        if not acquired:
            raise ConfigError(_already_running(config, stream))
        with config_errors(f"The lock {file} cannot be written"):
            stream.truncate(0)
            stream.write(f"{config.base_url} {os.getpid()}\n")
            stream.flush()
        yield


def check_unlocked(config: Config, *, shared: bool) -> None:
    """Raise ConfigError when the lock could not be held so; change nothing."""
    file = _file(config)
    if not file.exists():
        return
    with (
        config_errors(f"The lock {file} cannot be read"),
        file.open("r+", encoding="utf-8") as stream,
    ):
        if not _try_lock(stream, shared=shared):
            raise ConfigError(_already_running(config, stream))


def running_at(config: Config) -> str | None:
    """Return the URL of the server that runs on the state folder, for a command beside it.

    The server may listen elsewhere than this process is configured: by options, or by variables of
    another shell. None where no server runs, or only some that share the folder.
    """
    if config.public_url or not _file(config).exists():
        return None
    with (
        config_errors(f"The lock {_file(config)} cannot be read"),
        _file(config).open("r+", encoding="utf-8") as stream,
    ):
        if _try_lock(stream, shared=True):
            return None
        stream.seek(0)
        return stream.read(_LONGEST).partition(" ")[0] or None


def _file(config: Config) -> Path:
    return config.state_dir / "server.lock"


def _already_running(config: Config, stream: IO[str]) -> str:
    stream.seek(0)
    address, _, process = stream.read(_LONGEST).strip().partition(" ")
    where = f" at {address} (process {process})" if process else ""
    return (
        f"pvemcp already runs on the state folder {config.state_dir}{where}: use that server, stop "
        "it first, or set PVEMCP_STATE_DIR to another folder for a second one."
    )


if sys.platform == "win32":
    import msvcrt

    _BEYOND: Final = 1 << 20  # a locked range cannot be read, so the lock is after the text

    def _try_lock(stream: IO[str], *, shared: bool) -> bool:
        """Take the lock without waiting; Windows has no shared locks here."""
        stream.seek(_BEYOND)
        try:
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
            if shared:
                stream.seek(_BEYOND)
                msvcrt.locking(stream.fileno(), msvcrt.LK_UNLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(stream: IO[str], *, shared: bool) -> bool:
        """Take the lock without waiting; return whether that worked."""
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(stream, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
