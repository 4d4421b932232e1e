"""Values that commands read: secrets from files, JSON from the command line or a file."""

import json
import sys
from pathlib import Path
from typing import Any

from pvemcp_server.errors import BadArgument


def read_secret(path: Path, option: str) -> str:
    """Return the secret in a file, without the line's end; `-` is standard input.

    Secrets are never options themselves: other users can see the command line of a process.
    """
    try:
        return (sys.stdin.read() if str(path) == "-" else path.read_text()).strip()
    except OSError as error:
        raise BadArgument(option, f"{path}: {error.strerror}.") from error


def read_object(argument: str, text: str, example: str) -> dict[str, Any]:
    """Return a JSON object from the command line, or from a file with `@FILE`."""
    try:
        content = Path(text[1:]).read_text() if text.startswith("@") else text
        value = json.loads(content)
    except (OSError, ValueError) as error:
        raise BadArgument(argument, f"{error}.") from None
    if not isinstance(value, dict):
        raise BadArgument(argument, f"an object, as {example}.")
    return value
