"""The subcommands, by Typer; carrying messages itself needs none of this."""

import asyncio
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pvemcp_bridge import clients, install, logs, options
from pvemcp_bridge.doctor import examine
from pvemcp_bridge.options import OPTIONS, Option, Settings
from pvemcp_bridge.target import BadTarget

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

ClientName = Annotated[str, typer.Option("--client", help=f"One of {', '.join(clients.CLIENTS)}.")]
ServerName = Annotated[str, typer.Option("--name", help="The server's name in the client.")]
PrintOnly = Annotated[bool, typer.Option("--print", help="Show the change, write nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")]

_FILES = ("api_key_file", "ca", "log_file")


def _takes_options(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of the bridge, as `options` declares them."""
    signature = inspect.signature(function)
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    parameters = [*own, *(_parameter(option) for option in OPTIONS)]
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # Typer reads it
    function.__annotations__ = {one.name: one.annotation for one in parameters}
    return function


def _parameter(option: Option) -> inspect.Parameter:
    kind = bool if option.is_switch else list[str] if option.many else str
    default = False if option.is_switch else [] if option.many else ""
    shown = typer.Option(
        *option.flags,
        help=f"{option.help} ({option.variable})",
        metavar=option.metavar or None,
        show_default=False,
    )
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, shown],
    )


def _settings(given: Mapping[str, Any]) -> Settings:
    try:
        return options.settings(given, os.environ)
    except BadTarget as error:
        typer.echo(f"pvemcp-bridge: {error}", err=True)
        raise typer.Exit(2) from None


@app.callback(invoke_without_command=True)
@_takes_options
def carry(**_given: Any) -> None:
    """Carry MCP messages between standard input and output and a server's HTTP endpoint.

    Without a command it carries; a client starts it so. `--version` tells the version.
    """


@app.command()
@_takes_options
def doctor(**given: Any) -> None:
    """Try the server: reach, TLS, key, protocol, tools, latency."""
    chosen = _settings(given)
    mask = logs.masker(chosen.target.secrets)
    logs.start("error", chosen.log_file, mask)
    if not asyncio.run(_examine(chosen, mask)):
        raise typer.Exit(1)


async def _examine(chosen: Settings, mask: Callable[[str], str]) -> bool:
    well = True
    async for finding in examine(chosen.target, mask):
        well = well and finding.ok
        typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name:<9} {mask(finding.text)}")
    return well


@app.command(name="install")
@_takes_options
def install_(
    client: ClientName,
    name: ServerName = "pvemcp",
    print_only: PrintOnly = False,
    yes: Yes = False,
    **given: Any,
) -> None:
    """Write this bridge into a client's configuration. The change is shown before."""
    chosen = _settings(given)
    if client not in clients.CLIENTS:
        raise typer.BadParameter(f"One of {', '.join(clients.CLIENTS)}.", param_hint="--client")
    known = clients.CLIENTS[client]
    path = clients.own_path(known)
    server = clients.server_config(known, install.own_command(), _environment(given))
    before = path.read_text("utf-8-sig") if path.exists() else ""
    try:
        after = install.changed(before, known.servers_key, name, server)
    except install.Unusable as error:
        typer.echo(f"{path}: {error} Nothing was changed.", err=True)
        raise typer.Exit(1) from None
    mask = logs.masker(chosen.target.secrets)
    typer.echo(install.difference(before, after, path, mask) or f"{path} is as it should be.")
    if print_only or before == after:
        return
    if not yes and not typer.confirm(f"Write this for {known.title}?"):
        raise typer.Exit(1)
    _write(path, after, known)


def _write(path: Path, text: str, client: clients.Client) -> None:
    backup = install.write(path, text)
    typer.echo(
        f"Written. {f'The former file is {backup}. ' if backup else ''}Restart {client.title}."
    )


def _environment(given: Mapping[str, Any]) -> dict[str, str]:
    """What the client is to start the bridge with: all that was given here, by either way."""
    environment = {}
    for option in OPTIONS:
        value = given.get(option.name) or os.environ.get(option.variable, "")
        if option.name in _FILES and value:
            value = Path(value).resolve()
        if value:
            text = "\n".join(value) if isinstance(value, list) else str(value)
            environment[option.variable] = text.lower() if option.is_switch else text
    return environment
