"""Conversion of Proxmox's fractions and epochs to the units of rows."""

from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import TypeVar

T = TypeVar("T")


def percent(fraction: float | None) -> float | None:
    """Convert a fraction to a percentage with one decimal."""
    return None if fraction is None else round(fraction * 100, 1)


def share(part: float | None, whole: float | None) -> float | None:
    """Return `part` of `whole` as a percentage with one decimal; None without a whole."""
    return None if part is None or not whole else round(part / whole * 100, 1)


def moment(epoch: float | None) -> datetime | None:
    """Convert an epoch to a time; Proxmox writes 0 for never."""
    return datetime.fromtimestamp(int(epoch), UTC) if epoch else None


def whole(number: float | None) -> int | None:
    """Round a number to an integer: bytes have no fraction."""
    return None if number is None else round(number)


def single(values: AbstractSet[T]) -> T | None:
    """Return the value of a set with one value, as Proxmox can filter by; else None."""
    return next(iter(values)) if len(values) == 1 else None
