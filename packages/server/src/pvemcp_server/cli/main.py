"""The command `pvemcp` and what it is divided into."""

from typing import Annotated

import typer

from pvemcp_server import __version__
from pvemcp_server.cli import (
    admins,
    audit,
    clusters,
    keys,
    looking,
    queries,
    roles,
    running,
    settings,
    upkeep,
)

app = typer.Typer(
    name="pvemcp",
    help="The AI server for Proxmox VE.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a trace shows local values, and those may be secrets
)
running.register(app)
looking.register(app)
for name, group in (
    ("keys", keys.app),
    ("roles", roles.app),
    ("clusters", clusters.app),
    ("settings", settings.app),
    ("queries", queries.app),
    ("audit", audit.app),
    ("admin", admins.app),
):
    app.add_typer(group, name=name)
upkeep.register(app)


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
    """Environment variables PVEMCP_* configure every command; see docs/configuration.md."""
