"""Compare this client with proxmoxer, on an emulated cluster of 50 nodes and 10,000 guests.

    python benchmarks/client.py

CPU is the time of the client's process alone. proxmoxer sends one request at a time; its users
need a pool of threads for more.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from proxmoxer import ProxmoxAPI

from proxmox_client import Client, Limits
from proxmox_client.api.resources import Resources
from support.pve import client_of, emulated

NODES, GUESTS, CALLS, AT_ONCE, ROUNDS = 50, 10_000, 200, 4, 9
# not wider: pveproxy closes idle connections of calls that queue for a measurement
WIDE = Limits(per_cluster=16, per_node=2)


def main() -> None:
    """Measure and print."""
    print(f"{CALLS} × GET /nodes/{{node}}/status over {NODES} nodes, median of {ROUNDS}")
    print("| client | wall ms | CPU ms |\n|---|--:|--:|")
    with emulated(NODES, GUESTS) as pve, tempfile.NamedTemporaryFile("w", suffix=".pem") as ca:
        ca.write(pve["ca_pem"])
        ca.flush()
        candidates = runs(pve, ca.name)
        # interleaved, so that other load on the machine affects all candidates alike
        rounds = [{label: run() for label, run in candidates.items()} for _ in range(ROUNDS)]
        for label in candidates:
            wall, cpu = map(median, zip(*(times[label] for times in rounds), strict=True))
            print(f"| {label} | {wall * 1000:.0f} | {cpu * 1000:.0f} |")
        body = asyncio.run(resources_body(pve))
    print(f"\nDecode of {GUESTS:,} guests ({len(body) / 1e6:.1f} MB), median of {ROUNDS}")
    print("| way | ms |\n|---|--:|")
    decoders: dict[str, Callable[[], Any]] = {
        "ours: typed Structs, by kind": lambda: Resources.read(body),
        "proxmoxer: json, dicts": lambda: json.loads(body)["data"],
    }
    decoded = [{label: timed(run) for label, run in decoders.items()} for _ in range(ROUNDS)]
    for label in decoders:
        print(f"| {label} | {median(times[label] for times in decoded) * 1000:.0f} |")


def runs(pve: dict[str, Any], ca: str) -> dict[str, Callable[[], tuple[float, float]]]:
    """Return the candidates by name; each returns wall and CPU seconds."""
    return {
        f"ours, {AT_ONCE} at once": lambda: asyncio.run(ours(pve, Limits(per_cluster=AT_ONCE))),
        f"ours, {WIDE.per_cluster} at once": lambda: asyncio.run(ours(pve, WIDE)),
        "proxmoxer, one at a time": lambda: theirs(pve, ca, 1),
        f"proxmoxer, {AT_ONCE} threads": lambda: theirs(pve, ca, AT_ONCE),
    }


async def ours(pve: dict[str, Any], limits: Limits) -> tuple[float, float]:
    """Start all calls at once; the client's limits queue them."""
    async with client_of(pve, limits) as client:
        names = await node_names(client)

        async def calls() -> None:
            await asyncio.gather(*(client.node(name).status() for name in names))

        return await measure(calls)


async def node_names(client: Client) -> list[str]:
    """List a node name for each call; this also opens the first connection."""
    nodes = [node.node for node in await client.nodes()]
    return (nodes * (CALLS // len(nodes) + 1))[:CALLS]


async def measure(work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """Run some work and return its wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    await work()
    return time.perf_counter() - wall, time.process_time() - cpu


def theirs(pve: dict[str, Any], ca: str, threads: int) -> tuple[float, float]:
    """Make the same calls with proxmoxer and return wall and CPU seconds."""
    host, _, port = pve["hosts"][0].partition(":")
    user, _, name = pve["token_id"].partition("!")
    api = ProxmoxAPI(
        host,
        port=int(port),
        user=user,
        token_name=name,
        token_value=pve["token_secret"],
        verify_ssl=ca,
    )
    nodes = [node["node"] for node in api.nodes.get()]
    names = (nodes * (CALLS // len(nodes) + 1))[:CALLS]
    wall, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda node: api.nodes(node).status.get(), names))
    return time.perf_counter() - wall, time.process_time() - cpu


async def resources_body(pve: dict[str, Any]) -> bytes:
    """Fetch the undecoded body of /cluster/resources."""
    async with client_of(pve) as client:
        return (await client.transport.request("GET", "/cluster/resources", {})).body


def timed(work: Callable[[], Any]) -> float:
    """Run some work and return its seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
