"""Benchmark of the emulator: start-up time and /cluster/resources.

python benchmarks/emulator.py [GUESTS]
"""

import asyncio
import ssl
import statistics
import sys
import time

from proxmox_client.emulator import Emulator, Scenario


async def main(guests: int) -> None:
    started = time.perf_counter()
    async with Emulator(Scenario.cluster("big", nodes=10, guests=guests)) as pve:
        print(f"{guests} guests ready after {time.perf_counter() - started:.2f} s")
        cluster = pve["big"]
        for _ in range(2):
            results = [
                await fetch(cluster.hosts[0], cluster.ca_pem, cluster.token) for _ in range(10)
            ]
            (first, size), times = results[0], [seconds for seconds, _ in results]
            median = statistics.median(times)
            figures = f"median {median * 1000:.0f} ms, first {first * 1000:.0f} ms"
            print(f"/cluster/resources: {size / 1e6:.1f} MB, {figures}")
            await asyncio.sleep(10)  # until the cached rows expire


async def fetch(host: str, ca_pem: str, token: tuple[str, str]) -> tuple[float, int]:
    """Measure a request over a new connection: seconds to the last byte, and bytes of the body."""
    address, port = host.split(":")
    context = ssl.create_default_context(cadata=ca_pem)
    reader, writer = await asyncio.open_connection(address, int(port), ssl=context, limit=2**20)
    request = f"GET /api2/json/cluster/resources HTTP/1.1\r\nHost: {host}\r\n"
    request += f"Authorization: PVEAPIToken={token[0]}={token[1]}\r\n\r\n"
    started = time.perf_counter()
    writer.write(request.encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    size = int(head.partition("content-length: ")[2].partition("\r\n")[0])
    await reader.readexactly(size)
    seconds = time.perf_counter() - started
    writer.close()
    return seconds, size


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
