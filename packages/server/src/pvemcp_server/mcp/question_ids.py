"""Ids of questions in running calls, by which an answer finds the process that asked."""

import re
import secrets
from typing import Any, Final

_ID: Final = re.compile(r"ask-([0-9a-f]{8})-[\w-]{16}")


def new_id(process: str) -> str:
    """Return an id of which no other process can have the same: an answer is for one question."""
    return f"ask-{process}-{secrets.token_urlsafe(12)}"


def process_of(identifier: Any) -> str | None:
    """Return the process that has asked a question with this id; None for another id."""
    match = _ID.fullmatch(identifier) if isinstance(identifier, str) else None
    return match[1] if match else None
