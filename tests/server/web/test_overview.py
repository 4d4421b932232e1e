"""The page Overview: first steps, clusters, calls, and its stream of server-sent events."""

import asyncio
import re
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from pvemcp_server.audit import Event, Outcome
from pvemcp_server.store.records import AdminRole
from pvemcp_server.web import live

pytestmark = pytest.mark.anyio


class Stream:
    """A reader of the stream, over ASGI: the client of the tests waits for whole answers."""

    def __init__(self, front):
        self.status = 0
        self._front = front
        self._text = ""
        self._events = asyncio.Queue()
        self._gone = asyncio.Event()

    async def run(self):
        """Send the request, and take what comes."""
        cookies = "; ".join(f"{each.name}={each.value}" for each in self._front.http.cookies.jar)
        path = "/admin/overview/events"
        headers = [(b"host", b"localhost"), (b"cookie", cookies.encode())]
        headers.append((b"accept", b"text/event-stream"))
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": headers,
            "http_version": "1.1",
            "scheme": "http",
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
            "root_path": "",
        }
        await self._front.app.asgi(scope, self._receive, self._send)
        await self._events.put(("", ""))

    async def next(self):
        """Return the name and the data of the next event; empty at the end."""
        async with asyncio.timeout(20):
            return await self._events.get()

    async def until(self, name, text=""):
        """Return the data of the next event with this name and text."""
        while True:
            event, data = await self.next()
            assert event, f"the stream ended before {name}"
            if event == name and text in data:
                return data

    def leave(self):
        self._gone.set()

    async def _receive(self):
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        self.status = message.get("status", self.status)
        self._text += message.get("body", b"").decode()
        *whole, self._text = self._text.split("\r\n\r\n")
        for block in whole:
            name = re.search(r"^event: (.*)\r?$", block, re.MULTILINE)
            lines = re.findall(r"^data: ?(.*?)\r?$", block, re.MULTILINE)
            if name:
                await self._events.put((name[1].strip(), "\n".join(lines)))


@asynccontextmanager
async def opened(front):
    """Open the stream and close it at the end."""
    stream = Stream(front)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stream.run())
        try:
            yield stream
        finally:
            stream.leave()


@pytest.fixture
def quick(monkeypatch):
    """Let pages look again at once."""
    monkeypatch.setattr(live.LiveOverview, "__post_init__", _without_pause)


def _without_pause(self):
    self.seconds = 0.01
    self._facts, self._clusters = live.Shared(0.0), live.Shared(0.0)


async def called(front, tool, outcome=Outcome.OK):
    await front.services.audit.call(Event(tool=tool, key_name="laptop", outcome=outcome))
    await front.services.audit.flush()


async def test_the_first_steps_tick_themselves_and_then_go(equipped):
    page = (await equipped.get("/admin/")).text
    assert "1 of 4 steps done" in page
    assert 'id="start-cluster"' not in page
    await equipped.post("/admin/keys", name="laptop", role="Read-only")
    await equipped.post("/admin/overview/endpoint", enabled="true")
    steps = await equipped.api("GET", "/overview/start")
    assert steps.json() == {"cluster": True, "key": True, "enabled": True, "called": False}
    (key,) = await equipped.services.access.keys.all()
    await equipped.services.store.keys.record_uses({key.id: (datetime.now(UTC), "192.0.2.1")})
    steps = await equipped.api("GET", "/overview/start")
    assert steps.json()["called"]


async def test_an_empty_server_shows_the_first_step_first(front):
    page = (await front.get("/admin/")).text
    assert "0 of 4 steps done" in page
    assert 'class="button small primary" id="start-cluster"' in page
    assert "http://localhost/mcp" in page


async def test_clusters_show_use_offline_nodes_and_what_needs_attention(equipped):
    page = (await equipped.get("/admin/overview/clusters")).text
    assert "pve05 offline" in page
    assert "storages nearly full: nfs-archive" in page
    health = {
        each["name"]: each for each in (await equipped.api("GET", "/overview/clusters")).json()
    }
    prod = health["prod"]
    assert prod["offline_nodes"] == ["pve05"]
    assert 0 < prod["memory"]["used"] < prod["memory"]["total"]
    details = (await equipped.get("/admin/overview/clusters/prod")).text
    assert "nfs-archive" in details
    assert "not known" in details  # the figures of the node that is offline
    assert "No cluster" in (await equipped.get("/admin/overview/clusters/nope")).text


