"""Two real processes on one state: a change by one applies in the other."""

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from anyio.streams.text import TextReceiveStream

from pvemcp_server.access import Access, Grant
from pvemcp_server.config import Config
from pvemcp_server.store import Store

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HOLDER = Path(__file__).parent / "holder.py"


class Holder:
    """The other process."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self._stdin = process.stdin
        self._lines = TextReceiveStream(process.stdout)
        self._rest = ""

    async def send(self, secret: str) -> None:
        await self._stdin.send(f"{secret}\n".encode())

    async def next_line(self) -> str:
        with anyio.fail_after(20):
            while "\n" not in self._rest:
                self._rest += await self._lines.receive()
        line, _, self._rest = self._rest.partition("\n")
        return line


@pytest.fixture
async def holder(config: Config, store: Store) -> AsyncIterator[Holder]:
    environment = {**os.environ, "PVEMCP_STATE_DIR": str(config.state_dir)}
    if config.database_url is not None:
        environment["PVEMCP_DATABASE_URL"] = config.database_url.get_secret_value()
    process = await anyio.open_process([sys.executable, HOLDER], env=environment, stderr=None)
    try:
        yield Holder(process)
    finally:
        process.kill()
        await process.aclose()


async def test_a_change_by_one_process_applies_in_the_other(access: Access, holder: Holder):
    await access.roles.create("mine", [Grant(frozenset({"ListVms"}))])
    key, secret = await access.keys.create("laptop")
    await holder.send(secret)
    assert await holder.next_line() == "Read-only"
    await access.keys.change(key.id, role="mine")
    assert await holder.next_line() == "mine"
    await access.keys.change(key.id, enabled=False)
    assert await holder.next_line() == "disabled key"
    await access.keys.change(key.id, enabled=True)
    assert await holder.next_line() == "mine"
    await access.keys.regenerate(key.id)
    assert await holder.next_line() == "wrong secret"
