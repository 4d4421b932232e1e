"""Findings about full storages, alike for those of a cluster and datastores of a backup server."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from pvemcp_server.tools.attention.model import Evidence, Item, Severity


def nearly_full(evidence: Evidence, name: str, use: float | None) -> Iterator[Item]:
    """Yield the item of a storage whose use, in percent, has reached the limit."""
    limits = evidence.limits
    if use is not None and use >= limits.attention_storage_percent:
        critical = use >= limits.attention_storage_critical_percent
        severity = Severity.CRITICAL if critical else Severity.WARNING
        yield Item(severity, name, use, f"{use:g}%")


def full_soon(evidence: Evidence, name: str, full_on: datetime | None) -> Iterator[Item]:
    """Yield the item of a storage that is full soon at the growth of its last month."""
    end = evidence.now + timedelta(days=evidence.limits.attention_storage_days)
    if full_on is not None and full_on <= end:
        figure = (end - full_on).total_seconds()
        yield Item(Severity.WARNING, name, figure, f"full on {full_on:%Y-%m-%d}")
