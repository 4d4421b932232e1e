"""What the emulator's tests share."""

import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx
import pytest

from proxmox_client.emulator import EmulatedCluster, Emulator
from proxmox_client.emulator.pytest_plugin import proxmox, proxmox_clock, proxmox_scenario

# A conftest below the top may not name plugins; its fixtures can be imported
__all__ = ["proxmox", "proxmox_clock", "proxmox_scenario"]


@dataclass
class Asker:
    """Asks one cluster as somebody, over HTTPS."""

    http: httpx.AsyncClient
    cluster: EmulatedCluster

    async def ask(self, method: str, path: str, /, **params: Any) -> httpx.Response:
        """The answer to a request."""
        if method in ("POST", "PUT"):
            return await self.http.request(method, f"/api2/json{path}", data=params)
        return await self.http.request(method, f"/api2/json{path}", params=params)

    async def get(self, path: str, /, **params: Any) -> Any:
        """The data of a GET that succeeds."""
        return await self.data("GET", path, **params)

    async def data(self, method: str, path: str, /, **params: Any) -> Any:
        """The data of a request that succeeds."""
        response = await self.ask(method, path, **params)
        assert response.status_code == 200, f"{response.status_code} {response.reason_phrase}"
        return response.json()["data"]

    async def task(self, method: str, path: str, /, **params: Any) -> dict[str, Any]:
        """The end of a task that a request begins."""
        upid = await self.data(method, path, **params)
        await self.cluster.tasks.settle()
        node = upid.split(":")[1]
        return await self.get(f"/nodes/{node}/tasks/{upid}/status")

    async def log(self, upid: str) -> list[str]:
        """All lines of a task's log."""
        node = upid.split(":")[1]
        rows = await self.get(f"/nodes/{node}/tasks/{upid}/log", limit=0)
        return [row["t"] for row in rows]


@asynccontextmanager
async def open_asker(cluster: EmulatedCluster, token: tuple[str, str] | None, node: int = 0):
    headers = {"Authorization": f"PVEAPIToken={token[0]}={token[1]}"} if token else {}
    context = ssl.create_default_context(cadata=cluster.ca_pem)
    base = f"https://{cluster.hosts[node]}"
    async with httpx.AsyncClient(verify=context, base_url=base, headers=headers) as http:
        yield Asker(http, cluster)


@pytest.fixture
def asker() -> Callable[..., Any]:
    """Opens an Asker for a cluster and a token."""
    return open_asker


@pytest.fixture
def lab(proxmox: Emulator) -> EmulatedCluster:
    """The emulated cluster of three nodes."""
    return proxmox["lab"]


@pytest.fixture
async def admin(lab: EmulatedCluster) -> AsyncIterator[Asker]:
    """Asks the lab with every right."""
    async with open_asker(lab, lab.token) as opened:
        yield opened


@pytest.fixture
def reason_of() -> Callable[[httpx.Response], str]:
    """The text of a status line and, where there is one, of the body's message."""

    def reason(response: httpx.Response) -> str:
        if response.content:
            assert json.loads(response.content)["message"].startswith(response.reason_phrase)
        return response.reason_phrase

    return reason
