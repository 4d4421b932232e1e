"""Log on standard error and in a file, with secrets masked."""

import logging
import re
import sys
from collections.abc import Callable, Collection
from io import TextIOWrapper
from pathlib import Path

__all__ = ["LEVELS", "Masker", "printable", "start"]

LEVELS = ("debug", "info", "warning", "error")


class Masker:
    """Function that replaces the secrets in a text with `***`; a sign-in adds its tokens."""

    def __init__(self, secrets: Collection[str]) -> None:
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.add(*secrets)

    def __call__(self, text: str) -> str:
        return self._pattern.sub("***", text) if self._pattern else text

    def add(self, *secrets: str) -> None:
        """Mask these as well from now on."""
        if new := {*secrets} - self._secrets:
            self._secrets |= new
            longest_first = sorted(self._secrets, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))


def printable(text: str) -> str:
    """Return the text as one line without characters that terminals obey."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


class _MaskingFormatter(logging.Formatter):
    def __init__(self, mask: Callable[[str], str]) -> None:
        super().__init__("%(asctime)s pvemcp-bridge %(levelname)s: %(message)s")
        self._mask = mask

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name in logging
        return printable(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).split("\n")  # several only with a traceback
        return self._mask("\n".join(map(printable, lines)))


class _PrivateFileHandler(logging.FileHandler):
    """A log file of mode 0600 when it is new."""

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).touch(mode=0o600)
        return super()._open()


def start(level: str, file: Path | None, mask: Callable[[str], str]) -> None:
    """Log to standard error, and to `file` if it is set; raise OSError if it cannot be opened."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if file:
        handlers.append(_PrivateFileHandler(file, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(_MaskingFormatter(mask))
    logger = logging.getLogger("pvemcp_bridge")
    logger.handlers = handlers
    logger.setLevel(level.upper())
    logger.propagate = False
