"""`pvemcp serve --workers N`: several processes on one port."""

import asyncio
import errno
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import anyio
import httpx2 as httpx
import psutil
import pytest
from tests.ports import free_port

from pvemcp_server.cli.listener import Listener
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

    async def no_process(place):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(workers, "_start", no_process)
    assert await workers._place(0) is False
    assert workers._workers == running


class Programs:
    """Runs a short program in place of each worker; `made` is called when its process is there."""

    def __init__(self, monkeypatch, program, made=lambda: None):
        self.files = []

        async def create(*_, pass_fds, stdin, stdout, **__):
            self.files.append(list(pass_fds))
            worker = await original(sys.executable, "-c", program, stdin=stdin, stdout=stdout)
            made()
            return worker

        original = asyncio.create_subprocess_exec
        monkeypatch.setattr(asyncio, "create_subprocess_exec", create)


async def test_a_stop_starts_no_worker_that_was_to_be_started_again(monkeypatch, tmp_path, caplog):
    programs = Programs(monkeypatch, "print('ready', flush=True)")
    workers = Workers(Listener(Config(state_dir=tmp_path), []), 1)
    with caplog.at_level(logging.INFO), anyio.fail_after(30):
        await workers._start(0)
        kept = asyncio.create_task(workers._keep(0))
        while "ended with" not in caplog.text:  # noqa: ASYNC110 - then it pauses
            await anyio.sleep(0.01)
        workers._stop(signal.SIGTERM)
        await kept
    assert len(programs.files) == 1


async def test_a_stop_reaches_a_worker_whose_process_is_just_made(monkeypatch, tmp_path):
    workers = Workers(Listener(Config(state_dir=tmp_path), []), 1)
    Programs(monkeypatch, "import sys; sys.stdin.read()", partial(workers._stop, signal.SIGTERM))
    with anyio.fail_after(30):
        worker = await workers._start(0)
        assert await worker.wait() == -signal.SIGTERM


async def test_each_worker_gets_the_port_of_its_own_figures(monkeypatch, tmp_path):
    programs = Programs(monkeypatch, "print('ready', flush=True)")
    with socket.socket() as clients, socket.socket() as first, socket.socket() as second:
        listener = Listener(Config(state_dir=tmp_path), [clients], [[first], [second]])
        workers = Workers(listener, 2)
        for place in (0, 1, 1):  # the last one takes the place of one that died
            await (await workers._start(place)).wait()
        of_clients, *of_figures = clients.fileno(), first.fileno(), second.fileno()
    places = [of_figures[0], of_figures[1], of_figures[1]]
    assert programs.files == [[of_clients, each] for each in places]


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.postgres
async def test_a_worker_that_dies_is_replaced_and_all_stop_together(postgres_config, tmp_path):
    port, metrics, log = free_port(), free_port(following=1), anyio.Path(tmp_path / "log")
    program = Path(sys.executable).with_name("pvemcp")
    async with await log.open("wb") as output:
        process = await anyio.open_process(
            [program, "serve", "--workers=2", f"--port={port}"],
            env={
                **os.environ,
                "PVEMCP_METRICS_PORT": str(metrics),
                "PVEMCP_STATE_DIR": str(postgres_config.state_dir),
                "PVEMCP_DATABASE_URL": postgres_config.database_url.get_secret_value(),
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
                places = [f"http://127.0.0.1:{each}/metrics" for each in (metrics, metrics + 1)]
                figures = [(await http.get(each)).text for each in places]
                assert all("\npvemcp_database_connections_limit 16" in each for each in figures)
                started = [re.search(r"process_start_time_seconds \d.*", each) for each in figures]
                assert len({each[0] for each in started}) == 2  # a port is always of one worker
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
