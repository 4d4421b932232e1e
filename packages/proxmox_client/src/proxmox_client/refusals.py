"""What Proxmox means by an answer that is not a success.

Proxmox puts its message in the status line, and says 500 for much that is not an error of its own:
what does not exist, what exists already, what is locked, an unknown node.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from proxmox_client.errors import (
    BadParameters,
    Conflict,
    Forbidden,
    NodeUnreachable,
    NoQuorum,
    NotFound,
    ResponseError,
    Unauthenticated,
)
from proxmox_client.paths import node_of

# what one node says of its connection to another
_BETWEEN_NODES = {595, 596, 597, 598, 599}
_PERMISSION = re.compile(r"Permission check failed \((?P<path>/[^,()]*), (?P<privileges>[^()]+)\)")
# said of tasks and backup jobs, as if the identifier were malformed
_MISSING = re.compile(r"no such (task|job)", re.IGNORECASE)
_MEANINGS: tuple[tuple[re.Pattern[str], type[ResponseError]], ...] = tuple(
    (re.compile(text, re.IGNORECASE), error)
    for text, error in (
        (r"no quorum", NoQuorum),
        (r"already (exists|running|defined|used|in use)|reserved name", Conflict),
        (r"does ?n[o']t exist|no such|not found|hostname lookup .* failed", NotFound),
        (r"unable to find|binary not installed|not defined", NotFound),
        (r"is locked|can't lock|got (lock )?timeout|lock request timeout", Conflict),
        (
            r"not running|is running|running VM|checksum mismatch|agent configured|is not empty",
            Conflict,
        ),
        (r"protection mode|refusing to", Conflict),
    )
)


def refusal(path: str, status: int, reason: str, body: bytes) -> ResponseError:
    """The error that fits a response of 400 or more."""
    told = _told(body)
    errors = _errors(told)
    message = _message(told, reason, status)
    node = node_of(path)
    match status:
        case 401:
            return Unauthenticated(status, reason, message, errors)
        case 403:
            found = _PERMISSION.search(message)
            where = found["path"] if found else ""
            privileges = re.split(r"[|,\s]+", found["privileges"]) if found else ()
            return Forbidden(status, reason, message, errors, path=where, privileges=privileges)
        case _ if status in _BETWEEN_NODES:
            return NodeUnreachable(status, reason, message, errors, node=node)
        case 400:
            return _bad_parameters(reason, message, errors)
        case _:
            return _by_text(status, reason, message)(status, reason, message, errors)


def _bad_parameters(reason: str, message: str, errors: dict[str, str]) -> ResponseError:
    missing = next(filter(_MISSING.match, errors.values()), None)
    if missing is not None:
        return NotFound(400, reason, missing, errors)
    named = "; ".join(f"{name}: {text}" for name, text in errors.items())
    return BadParameters(400, reason, f"{message} {named}".strip(), errors)


def _by_text(status: int, reason: str, message: str) -> type[ResponseError]:
    if status == 404:
        return NotFound
    if status == 501:
        return ResponseError
    text = f"{reason}\n{message}"
    return next((error for known, error in _MEANINGS if known.search(text)), ResponseError)


def _told(body: bytes) -> Mapping[str, Any]:
    try:
        told = json.loads(body)
    except ValueError:  # empty, plain text or HTML: the status line has it all
        return {}
    return told if isinstance(told, dict) else {}


def _message(told: Mapping[str, Any], reason: str, status: int) -> str:
    text = told.get("message")
    message = " ".join(text.split()) if isinstance(text, str) else ""
    return message or reason.strip() or f"HTTP status {status}"


def _errors(told: Mapping[str, Any]) -> dict[str, str]:
    errors = told.get("errors")
    if not isinstance(errors, dict):
        return {}
    return {name: " ".join(str(text).split()) for name, text in errors.items()}
