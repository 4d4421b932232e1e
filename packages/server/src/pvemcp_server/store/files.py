"""Folders and files of the state; an OSError there becomes a ConfigError."""

from collections.abc import Iterator
from contextlib import contextmanager

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError


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
