"""The product as people run it: real processes, real sockets, the demo clusters."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from tests.ports import free_port

from .chromium import ARGUMENTS, CHROMIUM

BIN = Path(sys.executable).parent
READY = "Stop with Ctrl-C"
KEY = re.compile(r"pvemcp_[0-9A-Za-z_]{40,}")


@dataclass
class Running:
    """A server process and all that it printed."""

    process: subprocess.Popen[str]
    port: int
    state: Path
    lines: list[str] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return "".join(self.lines)

    @property
    def key(self) -> str:
        found = KEY.search(self.output)
        assert found, self.output
        return found[0]

    def read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line)
            if READY in line:
                self.ready.set()
        self.ready.set()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


Start = Callable[..., Running]


@pytest.fixture(scope="session")
def npm() -> Path:
    """Return the folder of npm's packages; skip with a reason where they are missing."""
    folder = Path(os.environ.get("PVEMCP_NPM", Path.home() / ".cache" / "pvemcp-node"))
    packages = folder / "node_modules"
    if not packages.exists():
        pytest.skip(f"no packages in {folder}: python scripts/node_tools.py installs them")
    return packages


@pytest.fixture(scope="session")
def axe(npm: Path) -> str:
    """Read the source of axe-core."""
    return (npm / "axe-core" / "axe.min.js").read_text()


@pytest.fixture(scope="session")
def start() -> Iterator[Start]:
    """Return how to start `pvemcp run` with the demo in a state folder; stop it at the end."""
    running: list[Running] = []

    def started(state: Path, *arguments: str) -> Running:
        port = free_port()
        process = subprocess.Popen(
            [BIN / "pvemcp", "run", "--demo-if-empty", "--port", str(port), *arguments],
            env={**os.environ, "PVEMCP_STATE_DIR": str(state), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        one = Running(process, port, state)
        running.append(one)
        threading.Thread(target=one.read, daemon=True).start()
        assert one.ready.wait(60), one.output
        assert process.poll() is None, one.output
        return one

    yield started
    for one in running:
        one.stop()
        assert one.process.stdout
        one.process.stdout.close()


@pytest.fixture(scope="session")
def product(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Running:
    """Start `pvemcp run` once for all tests of the session, which must not change it."""
    return start(tmp_path_factory.mktemp("product"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium; skip where there is none."""
    if not CHROMIUM.exists():
        pytest.skip("no chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def forget_proof(server: Running) -> Iterator[Callable[[], None]]:
    """Return how to let the last proof of who the administrator is lie too far back.

    Afterwards it lies where it was: no other test is asked because of this one.
    """
    with closing(sqlite3.connect(server.state / "pvemcp.sqlite3")) as database:
        proofs = database.execute("SELECT verified_at, digest FROM sessions").fetchall()

        def forget() -> None:
            with database:
                database.execute("UPDATE sessions SET verified_at = 0")

        yield forget
        with database:
            restore = "UPDATE sessions SET verified_at = ? WHERE digest = ? AND verified_at = 0"
            database.executemany(restore, proofs)
