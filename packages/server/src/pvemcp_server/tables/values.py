"""Proxmox's fractions and epochs as the units every row uses."""

from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import TypeVar

T = TypeVar("T")


def percent(fraction: float | None) -> float | None:
    """A fraction as a percentage with one decimal."""
    return None if fraction is None else round(fraction * 100, 1)


def share(part: float | None, whole: float | None) -> float | None:
    """`part` of `whole` as a percentage with one decimal; nothing when there is no whole."""
    return None if part is None or not whole else round(part / whole * 100, 1)


def moment(epoch: float | None) -> datetime | None:
    """An epoch as a time; Proxmox writes 0 for never."""
    return datetime.fromtimestamp(int(epoch), UTC) if epoch else None


def whole(number: float | None) -> int | None:
    """A number without its fraction: bytes have none."""
    return None if number is None else round(number)


def only(values: AbstractSet[T]) -> T | None:
    """The one value of a set of one: what Proxmox can filter by."""
    return next(iter(values)) if len(values) == 1 else None
