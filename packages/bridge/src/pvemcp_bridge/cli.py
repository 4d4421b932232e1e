"""Subcommands and help; the bridge itself starts without this module."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, TextIO

from pvemcp_bridge import clients, config_file, logs, options
from pvemcp_bridge.clients import Client, Connection
from pvemcp_bridge.doctor import examine
from pvemcp_bridge.errors import BridgeError
from pvemcp_bridge.oauth import sign_in
from pvemcp_bridge.options import OPTIONS, Settings
from pvemcp_bridge.target import BadTarget

__all__ = ["run"]

_PRINT = "Show the change, write nothing."
_YES = "Write without confirmation."
_FILE_OPTIONS = ("api_key_file", "ca", "log_file")
_ABOUT = """Forward MCP messages between standard input and output and a server's HTTP endpoint.

A client starts it without a command. `--version` shows the version.
"""


def run(arguments: Sequence[str]) -> None:
    """Run a subcommand, or show the help; the exit code is 2 for a bad command line.

    An output that was closed loses what is printed; one that fails ends the command.
    """
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or sys.stdout
    try:
        _run(arguments)
    except BrokenPipeError:  # the reader of a pipe has gone
        sys.stdout = _nowhere()  # else Python flushes the old one at the end, and reports that
        raise SystemExit(1) from None
    except OSError as error:
        _fail(f"pvemcp-bridge: {error.strerror or error}: {error.filename or 'the output'}.")


def _nowhere() -> TextIO:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _run(arguments: Sequence[str]) -> None:
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # code pages of Windows lack most characters
    values = vars(_parser().parse_args(arguments))
    command: Callable[[Mapping[str, Any]], None] = values.pop("run")
    command(values)


def _parser() -> argparse.ArgumentParser:
    # without defaults, which would replace what stands before the command
    own = options.Parser(add_help=False, argument_default=argparse.SUPPRESS)
    for option in OPTIONS:
        kind: dict[str, Any] = {"action": "store_true"}
        if not option.is_switch:
            kind = {"action": "append" if option.many else "store", "metavar": option.metavar}
        text = f"{option.help} ({option.variable})".replace("%", "%%")
        own.add_argument(*option.flags, dest=option.name, help=text, **kind)
    form: dict[str, Any] = {
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }
    parser = options.Parser("pvemcp-bridge", description=_ABOUT, parents=[own], **form)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (command, about) in _COMMANDS.items():
        each = commands.add_parser(name, help=about, description=about, parents=[own], **form)
        each.set_defaults(run=command)
        if command is install:
            each.epilog = f"Clients: {', '.join(clients.CLIENTS)}."
            each.formatter_class = argparse.HelpFormatter
            each.add_argument("--client", required=True, metavar="NAME", help="The client.")
            each.add_argument("--name", default="pvemcp", help="The server's name in the client.")
            each.add_argument("--print", action="store_true", dest="print_only", help=_PRINT)
            each.add_argument("--yes", "-y", action="store_true", help=_YES)
    return parser


def _show(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _fail(text: str, code: int = 1) -> NoReturn:
    sys.stderr.write(f"{text}\n")
    raise SystemExit(code)


def _settings(arguments: Mapping[str, Any]) -> Settings:
    try:
        return options.settings(arguments, os.environ)
    except BadTarget as error:
        _fail(f"pvemcp-bridge: {error}", 2)


def _start_log(level: str, settings: Settings) -> logs.Masker:
    """Start the log of a command; return what masks secrets in its output."""
    mask = logs.Masker(settings.target.secrets)
    try:
        logs.start(level, settings.log_file, mask)
    except OSError as error:
        _fail(f"pvemcp-bridge: {options.unwritable_log(settings, error)}", 2)
    return mask


def doctor(arguments: Mapping[str, Any]) -> None:
    """Report each step of a connection to the server; exit with 1 after one that fails."""
    settings = _settings(arguments)
    mask = _start_log("error", settings)

    async def report() -> bool:
        ok = True
        async for finding in examine(settings.target, mask):
            ok = ok and finding.ok
            status = "FAIL" if not finding.ok else "warn" if finding.is_warning else "ok  "
            _show(f"{status}  {finding.name:<9} {mask(logs.printable(finding.text))}")
        return ok

    if not asyncio.run(report()):
        raise SystemExit(1)


def login(arguments: Mapping[str, Any]) -> None:
    """Sign in with a browser, or with the address that it ends at."""
    settings = _settings(arguments)
    mask = _start_log("warning", settings)
    read_line = None
    if sys.stdin.isatty():
        _show("If your browser is on another computer, paste the address it ends at here.")
        read_line = _read_line
    try:
        text = asyncio.run(sign_in.login(settings.target, mask, read_line))
    except BridgeError as error:
        _fail(f"pvemcp-bridge: {mask(logs.printable(str(error)))}")
    _show(logs.printable(text))


def _read_line() -> str:
    """Return a line of the terminal; a lock of `sys.stdin` would keep the process alive."""
    return os.read(0, 1 << 14).decode("utf-8", "replace")


def logout(arguments: Mapping[str, Any]) -> None:
    """Revoke the tokens of a sign-in and delete them."""
    settings = _settings(arguments)
    text, ok = asyncio.run(sign_in.logout(settings.target))
    if not ok:
        _fail(logs.printable(text))
    _show(logs.printable(text))


def install(arguments: Mapping[str, Any]) -> None:
    """Add the bridge to a client's configuration, after the change was shown and confirmed."""
    settings = _settings(arguments)
    client = clients.CLIENTS.get(arguments["client"])
    if client is None:
        _fail(f"pvemcp-bridge: --client is one of {', '.join(clients.CLIENTS)}.", 2)
    values = _environment(arguments)
    server = Connection(
        url=values.pop("MCP_URL", ""),
        key=values.pop("MCP_API_KEY", ""),
        name=arguments["name"],
        command=config_file.bridge_command(),
        options=values,
    )
    mask = logs.Masker(settings.target.secrets)
    path = clients.config_path(client)
    if path is None:
        hint = ", with the key in place of ***" if server.key else ""
        _show(f"{client.title} has no file for this. Add it in {client.place}{hint}:\n")
        _show(_shown(client.text(server), mask))
        return
    before, after = _changed(client, server, path, mask)
    own = client.text(server)
    shown = config_file.diff(before, after, path, own, client.format.hidden, mask)
    _show(_shown(shown or f"{path} is up to date.", mask))
    if arguments["print_only"] or before == after:
        return
    if not arguments["yes"] and not _confirmed(f"Write this for {client.title}? [y/N] "):
        raise SystemExit(1)
    try:
        backup = config_file.write(path, after)
    except OSError as error:
        _fail(f"{path} cannot be written: {error.strerror}. Nothing was changed.")
    saved = f"The old file is {backup}. " if backup else ""
    _show(f"Written. {saved}Restart {client.title}.")