async def test_calls_are_counted_by_tool_and_outcome(front):
    await front.sign_in(password="wrong")
    await front.sign_in()
    for outcome in (Outcome.OK, Outcome.OK, Outcome.ERROR, Outcome.REFUSED):
        await called(front, "ListVms", outcome)
    await called(front, "GetVmStatus")
    tools = (await front.api("GET", "/overview/tools")).json()
    assert tools == [
        {"tool": "ListVms", "calls": 4, "failed": 2, "refused": 1},
        {"tool": "GetVmStatus", "calls": 1, "failed": 0, "refused": 0},
    ]
    page = (await front.get("/admin/")).text
    assert "calls, 1 failed, 1 refused" in page
    assert re.search(r'href="/admin/audit\?since=[^"]+&amp;until=', page)


async def test_an_open_overview_shows_a_call_without_a_reload(equipped, quick):
    async with opened(equipped) as stream:
        assert "pve05 offline" in await stream.until("clusters")
        await called(equipped, "ListPools")
        assert "ListPools" in await stream.until("calls", "ListPools")
        await equipped.post("/admin/overview/endpoint", enabled="true")
        assert "The endpoint is on" in await stream.until("endpoint", "is on")


async def test_only_changed_parts_are_sent_again(front, quick):
    async with opened(front) as stream:
        first = {(await stream.next())[0] for _ in range(6)}
        assert first == {*live.PARTS, live.CLUSTERS}
        await called(front, "ListVms")
        assert (await stream.next())[0] == "calls"


@pytest.mark.parametrize("end", ["sign out", "role"])
async def test_a_stream_ends_with_its_session_or_right(front, quick, end):
    async with opened(front) as stream:
        await stream.until("clusters")
        if end == "role":
            await front.become(AdminRole.KEY_ISSUER)
        else:
            await front.services.access.sessions.end(
                (await front.services.store.sessions.all())[0].digest
            )
        await stream.until("ended")
        assert await stream.next() == ("", "")
    assert front.app.site.live.streams == 0


async def test_an_open_page_does_not_keep_its_session_alive(front, quick):
    sessions = front.services.store.sessions
    async with opened(front) as stream:
        await stream.until("clusters")
        (session,) = await sessions.all()
        early = datetime.now(UTC) - timedelta(minutes=30)
        await sessions.change(session.digest, last_seen=early)
        await called(front, "ListVms")
        await stream.until("calls", "ListVms")
        assert [each.last_seen for each in await sessions.all()] == [early]
        await sessions.change(session.digest, last_seen=early - timedelta(hours=1))
        await stream.until("ended")


async def test_streams_are_bounded_and_end_with_the_server(front, quick, monkeypatch):
    monkeypatch.setattr(live, "STREAMS_PER_SESSION", 1)
    async with opened(front) as stream:
        await stream.until("clusters")
        accept = {"Accept": "text/event-stream"}
        refused = await front.get("/admin/overview/events", headers=accept)
        assert refused.status_code == 429
        assert (await front.get("/admin/overview/events")).headers["location"] == "/admin/"
        front.app.site.closing.set()
        while (await stream.next())[0]:
            pass
    assert front.app.site.live.streams == 0


async def test_viewers_share_what_is_read(equipped, monkeypatch):
    reads = []
    monkeypatch.setattr(live.audit, "usage", _counted(live.audit.usage, reads))
    monkeypatch.setattr(
        live.overview, "cluster_health", _counted(live.overview.cluster_health, reads)
    )
    async with opened(equipped) as one, opened(equipped) as other:
        assert await one.until("clusters") == await other.until("clusters")
    assert len(reads) == 2
    assert equipped.app.site.live.streams == 0


def _counted(run, reads):
    async def counted(context):
        reads.append(run.__name__)
        return await run(context)

    return counted


async def test_a_key_issuer_gets_no_stream(front):
    await front.become(AdminRole.KEY_ISSUER)
    assert (await front.get("/admin/overview/events")).status_code == 403
    assert (await front.api("GET", "/overview/start")).status_code == 403
