"""Power state of guests: start, stop, shutdown, reset, reboot, suspend, resume."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Final, Literal, cast

from pydantic import Field

from proxmox_client import Qemu, Task
from proxmox_client.api.lxc import LxcAction
from proxmox_client.api.qemu import QemuAction
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.errors import Precondition
from pvemcp_server.shown_names import shown_name
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import ItsCluster, VmId, Words
from pvemcp_server.toolkit.bulk import BulkLimits
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.past_tasks import past_tasks
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.room import room_on_node
from pvemcp_server.toolkit.undo import LeftState, Undo
from pvemcp_server.toolkit.write_target import (
    TargetGuest,
    refuse_ha_error,
    refuse_template,
    target_guest,
)

Action = Annotated[
    Literal["Start", "Stop", "Shutdown", "Reset", "Reboot", "Suspend", "Resume"],
    Words({"Start": "boot", "Reboot": "restart", "Suspend": "pause", "Resume": "unpause"}),
    Field(description="Stop and Reset pull the plug; Shutdown and Reboot ask the guest"),
]


@dataclass(frozen=True, slots=True)
class _Rule:
    """The states in which an action is possible, and what it loses."""

    states: tuple[str, ...]
    loses: str = ""
    qemu_only: bool = False


_UNSAVED = "What the guest has not written to its disks is lost."
_RULES = {
    "Start": _Rule(("stopped",)),
    "Stop": _Rule(("running", "paused"), _UNSAVED),
    "Shutdown": _Rule(("running",)),
    "Reset": _Rule(("running", "paused"), _UNSAVED, qemu_only=True),
    "Reboot": _Rule(("running",)),
    "Suspend": _Rule(("running",)),
    "Resume": _Rule(("paused",)),
}
_REVERSED: Final[Mapping[str, tuple[str, Action]]] = {
    "Start": ("running", "Shutdown"),
    "Stop": ("stopped", "Start"),
    "Shutdown": ("stopped", "Start"),
    "Suspend": ("paused", "Resume"),
    "Resume": ("running", "Suspend"),
}
"""The state that an action leaves, and the action that reverses it."""
_WORDS = {"Shutdown": "Shut down"}  # where the action's name is no verb
_BY_HA = frozenset({"Start", "Stop", "Shutdown"})  # Proxmox itself carries out the others
# The lock of a VM that was suspended to disk; starting the VM releases it.
_HIBERNATED = frozenset({"suspended"})


@tool(
    "ChangeVmState",
    view="plan",
    title="Change guest state",
    area=Area.VMS,
    effect=Effect.WRITE,
    may_lose_data=True,
    needs=(needs.GUESTS, needs.POWER),
    bulk=BulkLimits(per_node=4),
)
async def change_vm_state(
    call: Call, *, cluster_name: ItsCluster = None, vmid: VmId, action: Action
) -> Plan:
    """Start, stop, shut down, reset, reboot, suspend or resume VMs or containers."""
    locks = _HIBERNATED if action in ("Start", "Resume") else frozenset[str]()
    guest = await target_guest(call, cluster_name, vmid, locks=locks)
    _require_possible(guest, action)
    by_manager = action in _BY_HA and guest.status.ha.managed
    warning = "HA manages this guest: the task only asks its manager, which acts later."
    return Plan(
        cluster=guest.cluster,
        guest=guest,
        would=f"{_WORDS.get(action, action)} {guest.label}, which is {shown_name(guest.state)}.",
        loses=_RULES[action].loses,
        ids={"vmid": vmid, "action": action},
        act=partial(_send, guest, action),
        warnings=(warning,) if by_manager else (),
        past=None
        if by_manager
        else past_tasks(guest, f"qm{action.lower()}", f"vz{action.lower()}"),
        room=await room_on_node(guest, guest.node) if action == "Start" else "",
        runs_on=guest.node if action == "Start" else "",
        undo=(undo := _undo(guest, action)),
        read_undo=partial(_read_undo, guest, undo) if undo and action == "Start" else None,
    )


def _undo(guest: TargetGuest, action: str) -> Undo | None:
    """Return the call that brings its state back; a VM that was paused is not paused by a start."""
    if action not in _REVERSED or (action == "Stop" and guest.state == "paused"):
        return None
    state, reverse = _REVERSED[action]
    if state == "paused" and guest.resource.type == "lxc":
        state = "stopped"  # as Proxmox reports a suspended container
    pid = (guest.status.pid or None) if action in ("Suspend", "Resume") else None
    left = LeftState(node=guest.node, state=state, pid=pid)
    return guest.undo("ChangeVmState", left, action=reverse)


async def _read_undo(guest: TargetGuest, planned: Undo) -> Undo:
    """Return the undo of a start, only for the process that it has started."""
    pid = (await guest.api.status()).pid or None
    return replace(planned, left={guest.vmid: replace(planned.left[guest.vmid], pid=pid)})


def _require_possible(guest: TargetGuest, action: str) -> None:
    """Raise Precondition if the guest's type, its HA state or its power state rules it out."""
    rule = _RULES[action]
    if rule.qemu_only and guest.resource.type != "qemu":
        raise Precondition(f"{guest.label} is a container: {action} is for virtual machines.")
    if action == "Start":
        refuse_template(guest, "be started")
    if action in _BY_HA:
        refuse_ha_error(guest)
    # Proxmox reports a VM suspended to disk, and every suspended container, as stopped
    may_hibernate = guest.status.lock in _HIBERNATED or guest.resource.type == "lxc"
    if action == "Resume" and may_hibernate:
        return
    if guest.state not in rule.states:
        raise Precondition(
            f"{guest.label} is {guest.state}; {action} needs it {' or '.join(rule.states)}.",
            hint="Resume it first." if guest.state == "paused" and action != "Resume" else "",
        )


async def _send(guest: TargetGuest, action: Action) -> Task:
    command = action.lower()
    if isinstance(guest.api, Qemu):
        command = "start" if guest.status.lock in _HIBERNATED else command
        return await guest.api.power(cast(QemuAction, command))
    return await guest.api.power(cast(LxcAction, command))
