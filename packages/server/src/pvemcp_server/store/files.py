"""Folders and files of the state; what the system refuses there is told as a fact."""

from collections.abc import Iterator
from contextlib import contextmanager

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError


@contextmanager
def told(fact: str) -> Iterator[None]:
    """Raises ConfigError with the fact and the system's reason when the body meets an OSError."""
    try:
        yield
    except OSError as refused:
        raise ConfigError(f"{fact}: {refused.strerror or refused}.") from None


def make_state_dir(config: Config) -> None:
    with told(f"The state folder {config.state_dir} (PVEMCP_STATE_DIR) cannot be made"):
        config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
