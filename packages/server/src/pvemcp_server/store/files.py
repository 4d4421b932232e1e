"""Folders and files of the state; an OSError there becomes a ConfigError.

Every file is readable by this user only, and none is written through a name that another user could
have prepared: a new file replaces the old one, and a link is never followed.
"""

import errno
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError

log = logging.getLogger(__name__)
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag


@contextmanager
def config_errors(message: str) -> Iterator[None]:
    """Raise ConfigError, the message with the system's reason, for an OSError of the body."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{message}: {error.strerror or error}.") from None


def make_state_dir(config: Config) -> None:
    """Create the state folder, accessible to this user only."""
    with config_errors(f"The state folder {config.state_dir} (PVEMCP_STATE_DIR) cannot be made"):
        config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)


def warn_of_open_folder(folder: Path) -> None:
    """Log a warning when every user may write in the state folder.

    Such a user can replace the database and the master key, whatever their modes are.
    """
    if os.name == "posix" and folder.stat().st_mode & stat.S_IWOTH:
        log.warning("Every user may replace files in the state folder: chmod o-w %s", folder)


@contextmanager
def replaced_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file, mode 0600, that replaces `path` atomically when the body succeeds.

    It is written under a random name that did not exist (O_EXCL, O_NOFOLLOW) and is synced to the
    disk before it gets its own name.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def open_private(path: Path, mode: str) -> IO[Any]:
    """Open a file that stays open while it is written: mode 0600 if new, never through a link."""
    encoding = None if "b" in mode else "utf-8"
    return open(path, mode, encoding=encoding, opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | _NO_FOLLOW, 0o600)
