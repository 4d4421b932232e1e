"""Write docs/reference/clients.md: the configuration of every client that the bridge knows.

python scripts/make_docs_clients.py           write it
python scripts/make_docs_clients.py --check   fail when it is not current
"""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from pages import renew_or_check
from pvemcp_bridge.clients import CLIENTS, Client, Connection

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "clients.md"
TO = Connection("https://pve.example/mcp", "YOUR-API-KEY", command=("/full/path/pvemcp-bridge",))
INTRO = """\
# Configuration of clients

Generated from the declarations by `make docs`. The page *API Access* shows the same with a new key
and your own address.

`pvemcp-bridge install --client NAME --url URL` writes the entry that starts the
[bridge](../users/bridge.md). It keeps what else is in the file, also comments. A file in a style
that it cannot change safely stays unchanged, and it prints the entry instead.
"""
FORMATS = {"json_config": "json", "toml_config": "toml", "yaml_config": "yaml"}
SYSTEMS = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}
CHECKED: Mapping[str, str] = {
    "claude-code": "Claude Code 2.1.197 connected both ways, and by the command",
    "gemini-cli": "Gemini CLI 0.61.0 connected both ways, and by the command",
    "codex": "Codex 0.171.0 read both entries",
    "opencode": "opencode 1.18.33 connected both ways, and by the command",
    "copilot-cli": "Copilot CLI 1.0.102 read both entries, and took the command",
    "qwen-code": "Qwen Code 0.15.10 connected both ways, and by the command",
    "cline": "Cline 3.0.65 read both entries",
    "continue": "the schema in @continuedev/config-yaml 1.42.0 accepts both entries",
    "open-webui": "mcpo 0.0.20 accepts both entries",
    "amp": "Amp 0.0.1790142911 read both entries, and took the command",
}


def page() -> str:
    """Return the whole page."""
    return "\n".join([INTRO, *_overview(), *_clients()]).rstrip() + "\n"


def _overview() -> Iterator[str]:
    yield "| client | name | checked with the program |"
    yield "|---|---|---|"
    for client in CLIENTS.values():
        checked = CHECKED.get(client.name, "no: from its documentation")
        yield f"| {client.title} | `{client.name}` | {checked} |"
    yield ""


def _clients() -> Iterator[str]:
    for client in CLIENTS.values():
        yield f"## {client.title}\n"
        yield f"{client.place}\n"
        yield from _paths(client)
        if client.remote:
            yield "Over HTTP:\n"
            yield _block(client, client.text(TO, bridged=False))
        yield "With the bridge:\n"
        yield _block(client, client.text(TO))
        keyless = Connection(TO.url)
        if line := client.command_line(TO):
            yield f"In a terminal:\n\n```\n{line}\n```\n"
        elif line := client.command_line(keyless):
            yield f"In a terminal, to sign in instead of using a key:\n\n```\n{line}\n```\n"
        if client.link:
            yield "The page *API Access* has a link that adds it.\n"


def _paths(client: Client) -> Iterator[str]:
    if not client.paths:
        return
    yield "| system | file that `install` writes |"
    yield "|---|---|"
    for system, title in SYSTEMS.items():
        parts = client.paths.get(system, client.paths["linux"])
        path = PurePosixPath(*parts)
        shown = str(path) if parts[0].startswith("%") else f"~/{path}"
        other = f", or `{client.other_file}` where that exists" if client.other_file else ""
        yield f"| {title} | `{shown}`{other} |"
    yield ""


def _block(client: Client, text: str) -> str:
    language = FORMATS[client.format.__name__.rpartition(".")[2]]  # type: ignore[attr-defined]  # a module
    return f"```{language}\n{text}```\n"


if __name__ == "__main__":
    renew_or_check(PAGE, page())
