"""Tasks: background jobs of Proxmox, identified by their UPID."""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal, Self

import msgspec
from msgspec import field

from proxmox_client.errors import (
    BadParameters,
    Forbidden,
    NotFound,
    ProxmoxError,
    TaskFailed,
    Unauthenticated,
    UnexpectedAnswer,
)
from proxmox_client.json_decoder import Answer
from proxmox_client.limits import remaining, time_limit
from proxmox_client.paths import join
from proxmox_client.properties import whole_number
from proxmox_client.transport import Transport
from proxmox_client.upid import Upid

TaskSource = Literal["archive", "active", "all"]
Progress = Callable[["TaskProgress"], None]

_TAIL_LINES = 20
_FIRST_STEP, _LONGEST_STEP = 0.1, 5.0  # seconds between polls, which double
_LONGEST_OUTAGE = 30.0  # seconds in which no poll succeeds
_LASTING = (BadParameters, Forbidden, NotFound, Unauthenticated)
_PERCENT = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d+)?) ?%", re.ASCII)
_AMOUNT = r"(\d{1,9}(?:\.\d+)?) ([KMGT]?)i?B"
# a migration of memory logs amounts without a percentage
_TRANSFERRED = re.compile(rf"transferred {_AMOUNT} of {_AMOUNT}", re.ASCII)


class TaskRow(Answer, frozen=True):
    """A task in a list; `status` is "RUNNING" or the exit status, None while unknown."""

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
        """Whether the task was still running when it was listed."""
        return self.end_time is None and self.status in (None, "", "RUNNING")

    @property
    def ok(self) -> bool:
        """Whether the task succeeded, with or without warnings."""
        return succeeded(self.status or "")


class TaskStatus(Answer, frozen=True):
    """The state of a task; `exit_status` is set once it has stopped."""

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
        """Whether the task is still running."""
        return self.status == "running"


class LogLine(Answer, frozen=True):
    """A line of a task's log; `number` counts from 1."""

    number: int = field(name="n")
    text: str = field(name="t", default="")


class TaskLog(msgspec.Struct, frozen=True):
    """Some lines of a log; `total` counts all lines."""

    lines: list[LogLine]
    total: int


class TaskProgress(msgspec.Struct, frozen=True):
    """The progress of a task: new log lines, and the last percentage in the log, if any.

    A percentage may be about a part of the task, for example the download before its checksum.
    """

    upid: Upid
    lines: list[str]
    percent: float | None
    succeeded: bool = False  # it has ended so


class TaskOutcome(msgspec.Struct, frozen=True):
    """The result of a task; one with warnings is `ok`, and `warnings` counts them."""

    ok: bool
    warnings: int
    exit_status: str
    log_tail: list[str]


def succeeded(exit_status: str) -> bool:
    """Return whether an exit status means success, with or without warnings."""
    return exit_status == "OK" or exit_status.startswith("WARNINGS:")


def percent_of(line: str) -> float | None:
    """Extract the progress in percent from a log line; return None if it has none."""
    if "sparse" in line:  # the share of zeroes in a backup, not its progress
        return None
    if percentages := _PERCENT.findall(line):
        value = float(percentages[-1])
    elif amounts := _TRANSFERRED.search(line):
        value = 100 * _bytes(amounts[1], amounts[2]) / max(_bytes(amounts[3], amounts[4]), 1)
    else:
        return None
    return round(value, 2) if value <= 100 else None


def _bytes(number: str, unit: str) -> float:
    return float(number) * float(1024 ** " KMGT".index(unit or " "))


