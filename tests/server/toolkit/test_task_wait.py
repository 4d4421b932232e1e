"""Progress of a task as the client gets it: only what its log says."""

import asyncio

import pytest

from proxmox_client import Upid
from proxmox_client.api.tasks import TaskProgress
from pvemcp_server.toolkit import task_wait

pytestmark = pytest.mark.anyio

UPID = Upid.parse("UPID:pve1:000002CD:000E132A:6B02ABF1:vzdump:100:mcp@pve!full:")


class Client:
    """A client that records what it is sent."""

    def __init__(self):
        self.reports = []

    async def progress(self, done, total, message):
        self.reports.append((done, total, message))


async def forwarded(*reports):
    """Return what a client gets for these polls: new lines and the last percentage."""
    client, queue = Client(), asyncio.Queue()
    for lines, percent in reports:
        queue.put_nowait(TaskProgress(UPID, lines, percent))
    forwarding = asyncio.create_task(task_wait._forward_progress(client, queue))
    for _ in reports:
        await asyncio.sleep(0)
    forwarding.cancel()
    await asyncio.gather(forwarding, return_exceptions=True)
    assert queue.empty()
    return client.reports


async def test_a_total_is_given_only_with_percentages_of_the_log():
    reports = await forwarded((["begun"], None), (["45%"], 45.0), (["done"], 45.0))
    assert [total for _, total, _ in reports] == [None, 100.0, 100.0]
    assert [done for done, _, _ in reports] == [0.01, 45.0, 45.01]


async def test_polls_without_news_are_not_sent():
    waiting = "INFO: trying to get global lock - waiting..."
    reports = await forwarded(([waiting], None), *[([], None)] * 50, ([], 3.0), ([], 3.0))
    assert [message for _, _, message in reports] == [waiting, waiting]


async def test_a_sign_of_life_repeats_the_last_line(monkeypatch):
    monkeypatch.setattr(task_wait, "_SIGN_OF_LIFE", 0)
    reports = await forwarded((["waiting"], None), ([], None), ([], None))
    assert [message for _, _, message in reports] == ["waiting"] * 3


async def test_steps_never_reach_a_hundred():
    reports = await forwarded((["99.99%"], 99.99), *[([f"line {n}"], 99.99) for n in range(9)])
    assert max(done for done, _, _ in reports) == 99.99
    assert (await forwarded((["100%"], 100.0)))[0][0] == 100.0
