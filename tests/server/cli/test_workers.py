"""`pvemcp serve --workers N`: several processes on one port."""

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import httpx2 as httpx
import psutil
import pytest
from tests.ports import free_port

from pvemcp_server.cli.workers import Workers, check_workers
from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError

pytestmark = pytest.mark.anyio


def test_several_workers_need_postgresql(tmp_path):
    with pytest.raises(ConfigError, match="3 workers need PostgreSQL"):
        check_workers(Config(state_dir=tmp_path), 3)
    check_workers(Config(state_dir=tmp_path), 1)


async def test_a_worker_that_cannot_be_started_leaves_the_others_in_place(monkeypatch):
    workers, running = Workers(None, 2), [object(), object()]
    workers._workers = list(running)

    async def no_process(_place):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(workers, "_start", no_process)
    assert await workers._place(0) is False
    assert workers._workers == running


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.postgres
async def test_a_worker_that_dies_is_replaced_and_all_stop_together(postgres_config, tmp_path):
    port, log = free_port(), anyio.Path(tmp_path / "log")
    program = Path(sys.executable).with_name("pvemcp")
    async with await log.open("wb") as output:
        process = await anyio.open_process(
            [program, "serve", "--workers=2", f"--port={port}"],
            env={
                **os.environ,
                "PVEMCP_STATE_DIR": str(postgres_config.state_dir),
                "PVEMCP_DATABASE_URL": postgres_config.database_url.get_secret_value(),
                "PVEMCP_METRICS_PORT": "0",
            },
            stdin=subprocess.DEVNULL,
            stdout=output.wrapped,
            stderr=output.wrapped,
        )
    parent = psutil.Process(process.pid)
    try:
        with anyio.fail_after(120):
            await until(log, "Worker", 2)
            first, second = parent.children()
            first.kill()
            await until(log, "Worker", 4)  # two answered, one ended, one more answers
            others = set(parent.children())
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                assert (await http.get("/readyz")).status_code == 200
                own = set(re.findall(r"127\.0\.0\.1 port (\d+)", await log.read_text()))
                own.remove(str(port))
                seen = [await http.get(f"http://127.0.0.1:{each}/metrics") for each in own]
                starts = {re.search("\nprocess_start_time_seconds (.*)", r.text)[1] for r in seen}
                assert len(own) == len(starts) == 2, "each worker has a port of its own"
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0, await log.read_text()
    finally:
        for each in (*parent.children(), parent) if parent.is_running() else ():
            each.kill()
    assert len(others - {first}) == 2
    assert second in others
    assert not any(each.is_running() for each in others)


async def until(log, word, number):
    """Wait until the log has the word so many times."""
    while (await log.read_text()).count(word) < number:  # noqa: ASYNC110 - another process writes
        await anyio.sleep(0.1)
