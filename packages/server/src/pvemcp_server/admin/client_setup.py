"""How clients connect to this server: their configuration, as the bridge declares it for each.

For pages, command line and start-up message.
"""

from typing import Final

from pvemcp_bridge.clients import CLIENTS, Client, Connection
from pvemcp_server.config import Config

__all__ = ["CLIENTS", "KEY_PLACEHOLDER", "Client", "Connection", "endpoint_url"]

KEY_PLACEHOLDER: Final = "YOUR-API-KEY"


def endpoint_url(config: Config) -> str:
    """Return the URL that clients connect to, without a key."""
    return f"{config.base_url}/mcp"
