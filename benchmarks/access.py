"""What letting a caller in costs, and what recording a call costs.

    python benchmarks/access.py [--database-url postgresql://…]

Prints microseconds for each step: the median of several rounds.
"""

import argparse
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import anyio

from pvemcp_server.access import open_access
from pvemcp_server.access.authentication import digest_of
from pvemcp_server.audit import Event, Outcome, mask, open_audit
from pvemcp_server.config import Config
from pvemcp_server.store import open_store
from pvemcp_server.store.key_format import id_of

ROUNDS = 7
KEYS = 200


async def measure(name: str, times: int, step: Callable[[], Awaitable[object]]) -> None:
    spans = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(times):
            await step()
        spans.append((time.perf_counter() - began) / times * 1e6)
    print(f"{name:<52}{median(spans):>10.1f} µs")


def as_step(function: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    async def step() -> object:
        return function()

    return step


async def main(config: Config) -> None:
    async with (
        open_store(config) as store,
        open_access(store) as access,
        open_audit(store, lambda: 180) as audit,
    ):
        secrets = [(await access.keys.create(f"key {n}"))[1] for n in range(KEYS)]
        secret, pepper = secrets[0], store.vault.pepper.material
        key_id = id_of(secret) or ""

        async def cold() -> None:
            access.authenticator._loaded.clear()  # noqa: SLF001 - as after a change of any key
            await access.authenticator.authenticate(secret, "192.0.2.1")

        async def write() -> None:
            call = await audit.intent(event)
            await audit.outcome(call, Event(tool="ChangeVmState", outcome=Outcome.OK))

        async def writes() -> None:
            async with anyio.create_task_group() as tasks:
                for _ in range(50):
                    tasks.start_soon(write)

        arguments = {"vmid": 100, "url": "https://user:word@example.org/a.iso?x=1", "n": ["a"] * 5}
        event = Event(tool="ChangeVmState", key_id=key_id, arguments=mask(arguments))
        await measure("an awaited nothing (part of each figure)", 2000, as_step(lambda: None))
        await measure("shape and checksum of a key", 2000, as_step(lambda: id_of(secret)))
        await measure("keyed hash", 2000, as_step(lambda: digest_of(secret, pepper)))
        await measure(
            "authenticate, key known",
            2000,
            lambda: access.authenticator.authenticate(secret, "192.0.2.1"),
        )
        await measure(f"authenticate, key looked up among {KEYS}", 50, cold)
        await measure("indexed lookup of a key", 100, lambda: store.keys.find(id=key_id))
        await measure("look for changes (twice a second)", 100, store.watch.poll)
        await measure("mask arguments", 1000, as_step(lambda: mask(arguments)))
        await measure("note a read for the audit", 200, lambda: audit.call(event))
        await audit.flush()
        await measure("a write alone: intent and outcome, durable", 30, write)
        await measure("50 writes at a time: intents and outcomes", 4, writes)
        began = time.perf_counter()
        findings, rows = await audit.verify(), (await audit.head()).seq
        print(f"verify {rows} rows: {time.perf_counter() - began:.2f} s, {len(findings)} findings")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database-url")
    with tempfile.TemporaryDirectory() as folder:
        url = parser.parse_args().database_url
        anyio.run(main, Config(state_dir=Path(folder), database_url=url))
