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
    """Return what a client gets for polls: new lines, the last percentage, and success."""
    client, queue = Client(), asyncio.Queue()
    for report in reports:
        queue.put_nowait(TaskProgress(UPID, *report))
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


async def test_secrets_in_lines_of_the_log_are_masked():
    reports = await forwarded(
        (["downloading https://a:hush@host/x?token=hush", "password: hush"], 1.0)
    )
    assert "hush" not in str(reports)


async def test_polls_without_news_are_not_sent():
    waiting = "INFO: trying to get global lock - waiting..."
    reports = await forwarded(([waiting], None), *[([], None)] * 50, ([], 3.0), ([], 3.0))
    assert [message for _, _, message in reports] == [waiting, waiting]


async def test_a_sign_of_life_repeats_the_last_line(monkeypatch):
    monkeypatch.setattr(task_wait, "_SIGN_OF_LIFE", 0)
    reports = await forwarded((["waiting"], None), ([], None), ([], None))
    assert [message for _, _, message in reports] == ["waiting"] * 3


async def test_only_success_is_a_hundred():
    finished = [(["100%"], 100.0), *[([f"line {n}"], 100.0) for n in range(9)]]
    assert [done for done, _, _ in await forwarded(*finished, (["OK"], 100.0, True))] == [
        99.0, 99.01, 99.02, 99.03, 99.04, 99.05, 99.06, 99.07, 99.08, 99.09, 100.0,
    ]  # fmt: skip
    assert (await forwarded((["100%"], 100.0, True)))[0][0] == 100.0


async def test_a_download_whose_checksum_fails_is_never_at_a_hundred():
    reports = await forwarded(
        (["2100K ... 100% 1.2G=0.1s"], 100.0),
        (["calculating checksum..."], 100.0),
        (["TASK ERROR: checksum mismatch: got 'a' != expect 'b'"], 100.0),
    )
    assert len(reports) == 3
    assert max(done for done, _, _ in reports) < 100
