"""An emulated cluster in a separate process, so that CPU times are the client's alone.

    with emulated(nodes=50, guests=10_000) as pve:
        pve["hosts"], pve["fingerprints"], pve["ca_pem"], pve["token_id"], pve["token_secret"]

Run as a script, this is that process: it prints the connection data and ends with its stdin.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from proxmox_client import ApiToken, Client, Limits, Tls
from proxmox_client.emulator import ConnectionLimits, Emulator, Scenario


@contextmanager
def emulated(
    nodes: int, guests: int, drops: float = 0.0, idle: float = 5.0
) -> Iterator[dict[str, Any]]:
    """Start an emulated cluster and yield its connection data.

    `drops` percent of its answers break off halfway; idle connections are closed after `idle`
    seconds.
    """
    command = [sys.executable, __file__, str(nodes), str(guests), str(drops), str(idle)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        yield json.loads(process.stdout.readline())
        process.stdin.close()


def client_of(pve: dict[str, Any], limits: Limits | None = None) -> Client:
    """Create a client with the cluster's certificates pinned."""
    token = ApiToken(pve["token_id"], pve["token_secret"])
    tls = Tls(fingerprints=pve["fingerprints"])
    return Client(pve["hosts"], token, tls=tls, limits=limits or Limits())


async def serve(nodes: int, guests: int, drops: float, idle: float) -> None:
    """Print the connection data, then serve until stdin ends."""
    scenario = Scenario.cluster("bench", nodes=nodes, guests=guests)
    async with Emulator(scenario, limits=ConnectionLimits(idle_seconds=idle)) as pve:
        cluster = pve["bench"]
        if drops:
            cluster.fault("drop", percent=drops)
        token_id, secret = cluster.token
        connection = {
            "hosts": cluster.hosts,
            "fingerprints": list(cluster.fingerprints.values()),
            "ca_pem": cluster.ca_pem,
            "token_id": token_id,
            "token_secret": secret,
        }
        print(json.dumps(connection), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), *map(float, sys.argv[3:])))
