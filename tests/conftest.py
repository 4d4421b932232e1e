"""What all tests share."""

import gc
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import httpcore2
import pytest
from hypothesis import HealthCheck, settings

if os.name != "nt":
    import fcntl

REPOSITORY = Path(__file__).parents[1]

# the machine may be busy: how long an example takes says nothing about the code
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# a suite that a script starts in the background ignores SIGINT, and the processes that tests
# start would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)

# roughly what one test takes in seconds, by its marker
SECONDS = {"slow": 20.0, "browser": 4.0, "node": 3.0, "e2e": 2.0, "postgres": 1.0}
OTHER_SECONDS = 0.1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless it is selected by its marker, and order the rest.

    The longest files are first: workers then end together, with short files.
    """
    if "chaos" not in config.option.markexpr:
        chaos = [item for item in items if item.get_closest_marker("chaos")]
        items[:] = [item for item in items if item not in chaos]
        config.hook.pytest_deselected(items=chaos)
    seconds: Counter[Path] = Counter()
    for item in items:
        known = [SECONDS[mark.name] for mark in item.iter_markers() if mark.name in SECONDS]
        seconds[item.path] += max(known, default=OTHER_SECONDS)
    items.sort(key=lambda item: -seconds[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Leave what collecting creates, which lives to the end, out of every garbage collection.

    Collections are rarer too: the default, after 700 objects, takes a twentieth of the suite.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[object]:
    """Let one worker compile a module, and the others read its bytecode.

    All begin at the same time with the same module, and rewriting its asserts takes as long as all
    else that collecting does.
    """
    if not isinstance(collector, pytest.Module) or os.name == "nt":
        return (yield)
    with collector.path.open("rb") as module:
        fcntl.flock(module, fcntl.LOCK_EX)
        return (yield)


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
