"""Reads of what is on an offline node: none asks the node, which would only wait."""

import re

import pytest

from proxmox_client.emulator import ManualClock, demo
from pvemcp_server.access.model import Effect
from pvemcp_server.toolkit.registry import tools

from .fault_cases import NODE, node_is_down

pytestmark = pytest.mark.anyio

# The example call of each names a guest, a node or a task of the offline node
NAMING = ("GetVmStatus", "GetVmConfig", "GetNodeStatus", "GetTask", "ListSnapshots", "ListTasks")
NAMED = {"ListSnapshots": {"vmids": [200]}, "ListTasks": {"node": "pve02"}}


@pytest.fixture(scope="module")
async def _offline_client(anyio_backend, open_client):
    async with open_client(demo(), ManualClock()) as client:
        await node_is_down(client)
        yield client


@pytest.fixture
def offline_client(_offline_client):
    """Return a client of clusters whose node pve02 is offline."""
    return _offline_client


async def test_no_read_asks_an_offline_node(offline_client):
    offline_client.requests("prod")
    for name, arguments in NODE.items():
        if tools()[name].effect is Effect.READ:
            await offline_client(name, **arguments)
            asked = [r for r in offline_client.requests("prod") if "/nodes/pve02/" in r]
            # every node has the recorded series of all nodes and guests
            assert all(r.endswith("/rrddata") and "/storage/" not in r for r in asked), name


@pytest.mark.parametrize("tool", NAMING)
async def test_a_read_of_something_on_an_offline_node_is_refused_at_once(offline_client, tool):
    arguments = {**NODE[tool], "cluster_name": "prod", **NAMED.get(tool, {})}
    error = await offline_client.refused(tool, **arguments)
    assert re.search(r"(?i)pve02.* is offline|offline.*: pve02", error)


async def test_an_offline_node_has_its_recorded_metrics(offline_client):
    guests = await offline_client("ListVmRrdData", cluster_name="prod", vmids=[200])
    nodes = await offline_client("ListNodeRrdData", cluster_name="prod", nodes=["pve02"])
    assert guests.data
    assert nodes.data
