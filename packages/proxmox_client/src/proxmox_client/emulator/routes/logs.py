"""The system log of a node: journal and syslog.

It has the starts and ends of tasks, what services write every ten minutes, and `Node.log`.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from proxmox_client.emulator.router import ApiRequest, Reply, route
from proxmox_client.emulator.state.node import LogEntry

DAYS: Final = 2
INTERVAL: Final = 600
ROUTINE: Final = (
    ("systemd", 1, "Starting pve-daily-update.service - Daily PVE download activities...", "init"),
    ("pmxcfs", 1410, "[status] notice: received log", "pve-cluster"),
    ("pveproxy", 1820, "worker 20114 finished", "pveproxy"),
    ("chronyd", 1102, "Selected source 192.0.2.1 (ntp.example)", "chrony"),
)
NO_ENTRIES: Final = "-- No entries --"
_CURSOR: Final = re.compile(r"s=5f1d2a;i=([0-9a-f]{1,8});b=9c0e")


@route("GET", "/nodes/{node}/journal")
def journal(request: ApiRequest) -> list[str]:
    """GET /nodes/{node}/journal: lines between two cursors."""
    since, until = request.get("since", 0), request.get("until", int(request.now))
    entries = [entry for entry in _entries(request) if since <= entry.time <= until]
    start = _position(request.get("startcursor"), 0)
    end = _position(request.get("endcursor"), len(entries))
    if start is None or end is None:
        return []  # the reader of the journal finds no such cursor, and prints nothing
    entries = entries[start:end]
    first = max(0, len(entries) - request.get("lastentries", len(entries)))
    lines = [entry.line(request.node.name) for entry in entries[first:]]
    return [_cursor(first), *lines, _cursor(len(entries))]


@route("GET", "/nodes/{node}/syslog")
def syslog(request: ApiRequest) -> Reply:
    """GET /nodes/{node}/syslog: a line of its own where it has no entries."""
    since, until = _epoch(request.get("since")), _epoch(request.get("until"))
    service = request.get("service")
    lines = [
        entry.line(request.node.name)
        for entry in _entries(request)
        if (since is None or entry.time >= since)
        and (until is None or entry.time <= until)
        and (service is None or service.removesuffix(".service") == entry.unit)
    ] or [NO_ENTRIES]
    start, limit = request.get("start", 0), request.get("limit") or 50
    rows: list[dict[str, Any]] = [
        {"n": number, "t": line}
        for number, line in enumerate(lines[start : start + limit], start + 1)
    ]
    return Reply(rows, {"total": len(lines)})


def _entries(request: ApiRequest) -> list[LogEntry]:
    return sorted([*request.node.log, *_of_tasks(request), *_routine(request)])


def _of_tasks(request: ApiRequest) -> Iterator[LogEntry]:
    for task in request.backend.tasks.on(request.node.name):
        who = f"<{task.user}>"
        start = f"{who} starting task {task.upid}"
        yield LogEntry(task.started, "pvedaemon", task.pid, start, "pvedaemon")
        if task.ended is not None:
            end = f"{who} end task {task.upid} {task.outcome}"
            yield LogEntry(task.ended, "pvedaemon", task.pid, end, "pvedaemon")


def _routine(request: ApiRequest) -> Iterator[LogEntry]:
    now = int(request.now)
    start = now - DAYS * 86_400
    for time in range(start - start % INTERVAL, now, INTERVAL):
        program, pid, text, unit = ROUTINE[time // INTERVAL % len(ROUTINE)]
        yield LogEntry(time, program, pid, text, unit)


def _cursor(position: int) -> str:
    return f"s=5f1d2a;i={position:x};b=9c0e"


def _position(cursor: str | None, default: int) -> int | None:
    """Return the position of a cursor; None for one that the journal does not have."""
    if cursor is None:
        return default
    match = _CURSOR.fullmatch(cursor)
    return int(match[1], 16) if match else None


def _epoch(text: str | None) -> float | None:
    with suppress(ValueError):  # such as the 31st of February, which journalctl does not take
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() if text else None
    return None
