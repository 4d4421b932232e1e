"""Fixtures of the formats tests: tools that exist only as npm packages."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def ask_peer(npm_folder: Path) -> Iterator[Ask]:
    """Give a function that sends one order after another to npm packages in one process."""
    command = ["node", str(REPOSITORY / "tests" / "npm" / "peer.mjs"), str(npm_folder)]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as peer:

        def ask(**order: Any) -> dict[str, Any]:
            peer.stdin.write(json.dumps(order) + "\n")
            peer.stdin.flush()
            return json.loads(peer.stdout.readline())

        yield ask
