"""Which backups a retention keeps."""

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
"""What is counted: the newest backup of so many different periods stays."""


def parse(text: str) -> dict[str, str]:
    """A retention like keep-last=3,keep-weekly=2."""
    return dict(pair.split("=", 1) for pair in text.split(","))


def judge(group: list[Volume], retention: Mapping[str, Any]) -> list[tuple[Volume, str]]:
    """The backups of one guest, each with what becomes of it: keep, remove or protected."""
    free = sorted((each for each in group if not each.protected), key=lambda each: -each.ctime)
    kept = {each.volid for each in free} if str(retention.get("keep-all")) == "1" else set()
    for option, period in PERIODS.items():
        before = [each for each in free if each.volid in kept and option != "keep-last"]
        seen = {period(_made(each)) for each in before}
        _keep(free, kept, seen, period, int(retention.get(option, 0)))
    words = {True: "keep", False: "remove"}
    return [(each, "protected" if each.protected else words[each.volid in kept]) for each in group]


def _keep(
    free: list[Volume],
    kept: set[str],
    seen: set[str],
    period: Callable[[datetime], str],
    left: int,
) -> None:
    """Keep the newest of so many periods that nothing kept belongs to yet."""
    for each in free:
        if left <= 0:
            return
        if each.volid not in kept and period(_made(each)) not in seen:
            seen.add(period(_made(each)))
            kept.add(each.volid)
            left -= 1


def _made(volume: Volume) -> datetime:
    return datetime.fromtimestamp(volume.ctime, UTC)
