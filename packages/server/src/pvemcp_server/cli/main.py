"""The command `pvemcp` and its subcommands, each imported only when it is used."""

import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_group

from pvemcp_server import __version__
from pvemcp_server.admin import SUBJECTS
from pvemcp_server.cli.deferred_gc import deferred_gc
from pvemcp_server.cli.examples import complete_help
from pvemcp_server.cli.state_dir import StateDir, named
from pvemcp_server.cli.terminal import print_error, usable_streams
from pvemcp_server.errors import fact_of

_PLACES: Final = {
    "serve": "cli.serve",
    "run": "cli.serve",
    "status": "admin.overview",
    "bridges": "admin.bridge",
    "doctor": "admin.doctor",
    "backup": "cli.maintenance",
    "restore": "cli.maintenance",
    "claude-config": "cli.maintenance",
    "keys": "admin.keys",
    "connection-rules": "admin.connection_rules",
    "roles": "admin.roles",
    "clusters": "admin.clusters",
    "settings": "admin.settings",
    "queries": "admin.queries",
    "audit": "admin.audit",
    "notices": "admin.overview",
    "tools": "admin.tools",
    "admin": "admin.admins",
    "tokens": "admin.service_tokens",
    "secrets": "cli.maintenance",
}
MODULES: Final = _PLACES | {
    name: f"admin.{name}" for name in SUBJECTS if f"admin.{name}" not in _PLACES.values()
}
"""Module of each command: of `admin`, whose operations it is derived from, or of `cli`. Commands
of a subject that is not listed have the subject's name."""


class Commands(Mapping[str, Any]):
    """All commands by name. A command is imported on access: most of them need the whole server."""

    def __getitem__(self, name: str) -> Any:
        command = _group(MODULES[name]).commands[name]
        complete_help(command, name)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)


class Root(TyperGroup):
    """The command `pvemcp`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = Commands()  # type: ignore[assignment]  # typer only reads it

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command and exit; what Typer finds wrong is one line, also in help and completion.

        Typer itself would print the usage, a hint and the error in a box.
        """
        with usable_streams():
            try:
                code = super().main(*args, **{**options, "standalone_mode": False})
            except typer.TyperException as wrong:
                if message := " ".join(wrong.format_message().split()):  # else it was help
                    print_error(f"{message.rstrip(' .')}. {_where_help_is(wrong)}")
                code = wrong.exit_code
            except typer.Abort:
                print_error("Aborted.")
                code = 1
        sys.exit(code)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; name a wrong value without the words of the library that checks it."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as wrong:
            wrong.message = fact_of(wrong.message)
            raise

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options; those of the completion are added after the command was made."""
        complete_help(self)
        return super().get_params(ctx)


def _where_help_is(wrong: typer.TyperException) -> str:
    context = getattr(wrong, "ctx", None)  # missing in errors of no command
    return f"See {context.command_path if context else 'pvemcp'} --help."


app = typer.Typer(
    name="pvemcp",
    cls=Root,
    help="The AI server for Proxmox VE.",
    epilog="Environment variables PVEMCP_* configure every command; "
    "see docs/reference/configuration.md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a trace shows local values, and those may be secrets
)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"pvemcp {__version__}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    state_dir: StateDir = None,
) -> None:
    """Accept the options that precede a command."""
    del version  # its callback has shown it
    context.with_resource(named(state_dir))  # until the command has ended


@cache
def _group(module: str) -> TyperGroup:
    """Return the commands of a module."""
    package, _, name = module.partition(".")
    with deferred_gc():
        if package == "cli":
            return get_group(import_module(f"pvemcp_server.{module}").app)
        return get_group(import_module("pvemcp_server.cli.operations").app_of(name))
