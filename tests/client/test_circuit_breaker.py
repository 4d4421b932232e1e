"""Circuit breaker: reads of a hanging node or storage fail fast after the first timeout."""

import asyncio
from collections import Counter
from contextlib import suppress

import anyio
import httpx2 as httpx
import pytest

from proxmox_client import (
    ApiToken,
    Client,
    DeadlineExceeded,
    Forbidden,
    Limits,
    NodeSilent,
    NodeUnreachable,
    ProxmoxError,
    Unreachable,
    deadline,
)
from proxmox_client.circuit_breaker import (
    COOLDOWN,
    PROBE_TIMEOUT,
    RESET_AFTER,
    CircuitBreaker,
    failure_domain,
)

pytestmark = pytest.mark.anyio

FULL_TIMEOUT = 35.0
PATH = "/nodes/pve2/qemu/100/config"
OTHER = "/nodes/pve2/lxc/200/config"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class GuardedReads:
    """Reads through a circuit breaker, on a clock that each read moves forward."""

    def __init__(self):
        self.clock = Clock()
        self.breaker = CircuitBreaker(FULL_TIMEOUT, self.clock)

    async def succeed(self, path=PATH, seconds=0.1):
        async with self.breaker.guard(failure_domain(path), path):
            self.clock.now += seconds

    async def fail(self, seconds=FULL_TIMEOUT, error=None, path=PATH):
        with suppress(ProxmoxError):
            async with self.breaker.guard(failure_domain(path), path):
                self.clock.now += seconds
                raise error or Unreachable("pve1", "no answer in time")

    async def is_blocked(self, path=PATH):
        try:
            await self.succeed(path, 0)
        except Unreachable as error:
            return "; retry in" in str(error)
        return False


@pytest.fixture
def reads():
    return GuardedReads()


async def test_two_timeouts_block_reads_for_the_cooldown(reads):
    await reads.fail()
    await reads.fail(PROBE_TIMEOUT)
    assert await reads.is_blocked()
    reads.clock.now += COOLDOWN
    assert not await reads.is_blocked()


async def test_one_timeout_blocks_no_read(reads):
    await reads.fail()
    assert not await reads.is_blocked()


async def test_a_success_closes_the_circuit(reads):
    await reads.fail()
    await reads.succeed()
    await reads.fail()
    assert not await reads.is_blocked()


async def test_an_immediate_error_is_not_a_timeout(reads):
    for _ in range(3):
        await reads.fail(0.1)
    assert not await reads.is_blocked()


async def test_an_unreachable_node_opens_the_circuit_however_fast_the_error(reads):
    for _ in range(2):
        await reads.fail(0.1, NodeUnreachable(595, "", "No route to host", node="pve2"))
    with pytest.raises(Unreachable, match="pve2/qemu: No route to host; retry in 5 s"):
        await reads.succeed()


async def test_a_silent_node_blocks_all_of_its_reads_for_the_cooldown(reads):
    silent = NodeSilent("pve2", "no answer within 7 s")
    await reads.fail(7, silent, path="/nodes/pve2/storage/nfs/content")
    for path in (PATH, OTHER, "/nodes/pve2/status"):
        with pytest.raises(NodeSilent, match="pve2: no answer within 7 s; retry in 5 s"):
            await reads.succeed(path)
    assert not await reads.is_blocked("/nodes/pve1/status")
    reads.clock.now += COOLDOWN
    await reads.succeed()
    assert not await reads.is_blocked(OTHER)


async def test_an_error_response_closes_the_circuit_however_late(reads):
    await reads.fail()
    await reads.fail(PROBE_TIMEOUT, Forbidden(403, "", "Permission check failed"))
    await reads.fail(PROBE_TIMEOUT)
    assert not await reads.is_blocked()


async def test_failed_probes_do_not_postpone_the_reset(reads):
    # otherwise a part that needs longer than a probe would never answer again
    await reads.fail()
    reads.clock.now += RESET_AFTER / 2
    await reads.fail(PROBE_TIMEOUT)
    reads.clock.now += RESET_AFTER / 2
    await reads.fail(PROBE_TIMEOUT + 1)
    assert not await reads.is_blocked()


async def test_an_early_cancellation_leaves_the_circuit_unchanged(reads):
    with anyio.CancelScope() as scope:
        async with reads.breaker.guard(failure_domain(PATH), PATH):
            reads.clock.now += PROBE_TIMEOUT
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    await reads.fail()
    assert not await reads.is_blocked()


