"""The arithmetic of the audit chain: what is hashed, sealed and compared.

Every row's hash is an HMAC over the hash before it and the row's own columns, under a key from the
vault: whoever can write to the database but lacks the master key can neither change a row nor
compute a new chain. Marks keep where the chain begins (after retention) and ends, sealed likewise.
"""

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pvemcp_server.store import schema
from pvemcp_server.store.columns import microseconds
from pvemcp_server.store.keyed_hash import keyed

_written = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode
HEAD = "head"
BASE = "base"
CHAINED = tuple(
    column.name for column in schema.audit.columns if column.name not in {"previous", "hash"}
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the chain: the last row before it, and that row's hash."""

    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


GENESIS = Mark(0, "")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in the chain that is not as it was written."""

    seq: int
    fact: str


def hash_of(key: bytes, previous: str, row: Mapping[str, Any]) -> str:
    # columns without a value are left out, so that a column added later changes no hash
    values = {name: _plain(row[name]) for name in CHAINED if row.get(name) is not None}
    return keyed(key, _written([previous, values]).encode()).hex()


def seal_of(key: bytes, name: str, mark: Mark) -> str:
    return keyed(key, f"mark:{name}:{mark}".encode()).hex()


def is_sealed(key: bytes, name: str, mark: Mark, seal: str) -> bool:
    return hmac.compare_digest(seal_of(key, name, mark), seal)


def compare(key: bytes, before: Mark, row: Mapping[str, Any]) -> list[Finding]:
    """What is wrong with a row that should follow `before`."""
    seq, found = row["seq"], []
    if seq != before.seq + 1:
        gap = seq - before.seq - 1
        fact = "is missing" if gap == 1 else f"is missing, and all up to {seq - 1}"
        found.append(Finding(before.seq + 1, fact))
    elif row["previous"] != before.hash:
        found.append(Finding(seq, "does not follow the row before it"))
    if row["hash"] != hash_of(key, row["previous"], row):
        found.append(Finding(seq, "was changed"))
    if row["kind"] == "break":
        found.append(Finding(seq, str(row["reason"])))
    return found


def _plain(value: Any) -> Any:
    return microseconds(value) if isinstance(value, datetime) else value
