"""Requests for another node are answered by that node, when it can be reached."""

from collections.abc import Mapping
from typing import Any, Final

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.faults import Faults
from proxmox_client.emulator.http.messages import Response
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.node import Node
from proxmox_client.schema import Endpoint

LOOKUP_FAILED: Final = (
    "hostname lookup '{0}' failed - failed to get address info for: {0}: "
    "Temporary failure in name resolution"
)


class Proxy:
    """Finds the node that answers and says why it does not."""

    def __init__(self, state: ClusterState, faults: Faults) -> None:
        self._state, self._faults = state, faults

    def target(self, endpoint: Endpoint, values: Mapping[str, Any], here: Node) -> Node:
        """The node that answers this request."""
        if not endpoint.proxied_to:
            return here
        name = str(values[endpoint.proxied_to])
        if name == "localhost":
            return here
        if name not in self._state.nodes:
            raise ApiError(LOOKUP_FAILED.format(name))
        return self._state.nodes[name]

    async def reach(self, node: Node, method: str, path: str) -> Response | None:
        """Nothing when the node answers, else what the proxy says instead."""
        return await self._faults.on_the_way(node, method, path)
