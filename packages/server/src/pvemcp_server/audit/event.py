"""Events and entries of the audit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from pvemcp_server.audit.mask import mask, mask_text

LONGEST_TEXT = 1_000
LONGEST_ARGUMENTS = 16_000
_to_json = json.JSONEncoder(separators=(",", ":"), default=str).encode


class Kind(StrEnum):
    """The kind of an audit row."""

    CALL = "call"  # a finished call that changed nothing
    INTENT = "intent"  # a write that is about to be sent to Proxmox
    OUTCOME = "outcome"  # how that write ended
    REFUSED = "refused"  # a refused attempt
    ADMIN = "admin"  # a change made by an administrator
    RETENTION = "retention"  # old entries were deleted
    BREAK = "break"  # the head mark was found changed before an append


class Outcome(StrEnum):
    """How a call ended."""

    OK = "ok"
    ERROR = "error"
    REFUSED = "refused"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A call, an attempt or a change.

    `arguments` are masked already, because only the caller knows the secret fields of its model;
    values that look like a secret are masked here again.
    """

    tool: str
    key_id: str | None = None
    key_name: str | None = None
    address: str | None = None
    client: str | None = None
    cluster: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome | None = None
    reason: str | None = None
    rows: int | None = None
    bytes: int | None = None
    duration_ms: int | None = None
    upid: str | None = None

    def columns(self) -> dict[str, Any]:
        """Return the columns to store: limited in length, valid text and without secrets."""
        return {
            "key_id": _short(self.key_id, 8),
            "key_name": _short(self.key_name),
            "address": _short(self.address, 64),
            "client": _short(self.client),
            "tool": _short(self.tool),
            "cluster": _short(self.cluster),
            "arguments": _arguments(self.arguments),
            "outcome": self.outcome and self.outcome.value,
            "reason": _short(self.reason),
            "rows": self.rows,
            "bytes": self.bytes,
            "duration_ms": self.duration_ms,
            "upid": _short(self.upid),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry of the audit: an event; a write together with its outcome."""

    seq: int
    kind: Kind
    call_id: str
    at: datetime
    key_id: str | None
    key_name: str | None
    address: str | None
    client: str | None
    tool: str | None
    cluster: str | None
    arguments: Mapping[str, Any]
    outcome: str | None  # None: a write without a recorded outcome
    reason: str | None
    rows: int | None
    bytes: int | None
    duration_ms: int | None
    upid: str | None


def _short(text: str | None, longest: int = LONGEST_TEXT) -> str | None:
    """Mask and shorten the text; replace surrogates and NUL, which databases reject."""
    if text is None:
        return None
    clean = mask_text(text)
    if not clean.isascii():
        clean = clean.encode("utf-8", "replace").decode()
    clean = clean.replace("\0", "�")
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


def _arguments(arguments: Mapping[str, Any]) -> str:
    text = _to_json(mask(arguments))
    return text if len(text) <= LONGEST_ARGUMENTS else _to_json({"cut": text[:LONGEST_ARGUMENTS]})
