"""Tasks: what Proxmox does in the background after it has answered."""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import repeat
from typing import Literal

import msgspec
from msgspec import field

from proxmox_client.deadlines import bounded
from proxmox_client.errors import BadParameters, TaskFailed
from proxmox_client.json_decoder import Answer
from proxmox_client.paths import join
from proxmox_client.transport import Transport
from proxmox_client.upid import Upid

TaskSource = Literal["archive", "active", "all"]
Progress = Callable[["TaskProgress"], None]

_TAIL = 20
_PERCENT = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d+)?) ?%", re.ASCII)
_AMOUNT = r"(\d{1,9}(?:\.\d+)?) ([KMGT]?)i?B"
# a migration of memory tells amounts only
_PART = re.compile(rf"transferred {_AMOUNT} of {_AMOUNT}", re.ASCII)


class TaskRow(Answer, frozen=True):
    """A task in a list; `status` is "RUNNING" or the exit status, absent while unknown."""

    upid: str
    node: str = ""
    type: str = ""
    id: str = ""
    user: str = ""
    token_id: str | None = field(name="tokenid", default=None)
    start_time: int = field(name="starttime", default=0)
    end_time: int | None = field(name="endtime", default=None)
    status: str | None = None

    @property
    def running(self) -> bool:
        """Whether the task had not ended when it was listed."""
        return self.end_time is None and self.status in (None, "", "RUNNING")

    @property
    def ok(self) -> bool:
        """Whether the task ended well, warnings included."""
        return succeeded(self.status or "")


class TaskStatus(Answer, frozen=True):
    """How a task is; `exit_status` comes when it has stopped."""

    upid: str
    status: Literal["running", "stopped"] = "stopped"
    exit_status: str | None = field(name="exitstatus", default=None)
    node: str = ""
    type: str = ""
    id: str = ""
    user: str = ""
    token_id: str | None = field(name="tokenid", default=None)
    start_time: int = field(name="starttime", default=0)
    pid: int | None = None

    @property
    def running(self) -> bool:
        """Whether the task is still at work."""
        return self.status == "running"


class LogLine(Answer, frozen=True):
    """A line of a task's log; `number` counts from 1."""

    number: int = field(name="n")
    text: str = field(name="t", default="")


class TaskLog(msgspec.Struct, frozen=True):
    """Some lines of a log, and how many there are in all."""

    lines: list[LogLine]
    total: int


class TaskProgress(msgspec.Struct, frozen=True):
    """Where a running task is; `percent` is what its log last said, if anything."""

    upid: Upid
    lines: list[str]
    percent: float | None


class TaskOutcome(msgspec.Struct, frozen=True):
    """How a task ended; `warnings` is their number, and such a task is `ok`."""

    ok: bool
    warnings: int
    exit_status: str
    log_tail: list[str]


def succeeded(exit_status: str) -> bool:
    """Whether an exit status means success, with or without warnings."""
    return exit_status == "OK" or exit_status.startswith("WARNINGS:")


def percent_of(line: str) -> float | None:
    """How far a log line says its task is, in percent, if it says so."""
    if "sparse" in line:  # the share of zeroes in a backup is no progress
        return None
    if found := _PERCENT.findall(line):
        value = float(found[-1])
    elif part := _PART.search(line):
        value = 100 * _bytes(part[1], part[2]) / max(_bytes(part[3], part[4]), 1)
    else:
        return None
    return round(value, 2) if value <= 100 else None


def _bytes(number: str, unit: str) -> float:
    return float(number) * float(1024 ** " KMGT".index(unit or " "))


