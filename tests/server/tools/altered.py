"""Answers of an emulated cluster, altered on their way to the client."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from proxmox_client.responses import Response

from .tool_client import ConnectedCluster

Rows = list[dict[str, Any]]
RESOURCES = "/cluster/resources"


@contextmanager
def altered(
    cluster: ConnectedCluster, path: str, change: Callable[[Response], Response]
) -> Iterator[None]:
    """Change the responses of all hosts to GET `path`, or to every request if it is empty."""
    transport = cluster.pve.transport
    send, probe = transport.request, transport._probe

    async def request(method: str, asked: str, parameters: Mapping[str, Any]) -> Response:
        response = await send(method, asked, parameters)
        return change(response) if method == "GET" and path in ("", asked) else response

    async def probed(asked: str, hosts: Iterable[str]) -> dict[str, Response]:
        responses = await probe(asked, hosts)
        return {h: change(r) if path in ("", asked) else r for h, r in responses.items()}

    transport.request, transport._probe = request, probed  # type: ignore[method-assign]
    cluster.inventory.invalidate()
    try:
        yield
    finally:
        transport.request, transport._probe = send, probe  # type: ignore[method-assign]
        cluster.inventory.failure = None  # or it would not be asked again for seconds
        cluster.inventory.invalidate()


def rows_changed(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[..., Response]:
    """Return a change of a response that changes each of its rows."""

    def changed(response: Response) -> Response:
        content = json.loads(response.body)
        content["data"] = [change(row) for row in content["data"]]
        return response._replace(body=json.dumps(content).encode())

    return changed


def without_statistics(*nodes: str) -> Callable[..., Response]:
    """Return the change of /cluster/resources on nodes whose pvestatd has hung for minutes.

    Proxmox VE 9.2 was seen to answer so: QUIRKS, "Seen on 9.2.11".
    """
    kept = {
        "node": {"id", "type", "node"},
        "qemu": {"id", "type", "node", "vmid", "pool", "tags"},
        "lxc": {"id", "type", "node", "vmid", "pool", "tags"},
        "storage": {"id", "type", "node", "storage", "plugintype", "content", "shared"},
    }

    def change(row: dict[str, Any]) -> dict[str, Any]:
        if row.get("node") not in nodes or row["type"] not in kept:
            return row
        left = {key: value for key, value in row.items() if key in kept[row["type"]]}
        return {**left, "status": "unknown"}

    return rows_changed(change)
