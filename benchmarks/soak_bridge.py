"""The bridge under random faults and restarts: each request answered once, memory flat.

`make soak` runs 30,000 calls; the tests run a short one. `--calls` and `--seed` choose.
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
FAULTY = 0.1
RESTARTS = 12
MOST_GROWTH_MB = 8
FAULTS = (
    fault_server.drop,
    fault_server.ends_without_reply,
    fault_server.status(200, b"no json", content_type="application/json"),
    fault_server.status(429, headers={"retry-after": "0"}),
    fault_server.status(500, b"broken"),
    fault_server.status(503),
)
META = bridge_process.META
Fault = Callable[[Any], Awaitable[None]]


class Soak:
    """One run: what was asked, what came back."""

    def __init__(self, bridge: Any, server: Any, calls: int, seed: int) -> None:
        self.bridge = bridge
        self.server = server
        self.calls = calls
        self.random = random.Random(seed)
        self.waiting: dict[str, asyncio.Event] = {}
        self.answers: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.memory: list[float] = []
        self._numbers = iter(range(calls))

    async def run(self) -> None:
        """Asks everything and hears everything."""
        await self.bridge.open()
        hearing = asyncio.create_task(self._hear())
        await asyncio.gather(*(self._work() for _ in range(IN_FLIGHT)))
        hearing.cancel()
        await asyncio.wait({hearing})
        rest, code = await self.bridge.end()
        for message in rest:
            self._note(message)
        self.kinds[f"exit code {code}"] += 1

    async def _work(self) -> None:
        for number in self._numbers:
            if number % max(1, self.calls // RESTARTS) == self.calls // RESTARTS - 1:
                await self.server.restart()
            if self.random.random() < FAULTY:
                self.server.fail("tools/call", self.random.choice(FAULTS))
            await self._ask(number)
            if number % max(1, self.calls // 20) == 0:
                self.memory.append(resident_mb(self.bridge.process.pid))

    async def _ask(self, number: int) -> None:
        name = f"call-{number}"
        answered = self.waiting[name] = asyncio.Event()
        params: dict[str, Any] = {"name": self.random.choice(("look", "destroy")), "arguments": {}}
        if self.random.random() < 0.5:
            params["_meta"] = META
        message = {"jsonrpc": "2.0", "id": name, "method": "tools/call", "params": params}
        self.bridge.send(message)
        await asyncio.wait_for(answered.wait(), 60)

    async def _hear(self) -> None:
        while True:
            self._note(await self.bridge.read())

    def _note(self, message: dict[str, Any]) -> None:
        name = message.get("id")
        if "method" in message or name is None:
            self.kinds["notification"] += 1
            return
        self.answers[name] += 1
        error = message.get("error", {})
        said = error.get("data", {}).get("reason") or error.get("message")
        self.kinds[said or "result"] += 1
        self.waiting[name].set()

    def complaints(self) -> list[str]:
        """What is not as it should be."""
        found = [f"{name}: {count} replies" for name, count in self.answers.items() if count != 1]
        if len(self.answers) != self.calls:
            found.append(f"{len(self.answers)} of {self.calls} answered")
        # the first quarter warms up: connections, buffers, the interpreter's own caches
        warm = self.memory[len(self.memory) // 4 :]
        if warm and max(warm) - warm[0] > MOST_GROWTH_MB:
            found.append(f"memory grew: {', '.join(f'{one:.0f}' for one in self.memory)} MB")
        if not self.kinds["exit code 0"]:
            found.append("it did not end well")
        return found


def resident_mb(pid: int) -> float:
    """The memory of a process and, for a frozen single file, of its child."""
    process = psutil.Process(pid)
    everyone = [process, *process.children(recursive=True)]
    return sum(one.memory_info().rss for one in everyone) / 1e6


async def soak(calls: int, seed: int) -> Soak:
    """One run against a server that errs."""
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
    began = time.monotonic()
    run = asyncio.run(soak(arguments.calls, arguments.seed))
    print(f"{time.monotonic() - began:.0f} s; replies: {dict(run.kinds.most_common())}")
    print(f"memory: {', '.join(f'{one:.0f}' for one in run.memory)} MB")
    for complaint in run.complaints():
        print(f"FAIL {complaint}")
    return 1 if run.complaints() else 0


if __name__ == "__main__":
    raise SystemExit(main())
