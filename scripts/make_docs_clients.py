"""Write docs/reference/clients.md: the configuration of every client that the bridge knows.

python scripts/make_docs_clients.py           write it
python scripts/make_docs_clients.py --check   fail when it is not current
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import yaml

from pages import renew_or_check
from pvemcp_bridge.clients import CLIENTS, Client, Connection

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "clients.md"
FACTS = ROOT / "tests" / "bridge" / "accepted_entries.yaml"
TO = Connection("https://pve.example/mcp", "YOUR-API-KEY", command=("/full/path/pvemcp-bridge",))
INTRO = """\
# Configuration of clients

Generated from the declarations by `make docs`. The page *API Access* shows the same with a new key
and your own address.

`pvemcp-bridge install --client NAME --url URL` writes the entry that starts the
[bridge](../users/bridge.md). It keeps what else is in the file, also comments. A file in a style
that it cannot change safely stays unchanged, and it prints the entry instead.

Where the program itself could not be run, the entries are tested against the schema that its vendor
publishes, the types of its source at a commit, or the fields that its documentation names.
"""
FORMATS = {"json_config": "json", "toml_config": "toml", "yaml_config": "yaml"}
SYSTEMS = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}


def page() -> str:
    """Return the whole page."""
    return "\n".join([INTRO, *_overview(), *_clients()]).rstrip() + "\n"


def _overview() -> Iterator[str]:
    yield "| client | name | checked by | |"
    yield "|---|---|---|---|"
    facts = yaml.safe_load(FACTS.read_text(encoding="utf-8"))
    for client in CLIENTS.values():
        kind, _, detail = facts[client.name]["checked"].partition(": ")
        yield f"| {client.title} | `{client.name}` | {kind} | {detail} |"
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
