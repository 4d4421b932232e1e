"""Sizes in bytes and in Proxmox's notation."""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024**2
GIB: Final = 1024**3
TIB: Final = 1024**4
_UNITS: Final = {"K": KIB, "M": MIB, "G": GIB, "T": TIB}


def parse_size(text: str) -> int:
    """Parse a size like 32G to bytes; a number without unit is bytes."""
    unit = _UNITS.get(text[-1:], 1)
    return int(float(text.rstrip("KMGT") or 0) * unit)


def format_size(size: int) -> str:
    """Format a size in the largest unit that divides it."""
    for letter, unit in reversed(_UNITS.items()):
        if size and size % unit == 0:
            return f"{size // unit}{letter}"
    return str(size)


def human(size: float) -> str:
    """Format a size as in task logs."""
    for name in ("B", "KiB", "MiB", "GiB"):
        if size < KIB:
            return f"{size:.1f} {name}"
        size /= KIB
    return f"{size:.1f} TiB"
