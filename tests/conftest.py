"""What all tests share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def pve_recordings() -> Path:
    """The folder of exchanges recorded from Proxmox's own code; skips, loudly, where absent."""
    default = REPOSITORY.parent / "shared" / "pve" / "recordings"
    folder = Path(os.environ.get("PVE_RECORDINGS", default))
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}: set PVE_RECORDINGS to compare with real Proxmox")
    return folder
