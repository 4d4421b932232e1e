"""Requests for another node are answered by that node, when it can be reached."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.faults import PROXY_PATIENCE, Faults
from proxmox_client.emulator.http.messages import Response, empty
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

    async def send(
        self, node: Node, method: str, path: str, answer: Coroutine[Any, Any, Response]
    ) -> Response:
        """What the node answers, or what the proxy says when it does not."""
        unreachable = await self._faults.on_the_way(node, method, path)
        if unreachable is not None:
            answer.close()
            return unreachable
        answering = asyncio.ensure_future(answer)
        patience = asyncio.ensure_future(self._state.clock.sleep(PROXY_PATIENCE))
        try:
            await asyncio.wait({answering, patience}, return_when=asyncio.FIRST_COMPLETED)
            return await answering if answering.done() else empty(596, "Connection timed out")
        finally:
            answering.cancel()
            patience.cancel()
