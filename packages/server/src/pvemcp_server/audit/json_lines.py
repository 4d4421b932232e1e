"""The audit as JSON lines: one row as JSON, and the file that rows are forwarded to."""

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pvemcp_server.store.files import open_private

Row = Mapping[str, Any]


def to_json(row: Row) -> str:
    """Return a row of the audit as printable ASCII on one line; columns without a value are left
    out.

    `seq` and `hash` together identify the row, so a receiver can drop one that it gets again.
    """
    values = {
        name: _plain(value)
        for name, value in row.items()
        if value is not None and name not in {"root", "previous"}
    }
    if "arguments" in values:
        values["arguments"] = read_arguments(values["arguments"])
    # JSON escapes all control characters but DEL
    text = json.dumps(values, separators=(",", ":"), default=repr)
    return text.replace("\x7f", "\\u007f")


def read_arguments(text: str) -> Any:
    """Return the arguments of a row; as `unreadable` the text that was put in their place."""
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {"unreadable": str(text)}


@dataclass(frozen=True, slots=True)
class JsonLinesFile:
    """A file that rows are appended to, opened for each batch: logrotate may rename it any time."""

    path: Path

    @property
    def address(self) -> str:
        """The path of the file."""
        return str(self.path)

    def send(self, rows: Sequence[Row]) -> None:
        """Append the rows, durable on return; raise OSError when that is impossible."""
        with open_private(self.path, "a+b") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError(f"{self.path} is not a regular file")
            self.path.chmod(0o600)  # rotation may have created it
            lines = "".join(f"{to_json(row)}\n" for row in rows).encode()
            if _is_torn(file, status.st_size):
                lines = b"\n" + lines
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())


def _is_torn(file: Any, size: int) -> bool:
    """Return whether the last line is incomplete: the disk was full, or the process was killed."""
    if not size:
        return False
    file.seek(size - 1)
    return bool(file.read(1) != b"\n")


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