class Task:
    """Calls about one task, on the node in its UPID; `str(task)` is the UPID."""

    def __init__(self, transport: Transport, upid: str | Upid) -> None:
        self._transport = transport
        self.upid = upid if isinstance(upid, Upid) else _parse_upid(upid)

    @classmethod
    def started(cls, transport: Transport, upid: Any) -> Self:
        """Return the task that a request began; raise UnexpectedAnswer if its answer has none."""
        try:
            return cls(transport, Upid.parse(str(upid)))
        except ValueError as error:
            raise UnexpectedAnswer(200, "OK", f"The answer names no task: {error}") from error

    def __str__(self) -> str:
        return self.upid.text

    def __repr__(self) -> str:
        return f"Task({self.upid.text!r})"

    async def status(self) -> TaskStatus:
        """GET /nodes/{node}/tasks/{upid}/status. Needs Sys.Audit on the node unless own task.

        Source: PVE/API2/Tasks.pm.
        """
        return await self._transport.get(self._path("status"), TaskStatus)

    async def log(self, start: int = 0, limit: int = 50) -> TaskLog:
        """GET /nodes/{node}/tasks/{upid}/log. Needs Sys.Audit on the node unless own task.

        `start` counts from 0; `limit=0` returns all lines.

        Source: PVE/API2/Tasks.pm.
        """
        return await self._log(start, limit)

    async def tail(self, lines: int = 20) -> list[str]:
        """Return the last lines of the log. Sends GET …/log, twice for a log with more lines."""
        if lines <= 0:
            return []
        page = await self._log(0, lines)
        if page.total > lines:
            page = await self._log(page.total - lines, lines)
        return [line.text for line in page.lines]

    async def follow(self) -> AsyncIterator[str]:
        """Yield the log line by line, until the task has ended."""
        async for _, lines in self._poll(follows_log=True):
            for line in lines:
                yield line

    async def wait(
        self,
        progress: Progress | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - a surrounding deadline applies too
    ) -> TaskOutcome:
        """Wait until the task ends; raise TaskFailed unless it succeeded.

        Raise DeadlineExceeded after `timeout` seconds or at the surrounding deadline. The task
        itself continues; call `stop` to end it.
        """
        outcome = await self.outcome(progress, timeout)
        if not outcome.ok:
            raise TaskFailed(self.upid.text, outcome.exit_status, outcome.log_tail)
        return outcome

    async def stop(self) -> None:
        """DELETE /nodes/{node}/tasks/{upid}. Needs Sys.Modify on the node unless own task.

        Source: PVE/API2/Tasks.pm.
        """
        await self._transport.delete(self._path())

    async def outcome(
        self,
        progress: Progress | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - a surrounding deadline applies too
    ) -> TaskOutcome:
        """Wait until the task ends and return its outcome, also if it failed.

        `progress` is called after each poll, which then also reads new lines of the log; without it
        only the end of the log is read. Raise DeadlineExceeded like `wait`.
        """
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        percent: float | None = None
        exit_status = ""
        async with time_limit(timeout, f"Task {self.upid}"):
            async for status, lines in self._poll(follows_log=progress is not None):
                tail.extend(lines)
                for value in map(percent_of, lines):
                    percent = percent if value is None else value
                exit_status = status.exit_status or "unexpected status"
                if progress is not None:
                    ended_well = not status.running and succeeded(exit_status)
                    progress(TaskProgress(self.upid, lines, percent, ended_well))
        count = exit_status.removeprefix("WARNINGS:")
        warnings = 0 if count == exit_status else whole_number(count.strip()) or 0
        return TaskOutcome(succeeded(exit_status), warnings, exit_status, list(tail))

    async def _poll(self, *, follows_log: bool) -> AsyncIterator[tuple[TaskStatus, list[str]]]:
        """Poll the task; yield its status and new log lines, the last time after its end.

        The lines are all new ones, or else those of the end of the log, once it has ended. A poll
        that fails is repeated: a daemon of Proxmox that restarts takes seconds. Only an error that
        would come again is raised at once.
        """
        clock = asyncio.get_running_loop().time
        line_count, last_success = 0, clock()
        for step in poll_steps():
            try:
                # the status before the log: once it says stopped, the log is complete
                status = await self.status()
                lines: list[str] = []
                if follows_log:
                    lines = [line.text for line in (await self._log(line_count, 0)).lines]
                elif not status.running:
                    lines = await self.tail(_TAIL_LINES)
            except _LASTING:
                raise
            except ProxmoxError:
                left = remaining()  # else it was the time limit of this one poll
                is_lost = clock() - last_success >= _LONGEST_OUTAGE
                if is_lost or (left is not None and left <= 0):
                    raise
            else:
                last_success = clock()
                line_count += len(lines)
                yield status, lines
                if not status.running:
                    return
            await asyncio.sleep(step)

    async def _log(self, start: int, limit: int) -> TaskLog:
        page = await self._transport.get_page(
            self._path("log"), list[LogLine], start=start, limit=limit
        )
        # Proxmox answers an empty log with this line instead of none
        lines = [line for line in page.data if line.number > 1 or line.text != "no content"]
        return TaskLog(lines, len(lines) if page.total is None else page.total)

    def _path(self, *rest: str) -> str:
        return join("nodes", self.upid.node, "tasks", self.upid.text, *rest)


def _parse_upid(upid: str) -> Upid:
    try:
        return Upid.parse(upid)
    except ValueError as error:
        raise BadParameters(400, "", str(error), {"upid": str(error)}) from error


def poll_steps() -> Iterator[float]:
    """Yield the seconds between polls: short at first for short tasks, longer for long ones."""
    step = _FIRST_STEP
    while True:
        yield step
        step = min(2 * step, _LONGEST_STEP)
