"""Durability of intents: kill -9 during a thousand writes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pvemcp_server.audit import Audit, AuditFilter, Event
from pvemcp_server.config import Config
from pvemcp_server.store import open_store

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.usefixtures("migrated")]

WRITER = Path(__file__).parent / "writer.py"


def start(config: Config, writes: int) -> subprocess.Popen[str]:
    """Start the writer in its own process."""
    environment = {**os.environ, "PVEMCP_STATE_DIR": str(config.state_dir)}
    if config.database_url is not None:
        environment["PVEMCP_DATABASE_URL"] = config.database_url.get_secret_value()
    command = [sys.executable, str(WRITER), str(writes)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("after", [1, 137, 500], ids="after {} writes".format)
async def test_kill_9_loses_no_intent(config: Config, after: int):
    with start(config, 1_000) as writer:
        intents = [writer.stdout.readline().strip() for _ in range(after)]
        writer.kill()
        intents += writer.stdout.read().split()
    assert after <= len(intents) < 1_000
    async with open_store(config) as store:
        audit = Audit(store)
        assert await audit.verify() == []
        stored = await audit.find(AuditFilter(kind="intent"), limit=2_000)
        assert {entry.call_id for entry in stored} >= set(intents)
        assert await audit.intent(Event(tool="BackupVm"))
        assert await audit.verify() == []


async def test_two_concurrent_processes_write_one_chain(config: Config):
    writers = [start(config, 250) for _ in range(2)]
    intents = {line for writer in writers for line in writer.communicate()[0].split()}
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(intents) == 500
    async with open_store(config) as store:
        audit = Audit(store)
        assert await audit.verify() == []
        entries = await audit.find(AuditFilter(kind="intent"), limit=1_000)
        assert {entry.call_id for entry in entries} == intents
        assert {entry.outcome for entry in entries} == {"ok"}
