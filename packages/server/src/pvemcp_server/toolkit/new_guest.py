"""A guest that a write makes: its VMID, the steps after it is made, and what is left to do.

The write is sent once. Proxmox reserves no VMID, so one that another client takes first is refused,
and the next one is sent: nothing was made by then. A step that fails afterwards raises PartlyDone,
whose text, also in the audit, names the new guest and what is left to do.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from math import inf
from time import monotonic
from typing import Any, TypeVar

from proxmox_client import (
    Conflict,
    DeadlineExceeded,
    Forbidden,
    Lxc,
    ProxmoxError,
    Qemu,
    Task,
    TaskFailed,
    TaskOutcome,
)
from proxmox_client.api.resources import GuestType
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import CallError, PartlyDone
from pvemcp_server.shown_names import shown_name
from pvemcp_server.toolkit.call import Call, Conversation, Decision
from pvemcp_server.toolkit.guest_addresses import addresses_of
from pvemcp_server.toolkit.guest_options import GuestOptions
from pvemcp_server.toolkit.next_call import NextCall
from pvemcp_server.toolkit.task_wait import follow, outcome_fields, watch
from pvemcp_server.toolkit.undo import LeftState, Undo
from pvemcp_server.toolkit.undo_check import left_config
from pvemcp_server.toolkit.write_target import free_vmid

T = TypeVar("T")

_MOST_VMIDS = 10  # that are tried if others take them first
_STAGE = 100.0  # progress of one task
_ADDRESS_SECONDS = 120  # that a started guest has to boot
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 4.0  # seconds between questions for its address


@dataclass(frozen=True, slots=True)
class _Stage:
    """The client's conversation during a later task: its progress goes on from the one before."""

    client_conversation: Conversation
    done_before: float

    @property
    def client(self) -> str:
        return self.client_conversation.client

    @property
    def wants_progress(self) -> bool:
        return self.client_conversation.wants_progress

    async def progress(self, done: float, total: float | None, message: str) -> None:
        del total  # of the one task
        await self.client_conversation.progress(self.done_before + done, None, message)

    async def ask(self, question: str, beside: str = "", digest: str = "") -> Decision:
        return await self.client_conversation.ask(question, beside, digest)


