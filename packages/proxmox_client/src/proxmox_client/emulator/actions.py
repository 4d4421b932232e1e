"""Actions on a running cluster, by name: for the control port and for scenario files."""

from collections.abc import Callable
from inspect import isawaitable
from typing import Any, Final

from proxmox_client.emulator.cluster import EmulatedCluster

ACTIONS: Final[dict[str, Callable[[EmulatedCluster], Callable[..., Any]]]] = {
    "fault": lambda cluster: cluster.fault,
    "clear": lambda cluster: cluster.faults.clear,
    "node-down": lambda cluster: cluster.node_down,
    "node-up": lambda cluster: cluster.node_up,
    "stop-service": lambda cluster: cluster.stop_service,
    "start-service": lambda cluster: cluster.start_service,
    "drop-connections": lambda cluster: cluster.drop_connections,
    "lose-quorum": lambda cluster: cluster.lose_quorum,
    "restore-quorum": lambda cluster: cluster.restore_quorum,
    "stick-storage": lambda cluster: cluster.stick_storage,
    "fail-storage": lambda cluster: cluster.fail_storage,
    "repair-storage": lambda cluster: cluster.repair_storage,
    "refuse-agent": lambda cluster: cluster.refuse_agent,
    "skew-clock": lambda cluster: cluster.skew_clock,
    "swap-certificate": lambda cluster: cluster.swap_certificate,
    "expire-sessions": lambda cluster: cluster.expire_sessions,
}


async def act(cluster: EmulatedCluster, action: str, arguments: dict[str, Any]) -> None:
    """Run an action with its arguments; raise KeyError for an unknown one."""
    result = ACTIONS[action](cluster)(**arguments)
    if isawaitable(result):
        await result
