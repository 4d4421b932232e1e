"""The command line in this process, on its own state."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pvemcp_server.cli.main import app

Run = Callable[..., Result]


@pytest.fixture
def state_dir(tmp_path: Path, new_state: Path, anyio_backend: str) -> Path:
    """Make a new state of its own: migrated, and with the built-in roles."""
    return Path(shutil.copytree(new_state, tmp_path / "state"))


@pytest.fixture
def run(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `pvemcp` with these words; `fails` expects an error, `stdin` is its standard input."""
    monkeypatch.setenv("PVEMCP_STATE_DIR", str(state_dir))
    runner = CliRunner()

    def invoke(*words: Any, fails: bool = False, stdin: str | None = None) -> Result:
        result = runner.invoke(app, [str(word) for word in words], input=stdin)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert (result.exit_code != 0) is fails, result.output
        return result

    return invoke


@pytest.fixture
def run_json(run: Run) -> Callable[..., Any]:
    """Run `pvemcp` with --json and return the answer."""
    return lambda *words, **options: json.loads(run(*words, "--json", **options).stdout)


@pytest.fixture(scope="module")
def emulated(emulated_demo: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return how to connect to the demo cluster prod."""
    return emulated_demo["prod"]


@pytest.fixture(scope="module")
def emulated_demo() -> Iterator[dict[str, dict[str, Any]]]:
    """Start the demo in another process: each command has its own event loop."""
    command = [sys.executable, "-m", "proxmox_client.emulator", "--demo"]
    options = ["--ready-file", "-", "--until-stdin-closes"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*command, *options], text=True, **pipes) as process:
        assert process.stdout
        clusters = json.loads(process.stdout.readline())["clusters"]
        yield {cluster["name"]: cluster for cluster in clusters}
        process.terminate()
