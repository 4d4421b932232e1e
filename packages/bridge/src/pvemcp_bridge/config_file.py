"""Configuration files of clients: show a change without secrets, and write it safely."""

import difflib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import count, islice
from pathlib import Path

__all__ = ["UnusableConfig", "bridge_command", "diff", "write"]

_BINARY = getattr(os, "O_BINARY", 0)  # Windows: no conversion of line ends


class UnusableConfig(Exception):
    """The configuration cannot be changed safely; the message says why."""


def diff(
    before: str,
    after: str,
    path: Path,
    own: str,
    hidden: Callable[[str], str],
    mask: Callable[[str], str],
) -> str:
    """Return the change as a unified diff with secrets masked; empty if there is none.

    Lines that are not in `own`, the text of the server alone, go through `hidden`: those of others,
    and of its former entry, may hold keys that `mask` does not know.
    """
    own_lines = {line.strip() for line in own.split("\n")}
    head, lines = [f"--- {path}", f"+++ {path}"], []
    changes = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="")
    for line in islice(changes, 2, None):
        is_own = line.startswith("+") and line[1:].strip() in own_lines
        lines.append(line if is_own or line.startswith("@@") else line[0] + hidden(line[1:]))
    return mask("\n".join([*head, *lines])) if lines else ""


def write(path: Path, text: str) -> Path | None:
    """Replace the file atomically and return the backup of the old one.

    Both are readable only by their owner.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.resolve()  # a symbolic link, perhaps into a repository of settings, stays a link
    backup = _backup(path) if path.exists() else None
    # a random name, mode 0600, never through a link: the folder may be shared
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return backup


def _backup(path: Path) -> Path:
    """Copy the file to the first free name; O_EXCL neither replaces a file nor follows a link."""
    for number in count(1):
        backup = Path(f"{path}.backup-{number}")
        with suppress(FileExistsError):
            descriptor = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(path.read_bytes())
            return backup
    raise AssertionError("count() does not end")


def bridge_command() -> tuple[str, ...]:
    """Return the command that starts this installation of the bridge, with full paths."""
    if getattr(sys, "frozen", False):
        return (str(Path(sys.executable).resolve()),)
    if (archive := Path(sys.argv[0])).suffix == ".pyz":
        return sys.executable, str(archive.resolve())
    script = Path(sys.executable).with_name(f"pvemcp-bridge{'.exe' if os.name == 'nt' else ''}")
    return (str(script) if script.exists() else shutil.which("pvemcp-bridge") or "pvemcp-bridge",)
