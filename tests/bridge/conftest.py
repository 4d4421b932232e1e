"""The bridge as a process between a client in the test and a server that errs on command."""

import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def _helper(name):
    """A helper module of this folder, under a name of its own."""
    if (known := f"bridge_tests_{name}") not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, HERE / f"{name}.py")
        module = sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[known]


@pytest.fixture(scope="session")
def faults():
    """The faults a server can be told to have."""
    return _helper("fault_server")


@pytest.fixture(scope="session")
def bridges():
    """The bridge as a process."""
    return _helper("bridge_process")


@pytest.fixture
async def server(faults):
    async with faults.running() as server:
        yield server


@pytest.fixture(params=["legacy", "modern"])
def modern(request):
    """Both protocol eras, one after the other."""
    return request.param == "modern"


@pytest.fixture
async def bridge(bridges, server, modern):
    """A bridge to the server, with a client of either era at its other end."""
    async with bridges.running("--url", server.url, modern=modern) as bridge:
        yield bridge


@pytest.fixture
async def legacy(bridges, server):
    """A bridge whose client makes a handshake."""
    async with bridges.running("--url", server.url) as bridge:
        yield bridge


@pytest.fixture
async def stateless(bridges, server):
    """A bridge whose client needs no session."""
    async with bridges.running("--url", server.url, modern=True) as bridge:
        yield bridge
