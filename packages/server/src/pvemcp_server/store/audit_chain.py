"""The hash chain of the audit: how rows and marks are hashed and verified, without I/O.

The hash of a row is an HMAC over the previous hash and the row's own columns, under a key from the
vault; a rotation begins a new key, and each row names the one of its time. An attacker who can
write to the database but lacks the master key can neither change a row nor compute a new chain. Two
marks, each with an HMAC as its seal, hold where the chain begins (after retention) and where it
ends, so that rows removed at either end are noticed as well. The attacker can put back an older row
of marks together with the rows of its time: that is found only against a newer head, which a
running process remembers and `audit_head` keeps outside the database.
"""

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pvemcp_server.store import records
from pvemcp_server.store.columns import microseconds

# a value of another type, which SQLite lets an attacker write, only makes another hash
_to_json = json.JSONEncoder(separators=(",", ":"), sort_keys=True, default=repr).encode
HEAD = "head"
BASE = "base"
CHAINED = tuple(
    column.name for column in records.audit.columns if column.name not in {"previous", "hash"}
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A position in the chain: the last row before it, and that row's hash."""

    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


GENESIS = Mark(0, "")


@dataclass(frozen=True, slots=True)
class Finding:
    """A violation of the chain: the row's number and what is wrong with it."""

    seq: int
    fact: str


def hash_of(key: bytes, previous: str, row: Mapping[str, Any]) -> str:
    """Return the hash of a row that follows the row with the hash `previous`."""
    # columns without a value are left out, so that a column added later changes no hash
    values = {name: _plain(row[name]) for name in CHAINED if row.get(name) is not None}
    return hmac.digest(key, _to_json([previous, values]).encode(), "sha256").hex()


def seal_of(key: bytes, name: str, mark: Mark) -> str:
    """Return the seal of the mark HEAD or BASE."""
    return hmac.digest(key, f"mark:{name}:{mark}".encode(), "sha256").hex()


def is_sealed(key: bytes, name: str, mark: Mark, seal: str) -> bool:
    """Return whether the seal belongs to the mark."""
    return hmac.compare_digest(seal_of(key, name, mark).encode(), str(seal).encode())


def verify_row(key: bytes | None, before: Mark, row: Mapping[str, Any]) -> list[Finding]:
    """Return what is wrong with a row that should follow `before`, and what a break row reports."""
    findings = violations(key, before, row)
    if row.get("kind") == "break":
        findings.append(Finding(row["seq"], str(row["reason"])))
    return findings


def violations(key: bytes | None, before: Mark, row: Mapping[str, Any]) -> list[Finding]:
    """Return what is wrong with a row that should follow `before`.

    `key` is the one that the row names; None when there is no such key. A row that cannot be read
    has its `seq` only.
    """
    seq: int = row["seq"]
    findings = []
    if "hash" not in row:
        return [Finding(seq, "was changed: it cannot be read")]
    if seq != before.seq + 1:
        gap = seq - before.seq - 1
        fact = "is missing" if gap == 1 else f"is missing, and all up to {seq - 1}"
        findings.append(Finding(before.seq + 1, fact))
    elif row["previous"] != before.hash:
        findings.append(Finding(seq, "does not follow the row before it"))
    if key is None or row["hash"] != hash_of(key, row["previous"], row):
        findings.append(Finding(seq, "was changed"))
    return findings


def _plain(value: Any) -> Any:
    return microseconds(value) if isinstance(value, datetime) else value
