"""Fixtures of the emulator's tests: clients of an emulated cluster."""

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

# pytest_plugins is allowed in the top conftest only, so the fixtures are imported
__all__ = ["proxmox", "proxmox_clock", "proxmox_scenario"]


@dataclass
class ApiClient:
    """An HTTPS client of one cluster, with one token or anonymous."""

    http: httpx.AsyncClient
    cluster: EmulatedCluster

    async def request(self, method: str, path: str, /, **params: Any) -> httpx.Response:
        """Send a request; return the response."""
        if method in ("POST", "PUT"):
            return await self.http.request(method, f"/api2/json{path}", data=params)
        return await self.http.request(method, f"/api2/json{path}", params=params)

    async def get(self, path: str, /, **params: Any) -> Any:
        """Return the data of a GET, which must succeed."""
        return await self.data("GET", path, **params)

    async def data(self, method: str, path: str, /, **params: Any) -> Any:
        """Return the data of a request, which must succeed."""
        response = await self.request(method, path, **params)
        assert response.status_code == 200, f"{response.status_code} {response.reason_phrase}"
        return response.json()["data"]

    async def task(self, method: str, path: str, /, **params: Any) -> dict[str, Any]:
        """Return the final status of the task that a request starts."""
        upid = await self.data(method, path, **params)
        await self.cluster.tasks.settle()
        node = upid.split(":")[1]
        return await self.get(f"/nodes/{node}/tasks/{upid}/status")

    async def log(self, upid: str) -> list[str]:
        """Return all lines of a task's log."""
        node = upid.split(":")[1]
        rows = await self.get(f"/nodes/{node}/tasks/{upid}/log", limit=0)
        return [row["t"] for row in rows]


@asynccontextmanager
async def connect(cluster: EmulatedCluster, token: tuple[str, str] | None, node: int = 0):
    headers = {"Authorization": f"PVEAPIToken={token[0]}={token[1]}"} if token else {}
    context = ssl.create_default_context(cadata=cluster.ca_pem)
    base = f"https://{cluster.hosts[node]}"
    async with httpx.AsyncClient(
        verify=context, base_url=base, headers=headers, timeout=60
    ) as http:
        yield ApiClient(http, cluster)


@pytest.fixture
def open_client() -> Callable[..., Any]:
    """Return the function that opens an ApiClient for a cluster and a token, or None."""
    return connect


@pytest.fixture
def lab(proxmox: Emulator) -> EmulatedCluster:
    """Return the emulated cluster `lab` of three nodes."""
    return proxmox["lab"]


@pytest.fixture
async def admin(lab: EmulatedCluster) -> AsyncIterator[ApiClient]:
    """Open a client of the lab with every privilege."""
    async with connect(lab, lab.token) as client:
        yield client


@pytest.fixture
def reason_of() -> Callable[[httpx.Response], str]:
    """Return a function that checks the message of a response and returns it."""

    def reason(response: httpx.Response) -> str:
        if response.content:
            assert json.loads(response.content)["message"].startswith(response.reason_phrase)
        return response.reason_phrase

    return reason
