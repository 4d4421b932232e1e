"""Many edits of clusters in a row: what each costs in open files, memory and requests.

    python benchmarks/edits.py [--clusters 190] [--edits 6] [--files 512]

All clusters are read after each edit of one of them, under the limit of open files of a server
that was started with `ulimit -n 512`. Fails when a cluster does not answer, or when files that
edits have opened stay open.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from proxmox_client import ProxmoxError
from proxmox_client.emulator import Emulator, Scenario
from pvemcp_server.access import open_access
from pvemcp_server.access.model import EVERYTHING
from pvemcp_server.clusters import Clusters, Notes
from pvemcp_server.config import Config
from pvemcp_server.store import Store, open_store
from pvemcp_server.store.records import TlsMode

REST_SECONDS = 4.0  # Proxmox closes an idle connection after 5 s


async def emulate(count: int) -> None:
    """Emulate clusters until the input ends; print how they are reached."""
    names = [f"c{number:03}" for number in range(count)]
    scenarios = [Scenario.cluster(name, nodes=1, guests=2) for name in names]
    clusters = {name: each.clusters[name] for name, each in zip(names, scenarios, strict=True)}
    async with Emulator(Scenario(clusters)) as emulator:
        facts = [
            [each.name, each.hosts, each.token, list(each.fingerprints.values())]
            for each in emulator
        ]
        print(json.dumps(facts), flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def read_all(clusters: Clusters, names: list[str], since: float) -> tuple[int, int]:
    """Read the inventory of each cluster; return how many answered, and how many were asked."""

    async def read(name: str) -> bool | None:
        try:
            cluster = await clusters.open(name, {}, EVERYTHING, Notes())
            return (await cluster.inventory_view()).taken > since
        except (ProxmoxError, OSError):
            return None

    answers = await asyncio.gather(*map(read, names))
    return sum(each is not None for each in answers), sum(bool(each) for each in answers)


async def edit(store: Store, facts: list[list], edits: int) -> bool:
    """Print the costs of edits; return whether all clusters answered and nothing stayed open."""
    process, names = psutil.Process(), [name for name, *_ in facts]
    at_rest = []
    async with (
        open_access(store) as access,
        aclosing(Clusters(store, lambda: 3600.0)) as clusters,
    ):
        for name, hosts, (token_id, secret), fingerprints in facts:
            await access.clusters.create(
                name,
                hosts,
                token_id=token_id,
                secret=secret,
                tls_mode=TlsMode.PINNED,
                fingerprints=fingerprints,
            )
        print("| edit | answered | asked again | seconds | files | files at rest | memory MiB |")
        print("|---|---|---|---|---|---|---|")
        complete = True
        for number in range(edits + 1):
            if number:
                await access.clusters.change(names[number], description=f"edit {number}")
            since = time.monotonic()
            await store.watch.poll()
            answered, asked = await read_all(clusters, names, since)
            seconds, files = time.monotonic() - since, process.num_fds()
            await asyncio.sleep(REST_SECONDS)
            at_rest.append(process.num_fds())
            memory = process.memory_info().rss >> 20
            print(
                f"| {number} | {answered} | {asked} | {seconds:.1f} | {files} | {at_rest[-1]} "
                f"| {memory} |",
                flush=True,
            )
            complete &= answered == len(names)
    return complete and at_rest[-1] <= at_rest[0]


async def in_new_state(facts: list[list], edits: int) -> bool:
    with TemporaryDirectory() as folder:
        async with open_store(Config(state_dir=Path(folder) / "var")) as store:
            return await edit(store, facts, edits)


def main(clusters: int, edits: int, files: int) -> bool:
    command = [sys.executable, __file__, "--emulate", str(clusters)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as emulator:
        facts = json.loads(emulator.stdout.readline())
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
        try:
            return asyncio.run(in_new_state(facts, edits))
        finally:
            emulator.stdin.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", type=int, default=190)
    parser.add_argument("--edits", type=int, default=6)
    parser.add_argument("--files", type=int, default=512)
    parser.add_argument("--emulate", type=int)
    options = parser.parse_args()
    if options.emulate:
        asyncio.run(emulate(options.emulate))
    else:
        sys.exit(not main(options.clusters, options.edits, options.files))
