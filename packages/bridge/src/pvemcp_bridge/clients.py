"""Supported MCP clients: the places of their configuration, and the form of a server's entry.

Each client is declared once, here: `pvemcp-bridge install`, the server's pages and commands and the
tables in docs/users are made of these declarations.
"""

import json
import os
import re
import sys
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from pvemcp_bridge import json_config, toml_config, yaml_config

__all__ = ["CLIENTS", "Client", "Connection", "config_path", "quoted"]

Parts = tuple[str, ...]
Entry = Mapping[str, Any]
_ROAMING = "%APPDATA%"
_DESCRIPTION = "Proxmox VE"
_SAFE_WORD = re.compile(r"[\w%+,./:=@-]+", re.ASCII)
_SPECIAL = re.compile(r'(["\\$`])')


@dataclass(frozen=True)
class Connection:
    """The server as a client gets it, under a name: its URL, and its key unless the user signs in.

    `command` starts the bridge on the client's machine, `options` are more variables for it.
    """

    url: str  # of the endpoint, without the key
    key: str = ""
    name: str = "pvemcp"
    command: tuple[str, ...] = ("pvemcp-bridge",)
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def url_with_key(self) -> str:
        """The endpoint's URL with the key in its path, for clients that send no header."""
        return f"{self.url}/{self.key}" if self.key else self.url

    @property
    def headers(self) -> Mapping[str, str]:
        """The HTTP header that holds the key."""
        return {"X-API-Key": self.key} if self.key else {}

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables of the bridge: arguments would show the key to all users of the machine."""
        key = {"MCP_API_KEY": self.key} if self.key else {}
        return {"MCP_URL": self.url, **key, **self.options}


class Format(Protocol):
    """A module that edits configuration files of one format."""

    def with_server(self, text: str, section: str, name: str, server: Mapping[str, Any]) -> str: ...

    def hidden(self, line: str) -> str: ...


@dataclass(frozen=True)
class Client:
    """One client: its configuration file and the forms of an entry in it.

    `section` holds the servers by name. `local` starts the bridge; `remote` connects without it and
    is None for clients that only start programs. `command` adds the server from a terminal, and is
    empty for a connection that it cannot add; `link` opens the client and adds it there. A platform
    that is missing in `paths` has the path of Linux; without any path the client has no file of its
    own, and its settings take the text.
    """

    name: str
    title: str
    place: str
    paths: Mapping[str, Parts] = field(default_factory=dict)
    other_file: str = ""  # used where it exists and the usual one does not
    section: str = "mcpServers"
    format: Format = json_config
    local: Callable[[Connection], Entry] = lambda to: _program(to)
    remote: Callable[[Connection], Entry] | None = None
    command: Callable[[Connection], Parts] | None = None
    link: Callable[[Connection], str] | None = None

    def path(self, home: Path, platform: str, roaming: str = "") -> Path | None:
        """Return the configuration file of the user with this home folder; None without a file."""
        if not self.paths:
            return None
        first, *rest = self.paths.get(platform, self.paths["linux"])
        base = Path(roaming or home / "AppData" / "Roaming") if first == _ROAMING else home / first
        path = base.joinpath(*rest)
        other = path.with_name(self.other_file or path.name)
        return other if other.exists() and not path.exists() else path

    def entry(self, to: Connection, *, bridged: bool = True) -> Entry:
        """Return the entry that starts the bridge, or the one that connects without it."""
        return self.local(to) if bridged or not self.remote else self.remote(to)

    def text(self, to: Connection, *, bridged: bool = True) -> str:
        """Return the whole configuration of a client without other servers, in its format."""
        return self.with_server("", to, bridged=bridged)

    def with_server(self, text: str, to: Connection, *, bridged: bool = True) -> str:
        """Return the configuration with the server added or replaced; raise UnusableConfig."""
        entry = self.entry(to, bridged=bridged)
        return self.format.with_server(text, self.section, to.name, entry)

    def command_line(self, to: Connection) -> str:
        """Return the command that adds the server from a terminal; empty if there is none."""
        return " ".join(map(quoted, self.command(to))) if self.command else ""


def quoted(word: str) -> str:
    """Return a word of a command for the shells of Unix and the command prompt of Windows."""
    return word if _SAFE_WORD.fullmatch(word) else '"' + _SPECIAL.sub(r"\\\1", word) + '"'


def config_path(client: Client) -> Path | None:
    """Return the configuration file of the current user; None for a client without one."""
    return client.path(Path.home(), sys.platform, os.environ.get("APPDATA", ""))


def _in_home(*parts: str) -> dict[str, Parts]:
    return {"linux": parts}


def _in_application_folder(*parts: str) -> dict[str, Parts]:
    return {
        "linux": (".config", *parts),
        "darwin": ("Library", "Application Support", *parts),
        "win32": (_ROAMING, *parts),
    }


def _program(to: Connection, **more: Any) -> Entry:
    program, *arguments = to.command
    return {**more, "command": program, "args": arguments, "env": dict(to.environment)}


def _address(to: Connection, *, url: str = "url", **more: Any) -> Entry:
    headers = {"headers": dict(to.headers)} if to.headers else {}
    return {**more, url: to.url, **headers}


def _base64(entry: Entry) -> str:
    """Encode an entry without a padding, which not every client decodes in a link."""
    text = json.dumps(entry)
    return b64encode(text.ljust(-(-len(text) // 3) * 3).encode()).decode()


def _header_options(to: Connection, template: str) -> Parts:
    return tuple(
        word
        for name, value in to.headers.items()
        for word in ("--header", template.format(name, value))
    )


def _added_by(program: str, to: Connection) -> Parts:
    """Return the command of Claude Code, which others have with the same options."""
    options = ("--scope", "user", "--transport", "http")
    return (program, "mcp", "add", *options, to.name, to.url, *_header_options(to, "{}: {}"))


def _opencode_program(to: Connection) -> Entry:
    command, environment = list(to.command), dict(to.environment)
    return {"type": "local", "command": command, "environment": environment, "enabled": True}


def _codex_address(to: Connection) -> Entry:
    headers = {"http_headers": dict(to.headers)} if to.headers else {}
    return {"url": to.url, **headers}


def _continue_address(to: Connection) -> Entry:
    headers = {"requestOptions": {"headers": dict(to.headers)}} if to.headers else {}
    return {"name": to.name, "type": "streamable-http", "url": to.url, **headers}


def _goose_entry(kind: str, to: Connection, **more: Any) -> Entry:
    """Return an extension; some versions leave out one without a description."""
    return {
        "type": kind,
        "name": to.name,
        "description": _DESCRIPTION,
        "enabled": True,
        "timeout": 300,
        **more,
    }


def _goose_program(to: Connection) -> Entry:
    program, *arguments = to.command
    return _goose_entry("stdio", to, cmd=program, args=arguments, envs=dict(to.environment))


def _goose_link(to: Connection) -> str:
    values = {
        "type": "streamable_http",
        "url": to.url,
        "id": to.name,
        "name": to.name,
        "description": _DESCRIPTION,
        **({"header": f"X-API-Key={to.key}"} if to.key else {}),
    }
    return "goose://extension?" + urlencode(values, quote_via=quote)


def _vscode_server(to: Connection) -> str:
    return json.dumps({"name": to.name, **_address(to, type="http")})


_CLIENTS = (
    Client(
        "claude-desktop",
        "Claude Desktop",
        "claude_desktop_config.json (Settings, Developer, Edit Config)",
        _in_application_folder("Claude", "claude_desktop_config.json"),
    ),
    Client(
        "claude-code",
        "Claude Code",
        ".mcp.json in the project, or ~/.claude.json",
        _in_home(".claude.json"),
        local=lambda to: _program(to, type="stdio"),
        remote=lambda to: _address(to, type="http"),
        command=lambda to: _added_by("claude", to),
    ),
    Client(
        "cursor",
        "Cursor",
        "~/.cursor/mcp.json",
        _in_home(".cursor", "mcp.json"),
        remote=_address,
        link=lambda to: (
            "cursor://anysphere.cursor-deeplink/mcp/install?"
            + urlencode({"name": to.name, "config": _base64(_address(to))})
        ),
    ),
    Client(
        "vscode",
        "VS Code",
        "mcp.json (command MCP: Open User Configuration), or .vscode/mcp.json in the project",
        _in_application_folder("Code", "User", "mcp.json"),
        section="servers",
        local=lambda to: _program(to, type="stdio"),
        remote=lambda to: _address(to, type="http"),
        command=lambda to: ("code", "--add-mcp", _vscode_server(to)),
        link=lambda to: "vscode:mcp/install?" + quote(_vscode_server(to), safe=""),
    ),
    Client(
        "windsurf",
        "Windsurf",
        "~/.codeium/windsurf/mcp_config.json",
        _in_home(".codeium", "windsurf", "mcp_config.json"),
        remote=lambda to: _address(to, url="serverUrl"),
    ),
    Client(
        "zed",
        "Zed",
        "settings.json (command zed: open settings)",
        {
            "linux": (".config", "zed", "settings.json"),
            "win32": (_ROAMING, "Zed", "settings.json"),
        },
        section="context_servers",
        remote=_address,
    ),
    Client(
        "gemini-cli",
        "Gemini CLI",
        "~/.gemini/settings.json",
        _in_home(".gemini", "settings.json"),
        remote=lambda to: _address(to, url="httpUrl"),
        command=lambda to: _added_by("gemini", to),
    ),
    Client(
        "codex",
        "Codex",
        "~/.codex/config.toml",
        _in_home(".codex", "config.toml"),
        section="mcp_servers",
        format=toml_config,
        remote=_codex_address,
        # the command takes no header, and signs in at once
        command=lambda to: () if to.key else ("codex", "mcp", "add", to.name, "--url", to.url),
    ),
    Client(
        "opencode",
        "opencode",
        "~/.config/opencode/opencode.json",
        _in_home(".config", "opencode", "opencode.json"),
        other_file="opencode.jsonc",
        section="mcp",
        local=_opencode_program,
        remote=lambda to: _address(to, type="remote", enabled=True),
        command=lambda to: (
            *("opencode", "mcp", "add", to.name, "--url", to.url),
            *_header_options(to, "{}={}"),
        ),
    ),
    Client(
        "copilot-cli",
        "Copilot CLI",
        "~/.copilot/mcp-config.json",
        _in_home(".copilot", "mcp-config.json"),
        local=lambda to: _program(to, type="local", tools=["*"]),
        remote=lambda to: _address(to, type="http", tools=["*"]),
        command=lambda to: (
            *("copilot", "mcp", "add", "--transport", "http"),
            *(*_header_options(to, "{}: {}"), to.name, to.url),
        ),
    ),
    Client(
        "qwen-code",
        "Qwen Code",
        "~/.qwen/settings.json",
        _in_home(".qwen", "settings.json"),
        remote=lambda to: _address(to, url="httpUrl"),
        command=lambda to: _added_by("qwen", to),
    ),
    Client(
        "cline",
        "Cline",
        "cline_mcp_settings.json (MCP Servers, Configure, Configure MCP Servers)",
        _in_home(".cline", "data", "settings", "cline_mcp_settings.json"),
        local=lambda to: _program(to, type="stdio"),
        remote=lambda to: _address(to, type="streamableHttp"),
    ),
    Client(
        "continue",
        "Continue",
        "~/.continue/config.yaml",
        _in_home(".continue", "config.yaml"),
        format=yaml_config,
        local=lambda to: {"name": to.name, **_program(to, type="stdio")},
        remote=_continue_address,
    ),
    Client(
        "goose",
        "Goose",
        "~/.config/goose/config.yaml; on Windows %APPDATA%\\Block\\goose\\config\\config.yaml",
        {
            "linux": (".config", "goose", "config.yaml"),
            "win32": (_ROAMING, "Block", "goose", "config", "config.yaml"),
        },
        section="extensions",
        format=yaml_config,
        local=_goose_program,
        remote=lambda to: _goose_entry("streamable_http", to, uri=to.url, headers=dict(to.headers)),
        link=_goose_link,
    ),
    Client(
        "lm-studio",
        "LM Studio",
        "mcp.json (Program, Install, Edit mcp.json)",
        _in_home(".lmstudio", "mcp.json"),
        remote=_address,
        link=lambda to: (
            "lmstudio://add_mcp?" + urlencode({"name": to.name, "config": _base64(_address(to))})
        ),
    ),
    Client(
        "jetbrains",
        "JetBrains",
        "Settings, Tools, AI Assistant, Model Context Protocol (MCP), Add, As JSON",
    ),
    Client(
        "amp",
        "Amp",
        "~/.config/amp/settings.json",
        _in_home(".config", "amp", "settings.json"),
        section="amp.mcpServers",
        remote=_address,
        command=lambda to: (
            *("amp", "mcp", "add", to.name),
            *(*_header_options(to, "{}={}"), to.url),
        ),
    ),
    Client(
        "open-webui",
        "Open WebUI",
        "a file for mcpo: mcpo --port 8000 --config FILE; then its URL in Settings, Tools",
        remote=lambda to: _address(to, type="streamable-http"),
    ),
)
CLIENTS: Mapping[str, Client] = {client.name: client for client in _CLIENTS}