@dataclass(slots=True)
class NewGuest:
    """A guest to be made by `send`, which gets its VMID; then set up with `options`, and started.

    `made` is the participle for its texts: cloned, created.
    """

    cluster: Cluster
    kind: GuestType
    name: str
    node: str
    vmid: int
    is_vmid_fixed: bool  # the caller named it
    send: Callable[[int], Awaitable[Task]] = field(repr=False)  # with the password
    made: str
    check_vmid: Callable[[int], None]  # raises for one that it must not have
    options: GuestOptions = field(default_factory=GuestOptions)
    start: bool = False
    has_system: bool = True  # an operating system, which gets an address
    _tried: int = 1
    _ends: float = inf  # on the monotonic clock
    _stages: int = 0

    @property
    def label(self) -> str:
        """The guest in a sentence: `qemu 501 (web-1) on lab`."""
        return f"{self.kind} {self.vmid} ({shown_name(self.name)}) on {self.cluster.name}"

    def removal(self, name: str | None = None) -> NextCall:
        """Return the call that removes it, under another name if it has another."""
        arguments = {"cluster_name": self.cluster.name, "vmid": self.vmid}
        return NextCall("DeleteVm", arguments | {"name": name or self.name})

    async def act(self) -> Task:
        """Send it; send it with the next free VMID if Proxmox refuses this one as taken."""
        while True:
            try:
                return await self.send(self.vmid)
            except Conflict as error:
                if not _is_taken(error.message) or not await self._next_vmid():
                    raise

    async def finish(self, call: Call, task: Task) -> dict[str, Any]:
        """Set it up, and return the fields of the answer: half-way or not, it can be removed."""
        try:
            fields = await self.set_up(call, task)
        except PartlyDone:
            call.undos.append(Undo(self.removal(), await self._left()))
            raise
        except TaskFailed:  # Proxmox has removed what the task made
            raise
        except (ProxmoxError, asyncio.CancelledError):  # the task goes on
            call.undos.append(Undo(self.removal()))
            raise
        is_made = fields.get("task_status") not in ("running", "unknown")
        if fields.get("guest_status") in ("starting", "running"):
            call.undos.append(Undo(self._end()))
        call.undos.append(Undo(self.removal(), await self._left() if is_made else {}))
        return fields

    def _end(self) -> NextCall:
        """Return the call that has to come before its removal once it was started."""
        action = "Shutdown" if self.has_system else "Stop"  # without one, nothing shuts it down
        where = {"cluster_name": self.cluster.name, "vmids": [self.vmid]}
        return NextCall("ChangeVmState", where | {"action": action})

    async def _left(self) -> dict[int, LeftState]:
        return {self.vmid: await left_config(self._api)}

    async def set_up(self, call: Call, task: Task) -> dict[str, Any]:
        """Return the fields of the answer; follow the task, and take the steps after it.

        Steps need its end, so a call that has any waits for it, whether or not it has `wait`.
        """
        fields = await self._set_up(call, task)
        return {"vmid": self.vmid} | fields  # which may be another one than planned

    async def _set_up(self, call: Call, task: Task) -> dict[str, Any]:
        waits = call.wait or call.conversation.wants_progress
        if not (waits or self.start or self._has_options):
            return await follow(call, task)
        self._ends = monotonic() + call.settings.task_wait_max_seconds
        try:
            fields = await self._made(call, task)
        except DeadlineExceeded:
            call.notes.add(
                f"It is not {self.made} yet: GetTask with this upid returns its outcome."
            )
            if rest := self._steps():
                call.notes.add(f"Left to do then: {', '.join(rest)}.")
            return {"task_status": "running"}
        api = self._api
        if self._has_options:
            await self._step("its options were not set", self._set_options(api), self.start)
        if not self.start:
            return fields | {"guest_status": "stopped"}
        started: Task = await self._step("it was not started", api.power("start"))
        call.upids.append(started.upid.text)
        if not waits or not await self._step("its start failed", self._ended(call, started)):
            call.notes.add("It is starting: GetVmStatus shows its state and its address.")
            return fields | {"guest_status": "starting", "start_upid": started.upid.text}
        self.cluster.changed()
        addresses = await self._addresses(call, api)
        return fields | {"guest_status": "running", "ip_addresses": addresses}

    @property
    def _api(self) -> Qemu | Lxc:
        handle = self.cluster.pve.qemu if self.kind == "qemu" else self.cluster.pve.lxc
        return handle(self.node, self.vmid)

    @property
    def _has_options(self) -> bool:
        return self.options != GuestOptions()

    def _steps(self) -> list[str]:
        """Name the steps that follow, for a note."""
        options = ["set its options"] if self._has_options else []
        return [*options, *(["start it"] if self.start else [])]

    async def _next_vmid(self) -> bool:
        """Take the next free VMID; return False if the caller named one, or after many tries."""
        if self.is_vmid_fixed or self._tried == _MOST_VMIDS:
            return False
        self._tried += 1
        # a guest that is being made may be missing in Proxmox's answer for a moment
        self.vmid = await free_vmid(self.cluster, None, least=self.vmid + 1)
        self.check_vmid(self.vmid)
        return True

    async def _made(self, call: Call, task: Task) -> dict[str, Any]:
        """Return the outcome of the task that makes it; a VMID may be taken in the task, too."""
        while True:
            try:
                return {"upid": task.upid.text} | outcome_fields(await self._watch(call, task))
            except TaskFailed as error:
                if not _is_taken(error.exit_status) or not await self._next_vmid():
                    raise
            task = await self.act()
            call.upids.append(task.upid.text)

    async def _watch(self, call: Call, task: Task) -> TaskOutcome:
        stage = _Stage(call.conversation, _STAGE * self._stages)
        self._stages += 1
        return await watch(
            replace(call, conversation=stage), task, max(0.0, self._ends - monotonic())
        )

    async def _set_options(self, api: Qemu | Lxc) -> None:
        """Set the options of a clone, whose configuration is another one than its source's."""
        config = await api.config()
        parameters = self.options.parameters(self.kind, config.raw)
        await api.set_config(parameters, digest=config.digest)

    async def _ended(self, call: Call, task: Task) -> bool:
        """Wait for the task; return False if it still runs when the time is up."""
        try:
            await self._watch(call, task)
        except DeadlineExceeded:
            return False
        return True

    async def _step(self, fact: str, step: Awaitable[T], is_start_left: bool = False) -> T:
        """Take a step; raise PartlyDone with the `fact` if it fails."""
        try:
            return await step
        except (ProxmoxError, CallError) as error:
            also = ", nor was it started" if is_start_left else ""
            reason = await self.cluster.explain(error)
            message = f"{self.label} was {self.made}, but {fact}{also}: {reason}"
            raise PartlyDone(message, self.removal().text) from error

    async def _addresses(self, call: Call, api: Qemu | Lxc) -> list[str]:
        """Wait for its addresses; note why they are not known."""
        if not self.has_system:
            call.notes.add("Its address is known when a guest agent runs in it: GetVmStatus.")
            return []
        if isinstance(api, Qemu) and not (await self._agent_enabled(api)):
            call.notes.add("Its address is not known: its option agent is off.")
            return []
        pause, ends = _FIRST_PAUSE, min(self._ends, monotonic() + _ADDRESS_SECONDS)
        while True:
            try:
                found: Any = await (
                    api.agent_network() if isinstance(api, Qemu) else api.interfaces()
                )
            except Forbidden as error:
                reason = await self.cluster.explain(error)
                call.notes.add(f"Its address is not known: {reason}")
                return []
            except ProxmoxError:
                found = []  # it boots
            if addresses := addresses_of(found):
                return addresses
            if monotonic() + pause >= ends or call.closing.is_set():
                who = "guest agent answers" if isinstance(api, Qemu) else "address is there"
                call.notes.add(f"No {who} yet; call GetVmStatus with vmid {self.vmid}.")
                return []
            self._stages += 1
            await call.conversation.progress(_STAGE * self._stages, None, "waiting for its address")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _agent_enabled(self, api: Qemu) -> bool:
        try:
            return (await api.config()).agent_enabled
        except ProxmoxError:
            return True


def _is_taken(message: str) -> bool:
    """Return whether Proxmox refused a VMID because a guest has it."""
    return "already exists" in message or "File exists" in message
