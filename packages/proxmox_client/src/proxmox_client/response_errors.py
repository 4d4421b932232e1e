"""Error responses of Proxmox, mapped to the exceptions of this package.

Proxmox puts its message in the status line, and answers 500 for many errors of the caller: a
missing object, a name already in use, a lock, an unknown node. Their text identifies them.
"""

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from proxmox_client.errors import (
    AgentRefused,
    BadParameters,
    Conflict,
    Forbidden,
    MethodMissing,
    NodeUnreachable,
    NoQuorum,
    NotFound,
    OutdatedDigest,
    ResponseError,
    Unauthenticated,
    UnexpectedAnswer,
    means_no_quorum,
)
from proxmox_client.limits import node_of

# a node's report about its connection to another node
_PROXY_STATUSES = {595, 596, 597, 598, 599}
_PERMISSION = re.compile(r"Permission check failed \((?P<path>/[^,()]*), (?P<privileges>[^()]+)\)")
_LONGEST_TEXT = 1000
_LONGEST_BODY = 64 * 1024  # that is parsed: it takes time of the event loop
_LONGEST_MESSAGE = 4000
_MOST_PARAMETERS = 50
# a missing task or backup job, and a token that exists, are reported as malformed identifiers
_MISSING = re.compile(r"no such (task|job)", re.IGNORECASE)
_TAKEN = re.compile(r"token already exists", re.IGNORECASE)
_ERRORS_BY_TEXT: tuple[tuple[re.Pattern[str], type[ResponseError]], ...] = tuple(
    (re.compile(text, re.IGNORECASE), error)
    for text, error in (
        (r"^Agent error: |guest-[a-z-]+ has (not been found|been disabled)", AgentRefused),
        (r"already (exists|running|defined|used|in use)|reserved name", Conflict),
        (r"does ?n[o']t exist|no such|not found|hostname lookup .* failed", NotFound),
        (r"unable to find|binary not installed|not defined", NotFound),
        (r"is locked|can't lock|got (lock )?timeout|lock request timeout", Conflict),
        (r"checksum mismatch|detected modified configuration", OutdatedDigest),
        (r"not running|is running|running VM|agent configured|is not empty", Conflict),
        (r"protection mode|refusing to", Conflict),
    )
)


def response_error(path: str, status: int, reason: str, body: bytes) -> ResponseError:
    """Build the exception for a response with a status of 300 or more."""
    content = _parse_body(body)
    errors = _parameter_errors(content)
    message = _message(content, reason, status, body)
    match status:
        case 400:
            missing = next(filter(_MISSING.match, errors.values()), None)
            if missing is not None:
                return NotFound(400, reason, missing, errors)
            if taken := next(filter(_TAKEN.match, errors.values()), None):
                return Conflict(400, reason, taken, errors)
            listed = "; ".join(f"{name}: {text}" for name, text in errors.items())
            text = f"{message} {listed}".strip()[:_LONGEST_MESSAGE]
            return BadParameters(400, reason, text, errors)
        case 401:
            return Unauthenticated(status, reason, message, errors)
        case 403:
            denied = _PERMISSION.search(message[:_LONGEST_TEXT])
            return Forbidden(
                status,
                reason,
                message,
                errors,
                path=denied["path"] if denied else "",
                privileges=re.split(r"[|,\s]+", denied["privileges"]) if denied else (),
            )
        case 404:
            return NotFound(status, reason, message, errors)
        case 501:
            return MethodMissing(status, reason, message, errors)
        case _ if status in _PROXY_STATUSES:
            return NodeUnreachable(status, reason, message, errors, node=node_of(path))
        case _:
            # bounded: some of the patterns take quadratic time
            text = f"{reason[:_LONGEST_TEXT]}\n{message[:_LONGEST_TEXT]}"
            if means_no_quorum(text):
                return NoQuorum(status, reason, message, errors)
            kinds = (error for pattern, error in _ERRORS_BY_TEXT if pattern.search(text))
            return next(kinds, ResponseError)(status, reason, message, errors)


def undecodable(path: str, error: Exception) -> UnexpectedAnswer:
    """Build the exception for a success whose data is not what the path promises."""
    reason = str(error)[:_LONGEST_TEXT]  # which may repeat a value of any length
    return UnexpectedAnswer(200, "OK", f"The answer of {path} cannot be decoded: {reason}")


def _parse_body(body: bytes) -> Mapping[str, Any]:
    """Return the object in a body; none for a long one, of which no Proxmox has any."""
    try:
        content = json.loads(body) if len(body) <= _LONGEST_BODY else None
    except (ValueError, RecursionError):  # empty, text or HTML: the status line has the message
        return {}
    return content if isinstance(content, dict) else {}


def _message(content: Mapping[str, Any], reason: str, status: int, body: bytes) -> str:
    """Return Proxmox's message: of the JSON, else the body as text, else the status line.

    A backup server's status line has the standard phrase; its body is the message alone.
    """
    text = content.get("message", "" if content else body[:_LONGEST_TEXT].decode(errors="replace"))
    message = _line(text) if isinstance(text, str) else ""
    return message or reason.strip() or f"HTTP status {status}"


def _parameter_errors(content: Mapping[str, Any]) -> dict[str, str]:
    errors = content.get("errors")
    if not isinstance(errors, dict):
        return {}
    few = islice(errors.items(), _MOST_PARAMETERS)
    return {name[:_LONGEST_TEXT]: _line(str(text)) for name, text in few}


def _line(text: str) -> str:
    return " ".join(text[:_LONGEST_MESSAGE].split())
