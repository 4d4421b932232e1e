"""A wire in memory between a client and the nodes of an emulated cluster: no sockets, no TLS.

Requests and responses are the same as over HTTPS, and so are outages: a node that is offline
refuses connections, a response that is cut off or never sent is one of httpx's errors. What TLS,
connections and their limits do is tested over real HTTPS, in `tests/client/contract`,
`tests/emulator` and `test_faults.py`.
"""

import asyncio
from typing import Any

import httpx2 as httpx

from proxmox_client.emulator import EmulatedCluster
from proxmox_client.emulator.gateway import Gateway
from proxmox_client.emulator.http.messages import Delivery, Request, Response


class InProcess(httpx.AsyncBaseTransport):
    """Passes each request to the gateway of the node with its port."""

    def __init__(self, emulated: EmulatedCluster) -> None:
        nodes = emulated.state.nodes.values()
        self._gateways = {node.port: (node, Gateway(emulated, node)) for node in nodes}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        node, gateway = self._gateways[request.url.port or 0]
        if not node.online:
            raise httpx.ConnectError("All connection attempts failed", request=request)
        url = request.url
        asked = Request(
            request.method,
            url.raw_path.decode().partition("?")[0],
            url.query.decode(),
            {name.lower(): value for name, value in request.headers.items()},
            await request.aread(),
        )
        timeouts: dict[str, Any] = request.extensions["timeout"]
        try:
            async with asyncio.timeout(timeouts["read"]):
                response = await gateway.answer(asked)
                if response.delivery is Delivery.NEVER:
                    await asyncio.Event().wait()
        except TimeoutError as error:
            raise httpx.ReadTimeout("", request=request) from error
        if response.delivery is Delivery.CUT_OFF:
            raise httpx.RemoteProtocolError("the body is incomplete", request=request)
        return _received(response)


def _received(response: Response) -> httpx.Response:
    headers = [*response.headers, ("Content-Type", response.content_type or "")]
    phrase = response.phrase.encode("latin-1", "replace")
    return httpx.Response(
        response.status,
        headers=headers,
        content=response.body,
        extensions={"reason_phrase": phrase},
    )