async def test_other_parts_of_a_hanging_node_get_the_probe_timeout(reads):
    await reads.fail()
    for _ in range(2):
        await reads.fail(PROBE_TIMEOUT, path=OTHER)
    assert await reads.is_blocked(OTHER)


@pytest.mark.parametrize("error", [None, NodeUnreachable(595, "", "No route to host", node="pve2")])
async def test_two_parts_that_fail_block_the_whole_node(reads, error):
    await reads.fail(error=error)
    await reads.fail(PROBE_TIMEOUT, error, path=OTHER)
    for path in (PATH, OTHER, "/nodes/pve2/status", "/nodes/pve2/disks/list"):
        with pytest.raises(NodeSilent, match=r"pve2: .*; retry in 5 s"):
            await reads.succeed(path)


async def test_an_answer_between_the_failures_of_two_parts_keeps_the_node_open(reads):
    await reads.fail()
    await reads.succeed("/nodes/pve2/status")
    await reads.fail(path=OTHER)
    assert not await reads.is_blocked("/nodes/pve2/status")


async def test_an_open_circuit_does_not_name_the_requests_that_failed(reads):
    # another caller made them, for a guest that this one may not see
    for _ in range(2):
        await reads.fail(error=DeadlineExceeded(f"GET {PATH} took longer than 3.00 s"))
    with pytest.raises(Unreachable, match=r"pve2/qemu: no answer within 3 s; retry in 5 s"):
        await reads.succeed("/nodes/pve2/qemu/101/config")


async def test_an_answer_of_another_part_closes_the_circuit_of_the_node(reads):
    await reads.fail()
    await reads.succeed(OTHER)
    for _ in range(2):
        await reads.fail(PROBE_TIMEOUT, path=OTHER)
    assert not await reads.is_blocked(OTHER)


async def test_a_hanging_storage_does_not_affect_its_node(reads):
    content = "/nodes/pve2/storage/nfs/content"
    await reads.fail(path=content)
    await reads.fail(PROBE_TIMEOUT, path=content)
    assert await reads.is_blocked(content)
    for _ in range(2):
        await reads.fail(PROBE_TIMEOUT)
    assert not await reads.is_blocked()


async def test_a_passed_deadline_names_the_request(reads):
    with deadline(-1), pytest.raises(DeadlineExceeded, match=PATH):
        await reads.succeed()


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/version", ""),
        ("/cluster/resources", ""),
        ("/nodes", ""),
        ("/cluster/ceph/status", "cluster/ceph"),
        ("/nodes/pve1", "pve1"),
        ("/nodes/pve1/qemu/100/config", "pve1/qemu"),
        ("/nodes/pve1/storage", "pve1/storage"),
        ("/nodes/pve1/storage/nfs/content", "pve1/storage/nfs"),
        ("/nodes/pve1/storage/nfs/rrddata", "pve1/storage/nfs"),
        ("/nodes/pve1/rrddata", "cluster/rrddata"),
        ("/nodes/pve1/qemu/100/rrddata", "cluster/rrddata"),
    ],
)
def test_each_storage_is_a_failure_domain(path, part):
    assert failure_domain(path).part == part


CLUSTER = "/cluster/status"
CLUSTER_TIMEOUT = 15.0


class TestReadsAboutTheCluster:
    """All of them share one circuit, whichever tool makes them."""

    @pytest.fixture
    def reads(self):
        reads = GuardedReads()
        reads.breaker = CircuitBreaker(FULL_TIMEOUT, reads.clock, cluster_timeout=CLUSTER_TIMEOUT)
        return reads

    async def test_after_two_failures_none_waits(self, reads):
        await reads.fail(CLUSTER_TIMEOUT, path=CLUSTER)
        await reads.fail(PROBE_TIMEOUT, path="/cluster/resources")
        assert await reads.is_blocked("/access/permissions")

    async def test_a_silent_cluster_shortens_reads_of_its_nodes(self, reads):
        await reads.fail(CLUSTER_TIMEOUT, path=CLUSTER)
        await reads.fail(PROBE_TIMEOUT, path=PATH)
        await reads.fail(PROBE_TIMEOUT, path=PATH)
        assert await reads.is_blocked(PATH)

    async def test_the_answer_of_a_node_ends_its_silence(self, reads):
        await reads.fail(CLUSTER_TIMEOUT, path=CLUSTER)
        await reads.fail(PROBE_TIMEOUT, path=CLUSTER)
        await reads.succeed(PATH)
        assert not await reads.is_blocked(CLUSTER)

    @pytest.mark.parametrize("path", [PATH, "/cluster/ceph/status"])
    async def test_a_hanging_part_does_not_block_it(self, reads, path):
        await reads.fail(path=path)
        await reads.fail(path=path)
        assert not await reads.is_blocked(CLUSTER)