class Task:
    """A task on the node that its UPID names; as text it is that UPID."""

    def __init__(self, transport: Transport, upid: str | Upid) -> None:
        self._transport = transport
        self.upid = upid if isinstance(upid, Upid) else _parsed(upid)

    def __str__(self) -> str:
        return self.upid.text

    def __repr__(self) -> str:
        return f"Task({self.upid.text!r})"

    async def status(self) -> TaskStatus:
        """GET /nodes/{node}/tasks/{upid}/status. The own task, or Sys.Audit on the node.

        Source: PVE/API2/Tasks.pm.
        """
        return await self._transport.get(self._path("status"), TaskStatus)

    async def log(self, start: int = 0, limit: int = 50) -> TaskLog:
        """GET /nodes/{node}/tasks/{upid}/log. `limit=0` gives all lines.

        Source: PVE/API2/Tasks.pm.
        """
        return await self._log(start, limit)

    async def tail(self, lines: int = 20) -> list[str]:
        """The last lines of the log."""
        total = (await self._log(0, 1)).total
        if lines <= 0 or total == 0:
            return []
        page = await self._log(max(total - lines, 0), lines)
        return [line.text for line in page.lines]

    async def follow(self) -> AsyncIterator[str]:
        """Give the log line by line, until the task has ended."""
        async for _, lines in self._polled():
            for line in lines:
                yield line

    async def wait(
        self,
        progress: Progress | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - also shortened by a surrounding deadline
    ) -> TaskOutcome:
        """Wait for the end; TaskFailed when it didn't succeed.

        The wait ends with DeadlineExceeded after `timeout` seconds or at the surrounding
        deadline. The task itself goes on; `stop` is a separate wish.
        """
        outcome = await self.outcome(progress, timeout)
        if not outcome.ok:
            raise TaskFailed(self.upid.text, outcome.exit_status, outcome.log_tail)
        return outcome

    async def stop(self) -> None:
        """DELETE /nodes/{node}/tasks/{upid}. The own task, or Sys.Modify on the node.

        Source: PVE/API2/Tasks.pm.
        """
        await self._transport.delete(self._path())

    async def outcome(
        self,
        progress: Progress | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - also shortened by a surrounding deadline
    ) -> TaskOutcome:
        """Wait like `wait`, and tell how the task ended, well or not."""
        tail: deque[str] = deque(maxlen=_TAIL)
        percent: float | None = None
        exit_status = ""
        async with bounded(timeout, f"Task {self.upid}"):
            async for status, lines in self._polled():
                tail.extend(lines)
                percent = _last_percent(lines, percent)
                exit_status = status.exit_status or "unexpected status"
                if progress is not None:
                    progress(TaskProgress(self.upid, lines, percent))
        return _outcome(exit_status, list(tail))

    async def _polled(self) -> AsyncIterator[tuple[TaskStatus, list[str]]]:
        """Give each look at the task with the log lines that are new, the last after its end."""
        seen = 0
        for pause in _pauses():
            # the status first: what is logged before the end is then surely in the log
            status = await self.status()
            page = await self._log(seen, 0)
            seen += len(page.lines)
            yield status, [line.text for line in page.lines]
            if not status.running:
                return
            await asyncio.sleep(pause)

    async def _log(self, start: int, limit: int) -> TaskLog:
        found = await self._transport.get_page(
            self._path("log"), list[LogLine], start=start, limit=limit
        )
        lines = [line for line in found.data if not _is_filler(line)]
        return TaskLog(lines, len(lines) if found.total is None else found.total)

    def _path(self, *rest: str) -> str:
        return join("nodes", self.upid.node, "tasks", self.upid.text, *rest)


def _parsed(upid: str) -> Upid:
    try:
        return Upid.parse(upid)
    except ValueError as error:
        raise BadParameters(400, "", str(error), {"upid": str(error)}) from error


def _pauses() -> Iterator[float]:
    """Quick tasks are seen quickly, long ones asked about seldom."""
    yield from (0.1, 0.2, 0.4, 0.8)
    yield from repeat(1.5)


def _is_filler(line: LogLine) -> bool:
    # an empty log is answered with this line instead of none
    return line.number <= 1 and line.text == "no content"


def _last_percent(lines: list[str], before: float | None) -> float | None:
    found = [value for value in map(percent_of, lines) if value is not None]
    return found[-1] if found else before


def _outcome(exit_status: str, tail: list[str]) -> TaskOutcome:
    count = exit_status.removeprefix("WARNINGS:").strip()
    warnings = int(count) if exit_status.startswith("WARNINGS:") and count.isdecimal() else 0
    return TaskOutcome(succeeded(exit_status), warnings, exit_status, tail)
