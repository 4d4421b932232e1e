"""Turning guests on and off."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, cast

from pydantic import Field

from proxmox_client import Qemu, Task
from proxmox_client.api.lxc import LxcAction
from proxmox_client.api.qemu import QemuAction
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.errors import Precondition
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import OneCluster, VmId
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.write_target import Target, refuse_template, target

Action = Annotated[
    Literal["Start", "Stop", "Shutdown", "Reset", "Reboot", "Suspend", "Resume"],
    Field(description="Stop and Reset pull the plug; Shutdown and Reboot ask the guest"),
]


@dataclass(frozen=True, slots=True)
class _Rule:
    """In which states an action makes sense, and what it costs."""

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
_WORDS = {"Shutdown": "Shut down"}  # where the action is no verb
_BY_HA = frozenset({"Start", "Stop", "Shutdown"})  # Proxmox does the others itself
# A machine that was suspended to disk carries this lock, and starting it takes it away.
_HIBERNATED = frozenset({"suspended"})


@tool(
    "ChangeVmState",
    title="Change guest state",
    area=Area.VMS,
    effect=Effect.WRITE,
    needs=(needs.GUESTS, needs.POWER),
)
async def change_vm_state(
    call: Call, *, cluster_name: OneCluster = None, vmid: VmId, action: Action
) -> Plan:
    """Start, stop, shut down, reset, reboot, suspend or resume a VM or container."""
    locks = _HIBERNATED if action in ("Start", "Resume") else frozenset[str]()
    found = await target(call, cluster_name, vmid, locks=locks)
    _check(found, action)
    return Plan(
        cluster=found.cluster,
        would=f"{_WORDS.get(action, action)} {found.said}, which is {found.state}.",
        loses=_RULES[action].loses,
        ids={"vmid": vmid, "action": action},
        act=partial(_act, found, action),
        warnings=_warnings(found, action),
    )


def _check(found: Target, action: str) -> None:
    rule = _RULES[action]
    if rule.qemu_only and found.resource.type != "qemu":
        raise Precondition(f"{found.said} is a container: {action} is for virtual machines.")
    if action == "Start":
        refuse_template(found, "be started")
    if action in _BY_HA and found.status.ha.state == "error":
        raise Precondition(
            f"HA has {found.said} in state error and refuses commands.",
            hint="Someone has to disable it in HA, fix it, and enable it again.",
        )
    if action == "Resume" and _hibernates(found):
        return
    if found.state not in rule.states:
        raise Precondition(
            f"{found.said} is {found.state}; {action} needs it {' or '.join(rule.states)}.",
            hint="Resume it first." if found.state == "paused" and action != "Resume" else "",
        )


def _warnings(found: Target, action: str) -> tuple[str, ...]:
    if action not in _BY_HA or not found.status.ha.managed:
        return ()
    return ("HA manages this guest: the task only asks its manager, which acts later.",)


def _hibernates(found: Target) -> bool:
    """Suspended to disk: to Proxmox it is stopped, and a suspended container always is."""
    return found.status.lock in _HIBERNATED or found.resource.type == "lxc"


async def _act(found: Target, action: Action) -> Task:
    word = action.lower()
    if isinstance(found.calls, Qemu):
        word = "start" if found.status.lock in _HIBERNATED else word
        return await found.calls.power(cast(QemuAction, word))
    return await found.calls.power(cast(LxcAction, word))
