"""The lock of the state folder: a server that would disturb another one does not start."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.store.files import make_state_dir, told

_LONGEST: Final = 1000  # characters of the file: it holds an address and a process id


@contextmanager
def state_lock(config: Config, *, shared: bool) -> Iterator[None]:
    """Hold the lock for a server at this configuration's address, or raise ConfigError.

    It is exclusive, or shared among servers that have their database elsewhere. The system drops it
    with the process, however that ends; the file stays, and says nothing while it is not locked.
    """
    make_state_dir(config)
    file = _file(config)
    with told(f"The lock {file} cannot be written"):
        stream = file.open("a+", encoding="utf-8")
    with stream:
        with told(f"The lock {file} cannot be taken"):
            is_ours = _locked(stream, shared=shared)
        if not is_ours:
            raise ConfigError(_who_runs(config, stream))
        with told(f"The lock {file} cannot be written"):
            stream.truncate(0)
            stream.write(f"{config.base_url} {os.getpid()}\n")
            stream.flush()
        yield


def check_unlocked(config: Config) -> None:
    """Raise ConfigError when a server has the state folder for itself; change nothing."""
    file = _file(config)
    if not file.exists():
        return
    with told(f"The lock {file} cannot be read"), file.open("r+", encoding="utf-8") as stream:
        if not _locked(stream, shared=True):
            raise ConfigError(_who_runs(config, stream))


def _file(config: Config) -> Path:
    return config.state_dir / "server.lock"


def _who_runs(config: Config, stream: IO[str]) -> str:
    stream.seek(0)
    address, _, process = stream.read(_LONGEST).strip().partition(" ")
    where = f" at {address} (process {process})" if process else ""
    return (
        f"pvemcp already runs on the state folder {config.state_dir}{where}: use that server, stop "
        "it first, or set PVEMCP_STATE_DIR to another folder for a second one."
    )


if sys.platform == "win32":
    import msvcrt

    _BEYOND: Final = 1 << 20  # a lock forbids reading there, so it stands behind the text

    def _locked(stream: IO[str], *, shared: bool) -> bool:
        """Whether the lock was taken; there are no shared ones here."""
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

    def _locked(stream: IO[str], *, shared: bool) -> bool:
        """Whether the lock was taken."""
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(stream, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
