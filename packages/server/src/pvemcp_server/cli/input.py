"""Values that commands read: secrets from files, JSON from the command line or a file."""

import codecs
import json
import sys
from pathlib import Path
from typing import Any

from pvemcp_server.errors import BadArgument


def read_secret(path: Path, option: str) -> str:
    """Return the secret in a file, without the line's end; `-` is standard input.

    Secrets are never options themselves: other users can see the command line of a process.
    """
    secret = read_text(path, option).strip()
    if not secret:
        raise BadArgument(option, f"{path} is empty.")
    return secret


def read_text(path: Path, option: str) -> str:
    """Return the text of a file in UTF-8 or, with its mark, UTF-16; `-` is standard input."""
    try:
        if str(path) == "-":
            return sys.stdin.read()
        content = path.read_bytes()
        is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if is_wide else "utf-8-sig")
    except IsADirectoryError:
        raise BadArgument(option, f"{path} is a folder; name a file.") from None
    except OSError as error:
        raise BadArgument(option, f"{path}: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise BadArgument(option, f"{path}: it is not text in UTF-8; save it so.") from None


def read_json(argument: str, text: str) -> Any:
    """Return the value of a JSON text; raise BadArgument that names where it ends being one."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise BadArgument(argument, f"this is not JSON ({place}: {error.msg}).") from None
    except (ValueError, RecursionError):
        message = "a number in it is too long, or it is nested too deeply."
        raise BadArgument(argument, message) from None


def read_object(argument: str, text: str, example: str) -> dict[str, Any]:
    """Return a JSON object from the command line, or from a file with `@FILE`."""
    content = read_text(Path(text[1:]), argument) if text.startswith("@") else text
    value = read_json(argument, content)
    if not isinstance(value, dict):
        raise BadArgument(argument, f"an object, as {example}.")
    return value
