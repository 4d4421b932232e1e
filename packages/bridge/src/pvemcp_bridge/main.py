"""Where the command starts: carrying messages at once, subcommands by Typer."""

import os
import sys

from pvemcp_bridge import __version__

__all__ = ["main"]

COMMANDS = ("doctor", "install")
_HELP = ("--help", "-h")


def main() -> None:
    """Runs `pvemcp-bridge`."""
    arguments = sys.argv[1:]
    if "--version" in arguments:
        sys.stdout.write(f"pvemcp-bridge {__version__}\n")
    elif arguments[:1] and (arguments[0] in COMMANDS or set(arguments) & set(_HELP)):
        # Typer takes longer to load than a session takes to open
        from pvemcp_bridge.cli import app

        app(prog_name="pvemcp-bridge")
    else:
        _carry(arguments)


def _carry(arguments: list[str]) -> None:
    from pvemcp_bridge import logs, options  # `--version` needs none of it
    from pvemcp_bridge.run import run
    from pvemcp_bridge.target import BadTarget

    try:
        chosen = options.settings(options.parse(arguments), os.environ)
    except BadTarget as error:
        sys.stderr.write(f"pvemcp-bridge: {error}\nTry `pvemcp-bridge --help`.\n")
        raise SystemExit(2) from None
    mask = logs.masker(chosen.target.secrets)
    try:
        logs.start(chosen.log_level, chosen.log_file, mask)
    except OSError as error:
        sys.stderr.write(f"pvemcp-bridge: The log file cannot be written: {error}.\n")
        raise SystemExit(2) from None
    run(chosen.target, mask)
