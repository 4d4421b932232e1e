"""The proxy between nodes: a request for another node is handled by that node."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.faults import PROXY_TIMEOUT, Faults
from proxmox_client.emulator.http.messages import Response, empty
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.node import Node
from proxmox_client.schema import Endpoint

LOOKUP_FAILED: Final = (
    "hostname lookup '{0}' failed - failed to get address info for: {0}: "
    "Temporary failure in name resolution"
)


class Proxy:
    """Chooses the node that handles a request and answers 595, 596 or 599 in its place."""

    def __init__(self, state: ClusterState, faults: Faults) -> None:
        self._state, self._faults = state, faults

    def target(self, endpoint: Endpoint, values: Mapping[str, Any], receiver: Node) -> Node:
        """Return the node that handles a request; raise ApiError for an unknown node."""
        if not endpoint.proxied_to:
            return receiver
        name = str(values[endpoint.proxied_to])
        if name == "localhost":
            return receiver
        if name not in self._state.nodes:
            raise ApiError(LOOKUP_FAILED.format(name))
        return self._state.nodes[name]

    async def send(
        self,
        node: Node,
        method: str,
        path: str,
        handle: Callable[[], Coroutine[Any, Any, Response]],
    ) -> Response:
        """Return the response of another node, or the proxy's error if it does not respond.

        `handle` is cancelled when it takes longer than PROXY_TIMEOUT.
        """
        unreachable = await self._faults.before_proxying(node, method, path)
        if unreachable is not None:
            return unreachable
        response = asyncio.ensure_future(handle())
        timeout = asyncio.ensure_future(self._state.clock.sleep(PROXY_TIMEOUT))
        try:
            await asyncio.wait({response, timeout}, return_when=asyncio.FIRST_COMPLETED)
            return await response if response.done() else empty(596, "Connection timed out")
        finally:
            response.cancel()
            timeout.cancel()
