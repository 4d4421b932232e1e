"""The command `pvemcp` and what it is divided into."""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_group

from pvemcp_server import __version__
from pvemcp_server.cli.deferred_gc import deferred_gc

MODULES: Final = {
    "serve": "serve",
    "run": "serve",
    "status": "status",
    "bridges": "status",
    "doctor": "maintenance",
    "backup": "maintenance",
    "restore": "maintenance",
    "claude-config": "maintenance",
    "keys": "keys",
    "roles": "roles",
    "clusters": "clusters",
    "settings": "settings",
    "queries": "queries",
    "audit": "audit",
    "notices": "status",
    "tools": "status",
    "admin": "admins",
    "secrets": "maintenance",
}


class Commands(Mapping[str, Any]):
    """Every command by its name, imported when it is meant: most of them know the whole server."""

    def __getitem__(self, name: str) -> Any:
        module = MODULES[name]
        group = _group(module)
        return group.commands.get(name) or _group(module, name)

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)


class Root(TyperGroup):
    """The command with all others below it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = Commands()  # type: ignore[assignment]  # typer asks, and never adds one


app = typer.Typer(
    name="pvemcp",
    cls=Root,
    help="The AI server for Proxmox VE.",
    epilog="Environment variables PVEMCP_* configure every command; "
    "see docs/reference/configuration.md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a trace shows local values, and those may be secrets
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"pvemcp {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """What holds for every command."""


@cache
def _group(module: str, name: str | None = None) -> TyperGroup:
    """What a module of this package declares; with a name when it is a command as a whole."""
    with deferred_gc():
        group = get_group(import_module(f"pvemcp_server.cli.{module}").app)
    group.name = name
    return group
