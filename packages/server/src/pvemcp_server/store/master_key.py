"""The master key, the one secret outside the database: read it, and create it once."""

import logging
import os
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.store.files import config_errors

KEY_BYTES = 32
log = logging.getLogger(__name__)


def master_key_file(config: Config) -> Path:
    """Return the configured file of the master key, or the default one."""
    return config.master_key_file or config.state_dir / "master.key"


def read_master_key(config: Config) -> bytes | None:
    """Read the master key from the environment, a credential or its file; None when absent."""
    if config.master_key is not None:
        return decode_master_key(config.master_key.get_secret_value(), "PVEMCP_MASTER_KEY")
    file = master_key_file(config)
    with config_errors(f"The master key {file} cannot be read"):
        text = file.read_text(encoding="ascii", errors="replace") if file.exists() else None
    return None if text is None else decode_master_key(text, str(file))


def warn_of_open_master_key(config: Config) -> None:
    """Log a warning when every user may read or replace the master key in a file of this user.

    A file of another user, as a container's secret, has the modes that its owner has chosen.
    """
    file = master_key_file(config)
    if os.name != "posix" or config.master_key is not None:
        return
    try:
        status = file.stat()
    except OSError:  # reading it says what is wrong
        return
    if status.st_uid == os.getuid() and status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        log.warning("Every user may read or replace the master key: chmod 600 %s", file)


def create_master_key(config: Config) -> bytes:
    """Write a new master key to its file, readable by this user only, and return it."""
    file = master_key_file(config)
    with config_errors(f"The master key {file} cannot be written"):
        _write_new(file)
    return decode_master_key(file.read_text(encoding="ascii"), str(file))


def _write_new(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, unfinished = tempfile.mkstemp(dir=file.parent, prefix=".master-")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(secrets.token_hex(KEY_BYTES) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        # a link never replaces a file: of processes that start together, the first one wins
        with suppress(FileExistsError):
            file.hardlink_to(unfinished)
    finally:
        Path(unfinished).unlink()


def decode_master_key(text: str, source: str) -> bytes:
    """Parse a master key of 64 hex digits; an error names its `source`, never its value."""
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{source} must hold {KEY_BYTES * 2} hex digits.")
    return key
