"""Retention of backups (prune-backups)."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from proxmox_client.emulator.state.storage import Volume

PERIODS: Final[dict[str, Callable[[datetime], str]]] = {
    "keep-last": lambda when: when.isoformat(),
    "keep-hourly": lambda when: f"{when:%Y-%m-%d %H}",
    "keep-daily": lambda when: f"{when:%Y-%m-%d}",
    "keep-weekly": lambda when: f"{when:%G-%V}",
    "keep-monthly": lambda when: f"{when:%Y-%m}",
    "keep-yearly": lambda when: f"{when:%Y}",
}
"""The period of each option: the newest backup is kept in each of the last N periods."""


def parse(text: str) -> dict[str, str]:
    """Parse a retention like keep-last=3,keep-weekly=2."""
    return dict(pair.split("=", 1) for pair in text.split(","))


def mark(backups: list[Volume], retention: Mapping[str, Any]) -> list[tuple[Volume, str]]:
    """Return the backups of one guest, each with its mark: keep, remove or protected."""
    candidates = sorted(
        (backup for backup in backups if not backup.protected), key=lambda backup: -backup.ctime
    )
    keeps_all = str(retention.get("keep-all")) == "1"
    kept = {backup.volid for backup in candidates} if keeps_all else set()
    for option, period in PERIODS.items():
        is_counted = option != "keep-last"
        earlier = [backup for backup in candidates if backup.volid in kept and is_counted]
        periods = {period(_created(backup)) for backup in earlier}
        _keep(candidates, kept, periods, period, int(retention.get(option, 0)))
    marks = {True: "keep", False: "remove"}
    return [
        (backup, "protected" if backup.protected else marks[backup.volid in kept])
        for backup in backups
    ]


def _keep(
    candidates: list[Volume],
    kept: set[str],
    periods: set[str],
    period: Callable[[datetime], str],
    count: int,
) -> None:
    """Keep the newest backup of each of `count` further periods."""
    for backup in candidates:
        if count <= 0:
            return
        if backup.volid not in kept and period(_created(backup)) not in periods:
            periods.add(period(_created(backup)))
            kept.add(backup.volid)
            count -= 1


def _created(volume: Volume) -> datetime:
    return datetime.fromtimestamp(volume.ctime, UTC)
