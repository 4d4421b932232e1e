"""Writes: checked first, told in a sentence, then sent; the task is followed to its end.

A write tool looks but does not touch: it answers with a Plan. The pipeline shows its sentence (a
dry run, or the question to the person) and only then calls `carry_out`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from proxmox_client import DeadlineExceeded, NodeUnreachable, Task, TlsError, Unreachable
from pvemcp_server.clusters import Cluster, explain
from pvemcp_server.errors import Unanswered
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.task_wait import follow


@dataclass(frozen=True, slots=True)
class Plan:
    """A write that has been checked: what it will do, what it will lose, and how to do it."""

    cluster: Cluster
    would: str  # a sentence with the verb first: "Delete snapshot 'x' of qemu 101 (web) on lab."
    ids: Mapping[str, Any]  # what the answer names beside success and upid
    act: Callable[[], Awaitable[Task | None]]  # sends it; the task where Proxmox starts one
    loses: str = ""  # a sentence on what cannot be brought back; empty when nothing is lost
    warnings: tuple[str, ...] = field(default=())  # what to know before, without being refused

    @property
    def sentence(self) -> str:
        """What the person is asked to allow, and what a dry run says."""
        return " ".join((self.would, self.loses, *self.warnings)).replace("  ", " ").strip()

    def preview(self) -> dict[str, Any]:
        """The answer of a dry run: nothing was touched."""
        return {"dry_run": True, **self.ids, "would": self.sentence}


async def carry_out(call: Call, plan: Plan) -> dict[str, Any]:
    """Send the write; the answer, with the task's outcome when the caller waits for it."""
    for warning in plan.warnings:
        call.notes.add(warning)
    try:
        task = await _sent(plan)
    finally:
        plan.cluster.changed()  # after an error too: Proxmox may have begun
    answer: dict[str, Any] = {"success": True, **plan.ids}
    if task is None:
        return answer
    call.upids.append(task.upid.text)
    try:
        return answer | {"upid": task.upid.text} | await follow(call, task)
    finally:
        plan.cluster.changed()


async def _sent(plan: Plan) -> Task | None:
    """The write, sent once. Without an answer nobody knows whether Proxmox took it."""
    try:
        return await plan.act()
    except TlsError:
        raise  # nothing was sent
    except (Unreachable, NodeUnreachable, DeadlineExceeded) as error:
        raise Unanswered(explain(error, plan.cluster.account)) from error
