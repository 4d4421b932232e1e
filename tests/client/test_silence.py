"""A node or storage that leaves reads without an answer is not waited for again and again."""

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
    NodeUnreachable,
    ProxmoxError,
    Unreachable,
    deadline,
)
from proxmox_client.circuit_breaker import GLANCE, QUIET, REMEMBERED, Silence
from proxmox_client.paths import place_of

pytestmark = pytest.mark.anyio

PATIENCE = 35.0
PATH = "/nodes/pve2/qemu/100/config"
OTHER = "/nodes/pve2/lxc/200/config"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Pve:
    """Reads of a cluster, in which time passes as told."""

    def __init__(self):
        self.clock = Clock()
        self.silence = Silence(PATIENCE, self.clock)

    async def answer(self, path=PATH, seconds=0.1):
        """A read that is answered."""
        async with self.silence.heeded(place_of(path), path):
            self.clock.now += seconds

    async def vain(self, seconds=PATIENCE, error=None, path=PATH):
        with suppress(ProxmoxError):
            async with self.silence.heeded(place_of(path), path):
                self.clock.now += seconds
                raise error or Unreachable("pve1", "no answer in time")

    async def is_refused(self, path=PATH):
        try:
            await self.answer(path, 0)
        except Unreachable as error:
            return "it is asked again in" in str(error)
        return False


@pytest.fixture
def pve():
    return Pve()


async def test_after_two_reads_in_vain_none_is_sent_for_a_while(pve):
    await pve.vain()
    await pve.vain(GLANCE)
    assert await pve.is_refused()
    pve.clock.now += QUIET
    assert not await pve.is_refused()


async def test_one_read_in_vain_refuses_no_other(pve):
    await pve.vain()
    assert not await pve.is_refused()


async def test_an_answer_makes_all_good(pve):
    await pve.vain()
    await pve.answer()
    await pve.vain()
    assert not await pve.is_refused()


async def test_what_fails_at_once_is_no_silence(pve):
    for _ in range(3):
        await pve.vain(0.1)
    assert not await pve.is_refused()


async def test_a_node_that_cannot_be_reached_is_silent_however_soon_that_is_said(pve):
    for _ in range(2):
        await pve.vain(0.1, NodeUnreachable(595, "", "No route to host", node="pve2"))
    with pytest.raises(Unreachable, match="pve2/qemu: No route to host; it is asked again in 5 s"):
        await pve.answer()


async def test_a_refusal_is_an_answer_however_late_it_comes(pve):
    await pve.vain()
    await pve.vain(GLANCE, Forbidden(403, "", "Permission check failed"))
    await pve.vain(GLANCE)
    assert not await pve.is_refused()


async def test_a_slow_place_is_waited_for_in_full_again_after_a_minute(pve):
    """Or what takes longer than a glance would never be answered again."""
    await pve.vain()
    pve.clock.now += REMEMBERED / 2
    await pve.vain(GLANCE)
    pve.clock.now += REMEMBERED / 2
    await pve.vain(GLANCE + 1)
    assert not await pve.is_refused()


async def test_a_caller_who_leaves_early_tells_nothing_of_the_place(pve):
    with anyio.CancelScope() as scope:
        async with pve.silence.heeded(place_of(PATH), PATH):
            pve.clock.now += GLANCE
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    await pve.vain()
    assert not await pve.is_refused()


async def test_the_other_parts_of_a_silent_node_have_a_glance(pve):
    await pve.vain()
    for _ in range(2):
        await pve.vain(GLANCE, path=OTHER)
    assert await pve.is_refused(OTHER)


async def test_an_answer_of_another_part_shows_that_the_node_is_well(pve):
    await pve.vain()
    await pve.answer(OTHER)
    for _ in range(2):
        await pve.vain(GLANCE, path=OTHER)
    assert not await pve.is_refused(OTHER)


async def test_a_silent_storage_does_not_shorten_what_is_asked_of_its_node(pve):
    content = "/nodes/pve2/storage/nfs/content"
    await pve.vain(path=content)
    await pve.vain(GLANCE, path=content)
    assert await pve.is_refused(content)
    for _ in range(2):
        await pve.vain(GLANCE)
    assert not await pve.is_refused()


async def test_a_deadline_that_passed_is_told_of_the_request_itself(pve):
    with deadline(-1), pytest.raises(DeadlineExceeded, match=PATH):
        await pve.answer()


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/nodes/pve1", "pve1"),
        ("/nodes/pve1/qemu/100/config", "pve1/qemu"),
        ("/nodes/pve1/storage", "pve1/storage"),
        ("/nodes/pve1/storage/nfs/content", "pve1/storage/nfs"),
    ],
)
def test_a_storage_is_a_place_of_its_own(path, part):
    assert place_of(path).part == part


def test_the_cluster_as_a_whole_is_no_place():
    assert place_of("/nodes") is place_of("/cluster/resources") is None


class Hanging(httpx.AsyncBaseTransport):
    """A cluster of which one node never answers; reads of it end as a wire ends them."""

    def __init__(self):
        self.asked = Counter()

    async def handle_async_request(self, request):
        node = request.url.path.split("/")[4]
        self.asked[node] += 1
        if node == "pve2":
            await asyncio.sleep(0.01)  # a wire gives up after its read timeout
            raise httpx.ReadTimeout("", request=request)
        return httpx.Response(200, json={"data": {"time": 1}})


async def test_many_reads_of_a_hanging_node_wait_for_the_first_of_them_only():
    wire = Hanging()
    limits = Limits(read_timeout=0.01, per_node=2)
    client = Client(["pve1"], ApiToken("a@pve!b", "c"), limits=limits, wire=wire)
    asked = [client.node(name).time() for name in ("pve1", "pve2") * 20]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(one, Unreachable) for one in answers) == 20
    assert wire.asked["pve1"] == 20
    assert wire.asked["pve2"] <= 2 * limits.per_node


async def test_a_write_is_sent_to_a_silent_node_all_the_same():
    wire = Hanging()
    client = Client(["pve1"], ApiToken("a@pve!b", "c"), limits=Limits(read_timeout=0.01), wire=wire)
    for _ in range(2):
        with pytest.raises(Unreachable):
            await client.node("pve2").time()
    with pytest.raises(Unreachable, match="no answer in time"):
        await client.transport.post("/nodes/pve2/time", timezone="UTC")
    assert wire.asked["pve2"] == 3
