"""Waiting for a Proxmox task: progress while it runs, its outcome at the end."""

import asyncio
from math import inf
from time import monotonic
from typing import Any

from proxmox_client import (
    DeadlineExceeded,
    ProxmoxError,
    Task,
    TaskFailed,
    TaskOutcome,
    TaskProgress,
)
from pvemcp_server.audit.log_secrets import mask_line
from pvemcp_server.clusters import reason_of
from pvemcp_server.toolkit.call import Call, Conversation

_SMALL_STEP = 0.01  # MCP requires every progress value to be larger than the last one
_UNFINISHED = 99.99  # 100 is a task that has succeeded
_MOST_OF_LOG = 99.0  # of a percentage in the log: the rest is left for signs of life
_SIGN_OF_LIFE = 10  # seconds between reports without news


async def follow(call: Call, task: Task) -> dict[str, Any]:
    """Return the task's outcome if the caller waits for it, else note how to ask for it."""
    if not (call.wait or call.conversation.wants_progress):
        call.notes.add("The task runs on in Proxmox: GetTask with this upid returns its outcome.")
        return {"task_status": "running"}
    try:
        outcome = await watch(call, task, call.task_wait_seconds)
    except DeadlineExceeded:
        why = "The server is shutting down; the" if call.closing.is_set() else "The"
        call.notes.add(f"{why} task is still running: GetTask with this upid returns its outcome.")
        return {"task_status": "running"}
    except TaskFailed:
        raise
    except ProxmoxError as error:  # the write is sent: its upid must not be lost
        call.notes.add(
            f"The task began, and its state can no longer be read ({reason_of(error)}): "
            "GetTask with this upid returns the outcome."
        )
        return {"task_status": "unknown"}
    return outcome_fields(outcome)


async def watch(call: Call, task: Task, seconds: float) -> TaskOutcome:
    """Wait for the task's end while reporting its progress to the client.

    Raise TaskFailed when it failed, and DeadlineExceeded after `seconds` or when the server
    shuts down. The Proxmox task runs on in any case, also when this coroutine is cancelled.
    """
    reports: asyncio.Queue[TaskProgress] = asyncio.Queue()
    forwarding = asyncio.create_task(_forward_progress(call.conversation, reports))
    # the log is read only for a client that is shown it
    report = reports.put_nowait if call.conversation.wants_progress else None
    ended = asyncio.create_task(task.wait(report, timeout=seconds))
    shutdown = asyncio.create_task(call.closing.wait())
    try:
        await asyncio.wait((ended, shutdown), return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            return ended.result()
        raise DeadlineExceeded("The server is shutting down")
    finally:
        # Also reached by cancellation. The exceptions are collected, not raised: a client that
        # has gone away fails the forwarding, and that must not replace the task's outcome.
        started = (ended, shutdown, forwarding)
        for background in started:
            background.cancel()
        await asyncio.gather(*started, return_exceptions=True)


async def _forward_progress(
    conversation: Conversation, reports: asyncio.Queue[TaskProgress]
) -> None:
    """Forward new log lines and percentages of a task to the client.

    There is a total only if the log has percentages. These may be about a part of the task, such as
    a download whose checksum then fails: 100 is for success. A poll without news is forwarded now
    and then, as clients give up a call without a sign of life.
    """
    done, sent, message = 0.0, -inf, "running"
    while True:
        report = await reports.get()
        percent = report.percent or 0.0
        if not report.lines and percent <= done and monotonic() - sent < _SIGN_OF_LIFE:
            continue
        message = mask_line(report.lines[-1]) if report.lines else message
        logged = percent if report.succeeded else min(percent, _MOST_OF_LOG)
        progress = max(logged, min(round(done + _SMALL_STEP, 2), _UNFINISHED))
        if progress > done:
            done, sent = progress, monotonic()
            await conversation.progress(done, None if report.percent is None else 100.0, message)


def outcome_fields(outcome: TaskOutcome) -> dict[str, Any]:
    """Return an outcome as answer fields; the end of its log only when it has warnings."""
    fields: dict[str, Any] = {
        "task_status": "stopped",
        "exit_status": outcome.exit_status,
        "ok": outcome.ok,
    }
    if outcome.warnings:
        fields |= {"warnings": outcome.warnings, "log": list(map(mask_line, outcome.log_tail))}
    return fields
