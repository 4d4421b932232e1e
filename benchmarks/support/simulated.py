"""The server with simulated clusters: many clusters without sockets, TLS or processes of their own.

Run as a script, this is `pvemcp serve` whose requests to Proxmox are answered in its process by the
emulator's gateway. All clusters show the guests of one emulated cluster, so their own memory is
small beside the server's. Hosts named `dead-…` refuse a connection, `hanging-…` never answer.
"""

import asyncio
import mmap
import os
import struct
import sys
from functools import partial
from pathlib import Path

import httpx2 as httpx

from proxmox_client import Client
from proxmox_client.emulator import Scenario, routes
from proxmox_client.emulator.backend import Backend
from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.gateway import Gateway
from proxmox_client.emulator.http.messages import Request
from proxmox_client.emulator.state.user_config import AclEntry, Token, User
from pvemcp_server.cli.main import app
from pvemcp_server.clusters.checks import CLIENTS
from pvemcp_server.store.records import ClusterKind

TOKEN_ID, SECRET = "mcp@pve!simulated", "5eeded00-0000-4000-8000-000000000000"


class Counter:
    """A number in a file that other processes can read while it grows."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)

    def increase(self) -> None:
        (number,) = struct.unpack("q", self._memory[:])
        self._memory[:] = struct.pack("q", number + 1)


def read_counter(path: Path) -> int:
    """Return the number; 0 before the process has started."""
    return struct.unpack("q", path.read_bytes())[0] if path.exists() else 0


class Simulation(httpx.AsyncBaseTransport):
    """Answers requests to all clusters from one emulated cluster."""

    def __init__(self, nodes: int, guests: int, sent: Counter) -> None:
        scenario = Scenario.cluster("simulated", nodes=nodes, guests=guests)
        state = scenario.clusters["simulated"](Clock())
        user = User("mcp@pve", tokens={"simulated": Token("simulated", SECRET, privsep=False)})
        state.user_config.users[user.userid] = user
        state.user_config.acl.append(AclEntry("/", "user", user.userid, "Administrator"))
        self._gateway = Gateway(Backend(state), next(iter(state.nodes.values())))
        self._sent = sent

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._sent.increase()
        await asyncio.sleep(0)
        if request.url.host.startswith("dead-"):
            raise httpx.ConnectError("Connection refused")
        if request.url.host.startswith("hanging-"):
            await asyncio.sleep(request.extensions["timeout"]["read"])
            raise httpx.ReadTimeout("No answer")
        answer = await self._gateway.answer(
            Request(
                request.method,
                request.url.raw_path.partition(b"?")[0].decode(),
                request.url.query.decode(),
                {name.lower(): value for name, value in request.headers.items()},
                await request.aread(),
            )
        )
        headers = {"content-type": answer.content_type} if answer.content_type else {}
        return httpx.Response(
            answer.status,
            headers=headers,
            stream=httpx.ByteStream(answer.body),
            extensions={"reason_phrase": answer.phrase.encode()},
        )


def main(nodes: int, guests: int, counter: Path) -> None:
    routes.register()
    simulation = Simulation(nodes, guests, Counter(counter))
    CLIENTS[ClusterKind.PVE] = partial(Client, http_transport=simulation)
    sys.argv = ["pvemcp", "serve"]
    app()


if __name__ == "__main__":
    main(int(os.environ["NODES"]), int(os.environ["GUESTS"]), Path(os.environ["COUNTER"]))
