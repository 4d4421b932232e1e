"""Entry point of the command: the bridge itself starts without what only subcommands use."""

import os
import sys

from pvemcp_bridge import __version__

__all__ = ["main"]

COMMANDS = ("doctor", "install", "login", "logout")
_HELP = ("--help", "-h")


def main() -> None:
    """Run `pvemcp-bridge`."""
    arguments = sys.argv[1:]
    if "--version" in arguments:
        sys.stdout.write(f"pvemcp-bridge {__version__}\n")
    elif set(arguments) & set(_HELP) or _command_in(arguments):
        from pvemcp_bridge import cli

        cli.run(arguments)
    else:
        _run_bridge(arguments)


def _command_in(arguments: list[str]) -> bool:
    """Return whether the first argument that is no option is a command."""
    if not set(arguments) & set(COMMANDS):
        return False
    from pvemcp_bridge import options

    return options.first_positional(arguments) in COMMANDS


def _run_bridge(arguments: list[str]) -> None:
    from pvemcp_bridge import logs, options  # `--version` needs none of these
    from pvemcp_bridge.run import run
    from pvemcp_bridge.target import BadTarget

    if sys.stdin is None or sys.stdout is None:
        raise SystemExit("pvemcp-bridge: Standard input or output is closed: a client opens both.")
    try:
        settings = options.settings(options.parse(arguments), os.environ)
    except BadTarget as error:
        sys.stderr.write(f"pvemcp-bridge: {error} See pvemcp-bridge --help.\n")
        raise SystemExit(2) from None
    mask = logs.Masker(settings.target.secrets)
    try:
        logs.start(settings.log_level, settings.log_file, mask)
    except OSError as error:
        sys.stderr.write(f"pvemcp-bridge: {options.unwritable_log(settings, error)}\n")
        raise SystemExit(2) from None
    run(settings.target, mask)
