"""The control port: inject faults into a running emulator from another process.

Off by default; plain HTTP without authentication, on loopback only.

    POST /prod/fault        {"kind": "hang", "node": "pve02", "times": 1}
    POST /prod/clear        {}
    POST /prod/node-down    {"node": "pve02"}
"""

import asyncio
from typing import Any

import msgspec

from proxmox_client.emulator.actions import ACTIONS, act
from proxmox_client.emulator.background_server import Emulator
from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.gateway import failure, success
from proxmox_client.emulator.http.connection import Connection, ConnectionLimits
from proxmox_client.emulator.http.messages import Request, Response


class ControlServer:
    """The HTTP server of the control port."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, port: int) -> None:
        """Listen on loopback; port 0 takes any free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)

    @property
    def port(self) -> int:
        """The port in use. Raise RuntimeError before `start`."""
        if self._server is None:
            raise RuntimeError("The control port is not open")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await Connection(reader, writer, self.answer, ConnectionLimits()).serve()
        finally:
            writer.close()

    async def answer(self, request: Request) -> Response:
        """Run the action of a request: 404 for an unknown one, 400 for bad arguments."""
        try:
            await self._run_action(request)
        except ApiError as problem:
            return failure(problem)
        except (TypeError, ValueError, KeyError) as problem:
            return failure(ApiError(f"cannot do that: {problem}", status=400))
        return success(None)

    async def _run_action(self, request: Request) -> None:
        name, _, action = request.path.strip("/").partition("/")
        if request.method != "POST" or name not in self._emulator.clusters or action not in ACTIONS:
            usage = f"POST /CLUSTER/ACTION with one of {', '.join(ACTIONS)}"
            raise ApiError(f"no such action: {usage}", status=404)
        arguments = msgspec.json.decode(request.body or b"{}", type=dict[str, Any])
        await act(self._emulator[name], action, arguments)
