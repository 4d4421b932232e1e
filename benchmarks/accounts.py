"""Many accounts on one cluster: memory of each, and what publishing an inventory costs.

    python benchmarks/accounts.py [--accounts 200] [--guests 100]

The memory is what Python allocated for connection, client and inventory of an account, without
the emulator.
"""

import argparse
import asyncio
import gc
import time
import tracemalloc
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from proxmox_client.emulator import Emulator, Scenario
from pvemcp_server.access import open_access
from pvemcp_server.clusters import Clusters, InventoryView
from pvemcp_server.clusters.shared_inventory import Published
from pvemcp_server.config import Config
from pvemcp_server.store import open_store
from support.lab import add_lab

EMULATOR = tracemalloc.Filter(inclusive=False, filename_pattern="*/emulator/*")


async def measure(clusters: Clusters, secret: str, accounts: int, *, own: bool) -> float:
    """Return the KiB of each account, with rows of their own or in the pool of the cluster."""
    default = await clusters.connection("lab")
    configured = await clusters._configuration()  # noqa: SLF001 - without a row for each account
    gc.collect()
    tracemalloc.start()
    for number in range(accounts):
        identity = replace(default.identity, id=1_000 + number, is_default=own)
        connection = clusters._connect(configured, default.record, identity, secret)  # noqa: SLF001 - without a row for each account
        await connection.inventory.view()
    gc.collect()
    statistics = tracemalloc.take_snapshot().filter_traces([EMULATOR]).statistics("filename")
    tracemalloc.stop()
    for key in [key for key in clusters._open if key[1] >= 1_000]:  # noqa: SLF001 - without a row for each account
        clusters._forget(key)  # noqa: SLF001 - without a row for each account
    return sum(each.size for each in statistics) / accounts / 1024


def publishing(view: InventoryView) -> str:
    began = time.process_time()
    for _ in range(10):
        packed = Published.of(view).packed()
    between = time.process_time()
    for _ in range(10):
        Published.unpacked(packed)
    write, read = (between - began) * 100, (time.process_time() - between) * 100
    return f"{len(packed):,} bytes, {write:.1f} ms to write, {read:.1f} ms to read"


async def main(accounts: int, guests: int) -> None:
    async with Emulator(Scenario.cluster("lab", nodes=4, guests=guests)) as emulator:
        lab = emulator["lab"]
        with TemporaryDirectory() as folder:
            async with (
                open_store(Config(state_dir=Path(folder) / "var")) as store,
                open_access(store) as access,
                aclosing(Clusters(store, lambda: 3600.0)) as clusters,
            ):
                _, secret = lab.token
                await add_lab(access, lab)
                view = await (await clusters.connection("lab")).inventory.view()
                print(f"published: {publishing(view)}", flush=True)
                for own in (True, False):
                    kib = await measure(clusters, secret, accounts, own=own)
                    print(f"{'own rows' if own else 'shared rows'}: {kib:.1f} KiB an account")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=200)
    parser.add_argument("--guests", type=int, default=100)
    options = parser.parse_args()
    asyncio.run(main(options.accounts, options.guests))
