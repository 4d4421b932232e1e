"""Configuration of MCP clients for this server, for pages, command line and start-up message."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pvemcp_server.config import Config

SERVER_NAME: Final = "pvemcp"
KEY_PLACEHOLDER: Final = "YOUR-API-KEY"


@dataclass(frozen=True, slots=True)
class Connection:
    """The endpoint with a key. `bridge` is the bridge's command as the client can start it."""

    url: str  # of the endpoint, without the key
    key: str = KEY_PLACEHOLDER
    bridge: str = "pvemcp-bridge"

    @property
    def url_with_key(self) -> str:
        """The endpoint's URL with the key in its path."""
        return f"{self.url}/{self.key}"


@dataclass(frozen=True, slots=True)
class ClientKind:
    """A supported client: its name, the place of its configuration, and what to write there."""

    id: str
    title: str
    place: str
    config: Callable[[Connection], Mapping[str, Any]]

    def text(self, connection: Connection) -> str:
        """Return the configuration as JSON."""
        return json.dumps(self.config(connection), indent=2)


def endpoint_url(config: Config) -> str:
    """Return the URL that clients connect to, without a key."""
    return f"{config.base_url}/mcp"


def _bridge(connection: Connection) -> dict[str, Any]:
    return {
        "command": connection.bridge,
        "args": [],
        "env": {"MCP_URL": connection.url, "MCP_API_KEY": connection.key},
    }


def _header(connection: Connection) -> dict[str, str]:
    return {"X-API-Key": connection.key}


CLIENTS: Final[Mapping[str, ClientKind]] = {
    kind.id: kind
    for kind in (
        ClientKind(
            "claude-desktop",
            "Claude Desktop",
            "claude_desktop_config.json (Settings, Developer, Edit Config)",
            lambda to: {"mcpServers": {SERVER_NAME: _bridge(to)}},
        ),
        ClientKind(
            "claude-code",
            "Claude Code",
            ".mcp.json in the project, or ~/.claude.json",
            lambda to: {
                "mcpServers": {SERVER_NAME: {"type": "http", "url": to.url, "headers": _header(to)}}
            },
        ),
        ClientKind(
            "cursor",
            "Cursor",
            "~/.cursor/mcp.json",
            lambda to: {"mcpServers": {SERVER_NAME: {"url": to.url, "headers": _header(to)}}},
        ),
        ClientKind(
            "vscode",
            "VS Code",
            ".vscode/mcp.json",
            lambda to: {
                "servers": {SERVER_NAME: {"type": "http", "url": to.url, "headers": _header(to)}}
            },
        ),
        ClientKind(
            "windsurf",
            "Windsurf",
            "~/.codeium/windsurf/mcp_config.json",
            lambda to: {"mcpServers": {SERVER_NAME: {"serverUrl": to.url, "headers": _header(to)}}},
        ),
        ClientKind(
            "zed",
            "Zed",
            "~/.config/zed/settings.json",
            lambda to: {"context_servers": {SERVER_NAME: {"url": to.url, "headers": _header(to)}}},
        ),
    )
}
