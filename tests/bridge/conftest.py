"""Fixtures: the bridge as a process between a client in the test and a server with faults.

`bridge` starts a process and a server for each test. `shared_bridge` starts them once per module
and era, for the many cases that leave no trace in either.
"""

import importlib.util
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def logger_as_before() -> Iterator[None]:
    """Undo what a command of the bridge that runs in this process does to its logger."""
    logger = logging.getLogger("pvemcp_bridge")
    before = logger.handlers, logger.level, logger.propagate
    yield
    logger.handlers, logger.level, logger.propagate = before


def _helper(name):
    """Import a helper module of this folder under a unique name."""
    if (unique := f"bridge_tests_{name}") not in sys.modules:
        spec = importlib.util.spec_from_file_location(unique, HERE / f"{name}.py")
        module = sys.modules[unique] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[unique]


@pytest.fixture(scope="session")
def faults():
    """Give the module with the server and its faults."""
    return _helper("fault_server")


@pytest.fixture(scope="session")
def bridges():
    """Give the module that runs the bridge as a process."""
    return _helper("bridge_process")


@pytest.fixture(scope="session")
def oauth():
    """Give the module with the server that has an authorization server."""
    return _helper("oauth_server")


@pytest.fixture
async def server(faults):
    """Start a server for one test."""
    async with faults.running() as server:
        yield server


@pytest.fixture(params=["legacy", "modern"])
def modern(request):
    """Give both protocol eras, one after the other."""
    return request.param == "modern"


@pytest.fixture
async def bridge(bridges, server, modern):
    """Start a bridge for a client of either era."""
    async with bridges.running("--url", server.url, modern=modern) as bridge:
        yield bridge


@pytest.fixture
async def legacy(bridges, server):
    """Start a bridge for a client that makes a handshake."""
    async with bridges.running("--url", server.url) as bridge:
        yield bridge


@pytest.fixture
async def stateless(bridges, server):
    """Start a bridge for a client without a session."""
    async with bridges.running("--url", server.url, modern=True) as bridge:
        yield bridge


@pytest.fixture(scope="module")
async def _module_server(faults):
    async with faults.running() as server:
        yield server


@pytest.fixture(scope="module", params=["legacy", "modern"])
async def _module_bridge(request, bridges, _module_server):
    modern = request.param == "modern"
    async with bridges.running("--url", _module_server.url, modern=modern) as bridge:
        await bridge.open()
        yield bridge
        assert await bridge.end() == ([], 0)


@pytest.fixture(scope="module")
async def _module_stateless(bridges, _module_server):
    async with bridges.running("--url", _module_server.url, modern=True) as bridge:
        yield bridge
        assert await bridge.end() == ([], 0)


@pytest.fixture
def shared_server(_module_server):
    """Give the server of the module, without recorded calls or faults of earlier tests."""
    _module_server.reset()
    return _module_server


@pytest.fixture
def shared_bridge(_module_bridge, shared_server):
    """Give the open bridge of the module for a client of either era.

    A test may not end it or leave requests pending; at the end of the module the bridge has to
    exit with code 0 and without further messages.
    """
    return _module_bridge


@pytest.fixture
def shared_stateless(_module_stateless, shared_server):
    """Give the bridge of the module for a client without a session."""
    return _module_stateless
