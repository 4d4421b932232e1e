"""How clients connect to this server: their configuration, as the bridge declares it for each.

For pages, command line and start-up message.
"""

from typing import Final

from pvemcp_bridge.clients import CLIENTS, Client, Connection
from pvemcp_server.config import Config
from pvemcp_server.store.state_lock import running_at

__all__ = [
    "CLIENTS",
    "KEY_PLACEHOLDER",
    "Client",
    "Connection",
    "endpoint_for_commands",
    "endpoint_url",
]

KEY_PLACEHOLDER: Final = "YOUR-API-KEY"


def endpoint_url(config: Config) -> str:
    """Return the URL that clients connect to, without a key."""
    return f"{config.base_url}/mcp"


def endpoint_for_commands(config: Config) -> str:
    """Return the same for a command: of the server that runs on its state folder, if one does."""
    return f"{running_at(config) or config.base_url}/mcp"
