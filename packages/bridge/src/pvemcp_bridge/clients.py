"""The MCP clients we know: where each keeps its configuration and how a server stands in it."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CLIENTS", "Client", "client_config", "own_path", "server_config"]

Parts = tuple[str, ...]
_ROAMING = "%APPDATA%"


@dataclass(frozen=True)
class Client:
    """One client: its file on each system, as on Linux where not said otherwise, and its form."""

    name: str
    title: str
    paths: Mapping[str, Parts]
    servers_key: str = "mcpServers"
    typed: bool = False

    def path(self, home: Path, platform: str, roaming: str = "") -> Path:
        """The file of the user with this home folder."""
        first, *rest = self.paths.get(platform, self.paths["linux"])
        if first == _ROAMING:
            return Path(roaming or home / "AppData" / "Roaming").joinpath(*rest)
        return home.joinpath(first, *rest)


def _in_home(*parts: str) -> dict[str, Parts]:
    return {"linux": parts}


def _in_application_folder(*parts: str) -> dict[str, Parts]:
    return {
        "linux": (".config", *parts),
        "darwin": ("Library", "Application Support", *parts),
        "win32": (_ROAMING, *parts),
    }


_ALL = (
    Client(
        "claude-desktop",
        "Claude Desktop",
        _in_application_folder("Claude", "claude_desktop_config.json"),
    ),
    Client("claude-code", "Claude Code", _in_home(".claude.json"), typed=True),
    Client("cursor", "Cursor", _in_home(".cursor", "mcp.json")),
    Client(
        "vscode",
        "VS Code",
        _in_application_folder("Code", "User", "mcp.json"),
        servers_key="servers",
        typed=True,
    ),
    Client("windsurf", "Windsurf", _in_home(".codeium", "windsurf", "mcp_config.json")),
    Client(
        "zed",
        "Zed",
        {
            "linux": (".config", "zed", "settings.json"),
            "win32": (_ROAMING, "Zed", "settings.json"),
        },
        servers_key="context_servers",
    ),
)
CLIENTS: Mapping[str, Client] = {client.name: client for client in _ALL}


def server_config(client: Client, command: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """How the bridge stands in a client's configuration: all it needs is in the environment.

    Arguments would show the key to everyone on the machine.
    """
    config = {"command": command, "args": [], "env": dict(environment)}
    return {"type": "stdio", **config} if client.typed else config


def client_config(
    client: Client, name: str, command: str, environment: Mapping[str, str]
) -> dict[str, Any]:
    """The whole configuration of a client that has no other server."""
    return {client.servers_key: {name: server_config(client, command, environment)}}


def own_path(client: Client) -> Path:
    """The file of the user who runs this."""
    return client.path(Path.home(), sys.platform, os.environ.get("APPDATA", ""))
