"""Soak test of the bridge: random faults and restarts, one reply per request, flat memory.

`make soak` runs 30,000 calls, the tests run a few. `--calls` and `--seed` select the run.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "bridge"))

import bridge_process
import fault_server

IN_FLIGHT = 32
FAULT_RATE = 0.1
RESTARTS = 12
MAX_GROWTH_MB = 8
FAULTS = (
    fault_server.drop,
    fault_server.ends_without_reply,
    fault_server.status(200, b"invalid JSON", content_type="application/json"),
    fault_server.status(429, headers={"retry-after": "0"}),
    fault_server.status(500, b"broken"),
    fault_server.status(503),
)
META = bridge_process.META
Fault = Callable[[Any], Awaitable[None]]


class Soak:
    """One run: the calls, the replies and the memory."""

    def __init__(self, bridge: Any, server: Any, calls: int, seed: int) -> None:
        self.bridge = bridge
        self.server = server
        self.calls = calls
        self.random = random.Random(seed)
        self.waiting: dict[str, asyncio.Event] = {}
        self.replies: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.memory: list[float] = []
        self._numbers = iter(range(calls))

    async def run(self) -> None:
        """Make all calls and read all replies."""
        await self.bridge.open()
        reading = asyncio.create_task(self._read())
        await asyncio.gather(*(self._work() for _ in range(IN_FLIGHT)))
        reading.cancel()
        await asyncio.wait({reading})
        rest, code = await self.bridge.end()
        for message in rest:
            self._record(message)
        self.kinds[f"exit code {code}"] += 1

    async def _work(self) -> None:
        for number in self._numbers:
            if number % max(1, self.calls // RESTARTS) == self.calls // RESTARTS - 1:
                await self.server.restart()
            if self.random.random() < FAULT_RATE:
                self.server.fail("tools/call", self.random.choice(FAULTS))
            await self._call(number)
            if number % max(1, self.calls // 20) == 0:
                self.memory.append(resident_mb(self.bridge.process.pid))

    async def _call(self, number: int) -> None:
        name = f"call-{number}"
        done = self.waiting[name] = asyncio.Event()
        params: dict[str, Any] = {"name": self.random.choice(("look", "destroy")), "arguments": {}}
        if self.random.random() < 0.5:
            params["_meta"] = META
        message = {"jsonrpc": "2.0", "id": name, "method": "tools/call", "params": params}
        self.bridge.send(message)
        await asyncio.wait_for(done.wait(), 60)

    async def _read(self) -> None:
        while True:
            self._record(await self.bridge.read())

    def _record(self, message: dict[str, Any]) -> None:
        name = message.get("id")
        if "method" in message or name is None:
            self.kinds["notification"] += 1
            return
        self.replies[name] += 1
        error = message.get("error", {})
        reason = error.get("data", {}).get("reason") or error.get("message")
        self.kinds[reason or "result"] += 1
        self.waiting[name].set()

    def failures(self) -> list[str]:
        """Return the violated expectations."""
        failures = [
            f"{name}: {count} replies" for name, count in self.replies.items() if count != 1
        ]
        if len(self.replies) != self.calls:
            failures.append(f"{len(self.replies)} of {self.calls} calls got a reply")
        # The first quarter fills connections, buffers and caches of the interpreter
        warm = self.memory[len(self.memory) // 4 :]
        if warm and max(warm) - warm[0] > MAX_GROWTH_MB:
            failures.append(f"memory grew: {', '.join(f'{size:.0f}' for size in self.memory)} MB")
        if not self.kinds["exit code 0"]:
            failures.append("the bridge did not exit with code 0")
        return failures


def resident_mb(pid: int) -> float:
    """Return the memory of a process and its children; a single-file binary has a child."""
    process = psutil.Process(pid)
    processes = [process, *process.children(recursive=True)]
    return sum(item.memory_info().rss for item in processes) / 1e6


async def soak(calls: int, seed: int) -> Soak:
    """Run once against a server with faults."""
    async with fault_server.running() as server:
        options = ("--url", server.url, "--log-level", "error")
        async with bridge_process.running(*options) as bridge:
            run = Soak(bridge, server, calls, seed)
            await run.run()
            return run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    arguments = parser.parse_args()
    print(f"{arguments.calls} calls, {RESTARTS} restarts, seed {arguments.seed}")
    start = time.monotonic()
    run = asyncio.run(soak(arguments.calls, arguments.seed))
    print(f"{time.monotonic() - start:.0f} s; replies: {dict(run.kinds.most_common())}")
    print(f"memory: {', '.join(f'{size:.0f}' for size in run.memory)} MB")
    for failure in run.failures():
        print(f"FAIL {failure}")
    return 1 if run.failures() else 0


if __name__ == "__main__":
    raise SystemExit(main())
