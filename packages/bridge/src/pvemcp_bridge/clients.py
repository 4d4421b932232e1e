"""Supported MCP clients: the place and the format of their configuration files."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CLIENTS", "Client", "client_config", "config_path", "server_config"]

Parts = tuple[str, ...]
_ROAMING = "%APPDATA%"


@dataclass(frozen=True)
class Client:
    """One client: the format of its configuration file and the path per platform.

    A platform that is missing in `paths` has the path of Linux.
    """

    name: str
    title: str
    paths: Mapping[str, Parts]
    servers_key: str = "mcpServers"
    typed: bool = False

    def path(self, home: Path, platform: str, roaming: str = "") -> Path:
        """Return the configuration file of the user with this home folder."""
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


_CLIENTS = (
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
CLIENTS: Mapping[str, Client] = {client.name: client for client in _CLIENTS}


def server_config(client: Client, command: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the bridge's entry in a client's configuration.

    All options are environment variables: arguments would show the key to every user of the
    machine.
    """
    config = {"command": command, "args": [], "env": dict(environment)}
    return {"type": "stdio", **config} if client.typed else config


def client_config(
    client: Client, name: str, command: str, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Return the whole configuration of a client without other servers."""
    return {client.servers_key: {name: server_config(client, command, environment)}}


def config_path(client: Client) -> Path:
    """Return the configuration file of the current user."""
    return client.path(Path.home(), sys.platform, os.environ.get("APPDATA", ""))
