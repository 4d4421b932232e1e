"""The errors of changes without quorum, when /etc/pve cannot be written.

Some changes are refused at once, some by the lock of the file that they change, and some begin a
task, which fails when it writes the configuration of its guest.
"""

import re
from typing import Any, Final

from proxmox_client.emulator.errors import ApiError, TaskFailed
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest, Kind
from proxmox_client.emulator.tasks.locks import unwritable
from proxmox_client.emulator.tasks.runner import TaskContext, TaskFunction
from proxmox_client.schema import Endpoint

NOT_READY: Final = "cluster not ready - no quorum?"
_GUEST: Final = r"/nodes/\{node\}/(qemu|lxc)/\{vmid\}"
BY_FILE: Final = (
    (r"PUT /access/acl", "user", "ACL update failed: "),
    (r"POST /access/users", "user", "create user failed: "),
    (r"(PUT|DELETE) /access/users/\{userid\}", "user", "update user failed: "),
    (r"POST /access/groups", "user", "create group failed: "),
    (r"POST /access/roles", "user", "create role failed: "),
    (r"(POST|PUT|DELETE) /access/.*", "user", ""),
    (r"POST /pools", "user", "create pool failed: "),
    (r"PUT /pools(/\{poolid\})?", "user", "update pools failed: "),
    (r"DELETE /pools(/\{poolid\})?", "user", "delete pool failed: "),
    (r"(POST|PUT|DELETE) /cluster/backup.*", "jobs", ""),
    (r"PUT /cluster/options", "datacenter", ""),
    (r"POST /storage", "storage", "create storage failed: "),
    (r"PUT /storage/.*", "storage", "update storage failed: "),
    (r"DELETE /storage/.*", "storage", "delete storage failed: "),
    (r"(PUT|DELETE) /cluster/replication.*", "replication", ""),
)
"""Requests, the configuration file whose lock fails, and the beginning of the message."""
ALLOWED: Final = (
    rf"POST {_GUEST}/(snapshot|config|agent/.*|template)",
    rf"(PUT|DELETE) {_GUEST}(/snapshot.*|/resize|)",
    r"POST /nodes/\{node\}/vzdump",
    r"POST /cluster/replication",
    r"DELETE /nodes/\{node\}/(storage|tasks)/.*",
)
"""Requests that are not refused at once: they begin a task, or check other things first."""
WRITES: Final = frozenset(
    {"qmconfig", "resize"}
    | {f"{kind}{word}" for kind in ("qm", "vz") for word in ("snapshot", "delsnapshot", "destroy")}
    | {f"{kind}{word}" for kind in ("qm", "vz") for word in ("rollback", "template")}
)
"""Types of tasks that write the configuration of their guest."""


def check_quorum(state: ClusterState, endpoint: Endpoint, params: dict[str, Any]) -> None:
    """Raise ApiError for a change that is refused before it begins."""
    change = f"{endpoint.method} {endpoint.path}"
    if state.quorate or any(re.fullmatch(pattern, change) for pattern in ALLOWED):
        return
    if re.fullmatch(f"PUT {_GUEST}/config", change):
        kind = Kind.LXC if "/lxc/" in endpoint.path else Kind.QEMU
        raise ApiError(unwritable(state.guest(kind, params["node"], params["vmid"]), state))
    for pattern, file, beginning in BY_FILE:
        if re.fullmatch(pattern, change):
            raise ApiError(f"{beginning}cfs-lock 'file-{file}_cfg' error: no quorum!")
    raise ApiError(NOT_READY)


def failing_write(guest: Guest) -> TaskFunction:
    """Return the task that fails because it cannot write a guest's configuration."""

    async def run(context: TaskContext) -> None:
        raise TaskFailed(unwritable(guest, context.state))

    return run
