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
    elif arguments[:1] and (arguments[0] in COMMANDS or set(arguments) & set(_HELP)):
        from pvemcp_bridge import cli

        cli.run(arguments)
    else:
        _run_bridge(arguments)


def _run_bridge(arguments: list[str]) -> None:
    from pvemcp_bridge import logs, options  # `--version` needs none of these
    from pvemcp_bridge.run import run
    from pvemcp_bridge.target import BadTarget

    if sys.stdin is None or sys.stdout is None:
        raise SystemExit("pvemcp-bridge: Standard input or output is closed: a client opens both.")
    try:
        settings = options.settings(options.parse(arguments), os.environ)
    except BadTarget as error:
        sys.stderr.write(f"pvemcp-bridge: {error}\nTry `pvemcp-bridge --help`.\n")
        raise SystemExit(2) from None
    mask = logs.Masker(settings.target.secrets)
    try:
        logs.start(settings.log_level, settings.log_file, mask)
    except OSError as error:
        sys.stderr.write(f"pvemcp-bridge: {options.unwritable_log(settings, error)}\n")
        raise SystemExit(2) from None
    run(settings.target, mask)
