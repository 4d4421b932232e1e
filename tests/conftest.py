"""What all tests share."""

import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import httpcore2
import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).parents[1]

# the machine may be busy: how long an example takes says nothing about the code
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# a suite that a script starts in the background ignores SIGINT, and the processes that tests
# start would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Exclude what is loaded, a million objects, from each run of the garbage collector."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def public_authorities() -> Iterator[None]:
    """Load the public CAs once: each client of httpx2 takes 30 ms for them, for plain HTTP too."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(httpcore2, "default_ssl_context", cache(httpcore2.default_ssl_context))
        yield


@pytest.fixture(scope="session")
def pve_recordings() -> Path:
    """Return the folder of exchanges recorded from Proxmox's own code; skip where it is absent."""
    default = REPOSITORY.parent / "shared" / "pve" / "recordings"
    folder = Path(os.environ.get("PVE_RECORDINGS", default))
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}: set PVE_RECORDINGS to compare with real Proxmox")
    return folder


@pytest.fixture(scope="session")
def npm_folder() -> Path:
    """Return the folder with the pinned npm packages; install them where they are missing."""
    if shutil.which("npm") is None:
        pytest.skip("no npm: what tests compare with comes from there (install Node.js)")
    command = [sys.executable, REPOSITORY / "scripts" / "node_tools.py"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip())