def _changed(client: Client, server: Connection, path: Path, mask: logs.Masker) -> tuple[str, str]:
    """Return the client's file and the same with the server; end the command if it is unusable."""
    try:
        # not read_text, which would replace the line ends of Windows
        before = path.read_bytes().decode("utf-8-sig") if path.exists() else ""
        return before, client.with_server(before, server)
    except (config_file.UnusableConfig, UnicodeDecodeError) as error:
        _fail(
            f"{path}: {error} Nothing was changed. Add this by hand, "
            f"with the key in place of ***:\n\n{_shown(client.text(server), mask)}"
        )
    except OSError as error:
        _fail(f"{path} cannot be read: {error.strerror}. Nothing was changed.")


def _shown(text: str, mask: logs.Masker) -> str:
    return "\n".join(logs.printable(line) for line in mask(text).split("\n"))


def _confirmed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


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


_COMMANDS: Mapping[str, tuple[Callable[[Mapping[str, Any]], None], str]] = {
    "doctor": (doctor, "Test the server: reach, TLS, key, protocol, tools, latency."),
    "login": (login, "Sign in with your own account, in a browser on this computer."),
    "logout": (logout, "End your sign-in: revoke its tokens and delete them."),
    "install": (
        install,
        "Add this bridge to a client's configuration; shows the change first.",
    ),
}
