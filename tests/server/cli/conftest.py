"""The command line in this process, on a state of its own."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from proxmox_client.emulator import Emulator, demo
from pvemcp_server.cli.main import app

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `pvemcp` with these words; `fails` says that it should."""
    monkeypatch.setenv("PVEMCP_STATE_DIR", str(tmp_path / "state"))
    runner = CliRunner()

    def ran(*words: Any, fails: bool = False, given: str | None = None) -> Result:
        result = runner.invoke(app, [str(word) for word in words], input=given)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert (result.exit_code != 0) is fails, result.output
        return result

    return ran


@pytest.fixture
def told(run: Run) -> Callable[..., Any]:
    """The same with --json, read."""
    return lambda *words, **options: json.loads(run(*words, "--json", **options).stdout)


@pytest.fixture(scope="module")
def emulated() -> Iterator[Any]:
    """The demo cluster prod, in a thread with a loop of its own: commands have theirs."""
    loop, ready, found = asyncio.new_event_loop(), threading.Event(), []

    async def serve(stop: asyncio.Event) -> None:
        async with Emulator(demo()) as running:
            found.append(running["prod"])
            ready.set()
            await stop.wait()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(stop),))
    thread.start()
    assert ready.wait(30)
    yield found[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    loop.close()