class SilentHosts(httpx.AsyncBaseTransport):
    """A cluster whose hosts `silent` accept requests and never answer them."""

    def __init__(self, *silent):
        self.silent = silent

    async def handle_async_request(self, request):
        if request.url.host in self.silent:
            await asyncio.sleep(request.extensions["timeout"]["read"])
            raise httpx.ReadTimeout("", request=request)
        return httpx.Response(200, json={"data": {"version": "9.2.11"}})


async def test_a_silent_host_leaves_time_for_the_next():
    limits = Limits(connect_timeout=0.02, cluster_timeout=0.1)
    hosts, token = ("silent", "pve2", "pve3"), ApiToken("a@pve!b", "c")
    client = Client(hosts, token, limits=limits, http_transport=SilentHosts("silent"))
    assert (await client.version()).version == "9.2.11"


class HangingNode(httpx.AsyncBaseTransport):
    """A cluster whose node pve2 never answers, so its requests end in the read timeout.

    Requests that wait together end together, however late the machine began the second one.
    """

    def __init__(self):
        self.requests = Counter()
        self._end: asyncio.Event | None = None

    async def handle_async_request(self, request):
        node = request.url.path.split("/")[4]
        self.requests[node] += 1
        if node == "pve2":
            await self._silence()
            raise httpx.ReadTimeout("", request=request)
        return httpx.Response(200, json={"data": {"time": 1}})

    async def _silence(self):
        if self._end is None or self._end.is_set():
            self._end = asyncio.Event()
            asyncio.get_running_loop().call_later(0.01, self._end.set)
        await self._end.wait()


# every wait counts as the whole timeout, also one that began late
LIMITS = Limits(read_timeout=1e-6, per_node=2)


def client_of(cluster: HangingNode) -> Client:
    return Client(["pve1"], ApiToken("a@pve!b", "c"), limits=LIMITS, http_transport=cluster)


async def test_only_the_first_reads_of_a_hanging_node_wait():
    cluster = HangingNode()
    client = client_of(cluster)
    reads = [client.node(name).time() for name in ("pve1", "pve2") * 20]
    results = await asyncio.gather(*reads, return_exceptions=True)
    assert sum(isinstance(result, Unreachable) for result in results) == 20
    assert cluster.requests["pve1"] == 20
    assert cluster.requests["pve2"] <= 2 * LIMITS.per_node


async def test_a_hanging_node_costs_a_read_of_many_parts_one_wait():
    cluster = HangingNode()
    client = client_of(cluster)
    parts = ["time", "status", "services", "disks/list", "tasks", "apt/update", "subscription"]
    reads = [client.transport.get(f"/nodes/pve2/{part}", object) for part in parts]
    await asyncio.gather(*reads, return_exceptions=True)
    assert cluster.requests["pve2"] <= LIMITS.per_node


async def test_writes_bypass_the_circuit_breaker():
    cluster = HangingNode()
    client = client_of(cluster)
    for _ in range(2):
        with pytest.raises(Unreachable):
            await client.node("pve2").time()
    with pytest.raises(Unreachable, match="no answer in time"):
        await client.transport.post("/nodes/pve2/time", timezone="UTC")
    assert cluster.requests["pve2"] == 3


@pytest.mark.parametrize(("path", "failures"), [(PATH, 2), ("/version", 1)])
async def test_a_shared_read_without_an_answer_shortens_all_others(reads, path, failures):
    reads.breaker.note_silence(5)
    for _ in range(failures):
        await reads.fail(PROBE_TIMEOUT, path=path)
    assert await reads.is_blocked(path)


async def test_an_answer_ends_what_a_shared_read_noted(reads):
    reads.breaker.note_silence(5)
    await reads.succeed()
    await reads.fail(PROBE_TIMEOUT)
    assert not await reads.is_blocked()
