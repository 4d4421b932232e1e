"""Proxmox's property strings: `virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1`."""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

MOST_PARTS: Final = 1_000
"""Parts of a property string that are read; Proxmox knows fewer than 100 options of any."""
_NUMBER = re.compile(r"\d{1,15}(\.\d{1,15})?", re.ASCII)
_VERSION = re.compile(r"[\w.~+:-]{1,40}", re.ASCII)
_WHOLE_NUMBER = re.compile(r"\d{1,15}", re.ASCII)

Properties = dict[str, str]


def parse(text: str | Mapping[str, Any] | None, default: str = "") -> Properties:
    """Parse a property string; a part without `=` is the value of the key `default`.

    Some endpoints return the same options as a mapping, so a mapping is accepted too. Parts after
    the first MOST_PARTS are ignored: a few kilobytes of gzip hold millions.
    """
    if text is None:
        return {}
    if isinstance(text, Mapping):
        return {key: _as_text(value) for key, value in islice(text.items(), MOST_PARTS)}
    parts = text.split(",", MOST_PARTS)[:MOST_PARTS]
    pairs = (part.partition("=") for part in parts if part)
    return {key if mark else default: value if mark else key for key, mark, value in pairs}


def flag(value: str | None, *, absent: bool = False) -> bool:
    """Parse a boolean as Proxmox writes it; `absent` is the value for None."""
    return absent if value is None else value.lower() in ("1", "on", "yes", "true")


def number(text: str | None) -> float | None:
    """Parse a number; return None for any other text."""
    return float(text) if text and _NUMBER.fullmatch(text) else None


def whole_number(text: str | None) -> int | None:
    """Parse a number of ASCII digits; return None for any other text, and for a very long one.

    `str.isdigit` and `str.isdecimal` accept ² or ٣, and `int` raises for some of what they accept.
    """
    return int(text) if text and _WHOLE_NUMBER.fullmatch(text) else None


def require_version(text: str, shape: re.Pattern[str] = _VERSION) -> None:
    """Raise ValueError for a text that is no version, or not of this shape."""
    if not shape.fullmatch(text):
        raise ValueError(f"no version: {text[:40]!r}")


def _as_text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
