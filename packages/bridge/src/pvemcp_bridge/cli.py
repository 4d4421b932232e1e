"""Subcommands and help, with Typer; the bridge itself starts without this module."""

import asyncio
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pvemcp_bridge import clients, config_file, logs, options
from pvemcp_bridge.doctor import examine
from pvemcp_bridge.errors import BridgeError
from pvemcp_bridge.oauth import sign_in
from pvemcp_bridge.options import OPTIONS, Option, Settings
from pvemcp_bridge.target import BadTarget

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

ClientName = Annotated[str, typer.Option("--client", help=f"One of {', '.join(clients.CLIENTS)}.")]
ServerName = Annotated[str, typer.Option("--name", help="The server's name in the client.")]
PrintOnly = Annotated[bool, typer.Option("--print", help="Show the change, write nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Write without confirmation.")]

_FILE_OPTIONS = ("api_key_file", "ca", "log_file")


def _takes_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the bridge, as `options` declares them, to a command."""
    signature = inspect.signature(function)
    own = [item for item in signature.parameters.values() if item.kind is not item.VAR_KEYWORD]
    parameters = [*own, *(_parameter(option) for option in OPTIONS)]
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # Typer reads it
    function.__annotations__ = {item.name: item.annotation for item in parameters}
    return function


def _parameter(option: Option) -> inspect.Parameter:
    kind = bool if option.is_switch else list[str] if option.many else str
    default = False if option.is_switch else [] if option.many else ""
    typer_option = typer.Option(
        *option.flags,
        help=f"{option.help} ({option.variable})",
        metavar=option.metavar or None,
        show_default=False,
    )
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, typer_option],
    )


def _settings(arguments: Mapping[str, Any]) -> Settings:
    try:
        return options.settings(arguments, os.environ)
    except BadTarget as error:
        typer.echo(f"pvemcp-bridge: {error}", err=True)
        raise typer.Exit(2) from None


def _start_log(level: str, settings: Settings) -> logs.Masker:
    """Start the log of a command; return what masks secrets in its output."""
    mask = logs.Masker(settings.target.secrets)
    try:
        logs.start(level, settings.log_file, mask)
    except OSError as error:
        typer.echo(f"pvemcp-bridge: The log file cannot be written: {error}.", err=True)
        raise typer.Exit(2) from None
    return mask


@app.callback(invoke_without_command=True)
@_takes_options
def run(**_arguments: Any) -> None:
    """Forward MCP messages between standard input and output and a server's HTTP endpoint.

    A client starts it without a command. `--version` shows the version.
    """


@app.command()
@_takes_options
def doctor(**arguments: Any) -> None:
    """Test the server: reach, TLS, key, protocol, tools, latency."""
    settings = _settings(arguments)
    mask = _start_log("error", settings)

    async def report() -> bool:
        ok = True
        async for finding in examine(settings.target, mask):
            ok = ok and finding.ok
            status = "FAIL" if not finding.ok else "warn" if finding.is_warning else "ok  "
            typer.echo(f"{status}  {finding.name:<9} {mask(logs.printable(finding.text))}")
        return ok

    if not asyncio.run(report()):
        raise typer.Exit(1)


@app.command()
@_takes_options
def login(**arguments: Any) -> None:
    """Sign in with your own account, in a browser on this computer."""
    settings = _settings(arguments)
    mask = _start_log("warning", settings)
    read_line = None
    if sys.stdin.isatty():
        typer.echo("If your browser is on another computer, paste the address it ends at here.")
        read_line = _read_line
    try:
        text = asyncio.run(sign_in.login(settings.target, mask, read_line))
    except BridgeError as error:
        typer.echo(f"pvemcp-bridge: {mask(logs.printable(str(error)))}", err=True)
        raise typer.Exit(1) from None
    typer.echo(logs.printable(text))


def _read_line() -> str:
    """Return a line of the terminal; a lock of `sys.stdin` would keep the process alive."""
    return os.read(0, 1 << 14).decode("utf-8", "replace")


@app.command()
@_takes_options
def logout(**arguments: Any) -> None:
    """End your sign-in: revoke its tokens and forget them."""
    settings = _settings(arguments)
    text, ok = asyncio.run(sign_in.logout(settings.target))
    typer.echo(logs.printable(text), err=not ok)
    if not ok:
        raise typer.Exit(1)


@app.command()
@_takes_options
def install(
    client: ClientName,
    name: ServerName = "pvemcp",
    print_only: PrintOnly = False,
    yes: Yes = False,
    **arguments: Any,
) -> None:
    """Add this bridge to a client's configuration. The change is shown before."""
    settings = _settings(arguments)
    if client not in clients.CLIENTS:
        raise typer.BadParameter(f"One of {', '.join(clients.CLIENTS)}.", param_hint="--client")
    target_client = clients.CLIENTS[client]
    path = clients.config_path(target_client)
    server = clients.server_config(
        target_client, config_file.bridge_command(), _environment(arguments)
    )
    try:
        # not read_text, which would replace the line ends of Windows
        before = path.read_bytes().decode("utf-8-sig") if path.exists() else ""
        after = config_file.with_server(before, target_client.servers_key, name, server)
    except (config_file.UnusableConfig, UnicodeDecodeError) as error:
        typer.echo(f"{path}: {error} Nothing was changed.", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        typer.echo(f"{path} cannot be read: {error.strerror}. Nothing was changed.", err=True)
        raise typer.Exit(1) from None
    mask = logs.Masker(settings.target.secrets)
    shown = config_file.diff(before, after, path, server, mask) or f"{path} is up to date."
    for line in shown.split("\n"):
        typer.echo(logs.printable(line))
    if print_only or before == after:
        return
    if not yes and not typer.confirm(f"Write this for {target_client.title}?"):
        raise typer.Exit(1)
    try:
        backup = config_file.write(path, after)
    except OSError as error:
        typer.echo(f"{path} cannot be written: {error.strerror}. Nothing was changed.", err=True)
        raise typer.Exit(1) from None
    saved = f"The old file is {backup}. " if backup else ""
    typer.echo(f"Written. {saved}Restart {target_client.title}.")


def _environment(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables for the client: all options set here, as argument or as variable."""
    environment = {}
    for option in OPTIONS:
        value = arguments.get(option.name) or os.environ.get(option.variable, "")
        if option.name in _FILE_OPTIONS and value:
            value = Path(value).resolve()
        if value:
            text = "\n".join(value) if isinstance(value, list) else str(value)
            environment[option.variable] = text.lower() if option.is_switch else text
    return environment
