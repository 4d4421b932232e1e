"""Secrets come from files or standard input: what stands on a command line, everybody can read."""

import sys
from pathlib import Path

from pvemcp_server.errors import BadArgument


def read_secret(path: Path, option: str) -> str:
    """The secret in the file, - being standard input, without the line's end."""
    try:
        return (sys.stdin.read() if str(path) == "-" else path.read_text()).strip()
    except OSError as error:
        raise BadArgument(option, f"{path}: {error.strerror}.") from error
