"""The one secret outside the database: where it is found, and how it is first made."""

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.store.files import told

KEY_BYTES = 32


def master_key_file(config: Config) -> Path:
    return config.master_key_file or config.state_dir / "master.key"


def read_master_key(config: Config) -> bytes | None:
    """The master key from the environment, a credential or its file; None when there is none."""
    if config.master_key is not None:
        return decode_master_key(config.master_key.get_secret_value(), "PVEMCP_MASTER_KEY")
    file = master_key_file(config)
    with told(f"The master key {file} cannot be read"):
        text = file.read_text(encoding="ascii", errors="replace") if file.exists() else None
    return None if text is None else decode_master_key(text, str(file))


def create_master_key(config: Config) -> bytes:
    """Writes a new master key, readable by us alone, where the configuration expects it."""
    file = master_key_file(config)
    with told(f"The master key {file} cannot be written"):
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
        # a link never replaces: of processes that start together, the first one's key stays
        with suppress(FileExistsError):
            file.hardlink_to(unfinished)
    finally:
        Path(unfinished).unlink()


def decode_master_key(text: str, source: str) -> bytes:
    """A master key as it is written down; `source` names where, for it must not be repeated."""
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{source} must hold {KEY_BYTES * 2} hex digits.")
    return key
