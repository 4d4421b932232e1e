"""Long reads of a node: they end soon if the node answers nothing, and go on if it answers."""

import asyncio

import anyio
import httpx2 as httpx
import pytest

from proxmox_client import ApiToken, Client, Limits, NodeSilent, Unreachable
from proxmox_client.limits import PROBE_TIMEOUT

pytestmark = pytest.mark.anyio

# one read of each part of a node, by what may be slow on its own
READS = (
    "/nodes/pve2/status",
    "/nodes/pve2/tasks/UPID:pve2/status",
    "/nodes/pve2/qemu/100/config",
    "/nodes/pve2/qemu/100/agent/get-osinfo",
    "/nodes/pve2/lxc/200/snapshot",
    "/nodes/pve2/storage/nfs/content",
    "/nodes/pve2/disks/list",
    "/nodes/pve2/apt/versions",
)
LIMITS = Limits(patience=0.01, probe_timeout=0.05)


class Hosts(httpx.AsyncBaseTransport):
    """A cluster with node pve2, whose answers do not come before `answered`.

    `node_hangs` is about all of its requests, else its version is answered. The hosts in `hanging`
    answer nothing, those in `down` refuse connections.
    """

    def __init__(self, *, node_hangs=False, hanging=(), down=()):
        self.node_hangs, self.hanging, self.down = node_hangs, hanging, down
        self.answered = asyncio.Event()
        self.asked = []

    async def handle_async_request(self, request):
        host, path = request.url.host, request.url.path.removeprefix("/api2/json")
        self.asked.append((host, path))
        if host in self.down:
            raise httpx.ConnectError("refused", request=request)
        version = path.endswith("/version")
        if host in self.hanging or (path.startswith("/nodes/pve2") and self.node_hangs):
            await anyio.sleep_forever()
        if version:
            asyncio.get_running_loop().call_later(0.01, self.answered.set)
        else:
            await self.answered.wait()
        return httpx.Response(200, json={"data": "an answer"})

    async def read(self, path, *hosts):
        client = Client(hosts, ApiToken("a@pve!b", "c"), limits=LIMITS, http_transport=self)
        return await client.transport.request_data("GET", path)


@pytest.mark.parametrize("path", READS)
async def test_every_read_of_a_node_that_hangs_ends_soon_and_names_it(path):
    with pytest.raises(NodeSilent, match=r"pve2: no answer within 0\.06 s"):
        await Hosts(node_hangs=True).read(path, "a", "b")


@pytest.mark.parametrize("path", READS)
async def test_a_slow_read_goes_on_while_its_node_answers(path):
    cluster = Hosts()
    assert await cluster.read(path, "a", "b") == "an answer"
    assert ("b", "/nodes/pve2/version") in cluster.asked


async def test_a_quick_read_asks_nothing_more():
    cluster = Hosts()
    cluster.answered.set()
    await cluster.read("/nodes/pve2/status", "a", "b")
    assert cluster.asked == [("a", "/nodes/pve2/status")]


@pytest.mark.parametrize("state", [{"hanging": ["b"]}, {"down": ["b"]}])
async def test_a_host_that_fails_says_nothing_about_a_node(state):
    assert await Hosts(**state).read("/nodes/pve2/status", "a", "b") == "an answer"


async def test_reads_that_wait_for_a_hanging_node_share_one_time_limit():
    cluster = Hosts(node_hangs=True)
    client = Client(["a"], ApiToken("a@pve!b", "c"), limits=LIMITS, http_transport=cluster)
    reads = [client.transport.request_data("GET", path) for path in READS * 3]
    results = await asyncio.gather(*reads, return_exceptions=True)
    assert all(isinstance(result, Unreachable) for result in results)
    sent = [path for _, path in cluster.asked if not path.endswith("/version")]
    assert len(sent) == LIMITS.per_node


def test_a_hanging_node_is_known_within_five_seconds():
    limits = Limits()
    assert limits.patience + limits.probe_timeout == 5
    assert limits.probe_timeout == PROBE_TIMEOUT
