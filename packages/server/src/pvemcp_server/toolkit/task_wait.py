"""Following a Proxmox task to its end: progress while it runs, its outcome after."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from proxmox_client import (
    DeadlineExceeded,
    NodeUnreachable,
    Task,
    TaskOutcome,
    TaskProgress,
    Unreachable,
)
from pvemcp_server.toolkit.call import Call, Conversation

T = TypeVar("T")

_SMALL_STEP = 0.01  # MCP wants every report to be more than the last one


async def follow(call: Call, task: Task) -> dict[str, Any]:
    """The task's outcome when the caller waits for it, else a note on how to ask for it."""
    if not (call.wait or call.conversation.wants_progress):
        call.notes.add("The task goes on in Proxmox: GetTask with this upid tells its outcome.")
        return {"status": "running"}
    try:
        ended = await watch(call, task, call.settings.task_wait_max_seconds)
    except DeadlineExceeded:
        why = "The server is shutting down; the" if call.closing.is_set() else "The"
        call.notes.add(f"{why} task is still running: GetTask with this upid tells its outcome.")
        return {"status": "running"}
    except (NodeUnreachable, Unreachable) as error:
        call.notes.add(f"Nobody answers any more ({error}): GetTask with this upid tells more.")
        return {"status": "unknown"}
    return told(ended)


async def watch(call: Call, task: Task, seconds: float) -> TaskOutcome:
    """Wait for the end, telling the client what the log says; TaskFailed when it went wrong.

    DeadlineExceeded after `seconds`, and when the server is about to stop. Whoever stops waiting
    leaves the Proxmox task running.
    """
    reports: asyncio.Queue[TaskProgress] = asyncio.Queue()
    teller = asyncio.create_task(_Teller(call.conversation).tell(reports))
    try:
        return await _unless(call.closing, task.wait(reports.put_nowait, timeout=seconds))
    finally:
        teller.cancel()
        # a client that cannot be told any more is no reason to lose the outcome
        await asyncio.gather(teller, return_exceptions=True)


async def _unless(closing: asyncio.Event, waiting: Coroutine[Any, Any, T]) -> T:
    """What is waited for; DeadlineExceeded when the server is told to stop before."""
    wanted, told_to_stop = asyncio.create_task(waiting), asyncio.create_task(closing.wait())
    try:
        await asyncio.wait((wanted, told_to_stop), return_when=asyncio.FIRST_COMPLETED)
        if wanted.done():
            return wanted.result()
        raise DeadlineExceeded("The server is shutting down")
    finally:
        wanted.cancel()
        told_to_stop.cancel()
        await asyncio.gather(wanted, told_to_stop, return_exceptions=True)


def told(ended: TaskOutcome) -> dict[str, Any]:
    """An outcome as fields of an answer; the log's tail only when something is to be seen."""
    fields: dict[str, Any] = {"status": "stopped", "exit_status": ended.exit_status, "ok": ended.ok}
    if ended.warnings:
        fields |= {"warnings": ended.warnings, "log": ended.log_tail}
    return fields


@dataclass
class _Teller:
    """Passes a task's progress on to the client, always upwards."""

    conversation: Conversation
    done: float = 0.0

    async def tell(self, reports: asyncio.Queue[TaskProgress]) -> None:
        while True:
            report = await reports.get()
            self.done = round(max(report.percent or 0.0, self.done + _SMALL_STEP), 2)
            message = report.lines[-1] if report.lines else "running"
            await self.conversation.progress(min(self.done, 100.0), 100.0, message)
