"""The inspector's two command lines, as people run them, against the product on demo clusters.

`mcp-inspector --cli` makes one request and ends; `mcpdo` keeps connections in a process of its own.
"""

import asyncio
import itertools
import json
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL

import anyio
import pytest
from anyio.streams.text import TextReceiveStream

PACKAGE = "@modelcontextprotocol/inspector"
CLI = "clients/launcher/build/index.js"
MCPDO = "clients/mcpdo/build/mcp-bin.js"
ERAS = ["legacy", "modern"]
SNAPSHOT = {"cluster_name": "home-lab", "vmid": 100, "snapshot_name": "before"}
BACKUP = {"cluster_name": "home-lab", "vmid": 101, "storage": "local", "wait": True}
SECONDS = 60
pytestmark = [pytest.mark.anyio, pytest.mark.node, pytest.mark.slow]


@dataclass
class Recorder:
    """What a server sends to its clients, as it passes by."""

    seen: bytes = b""
    more: asyncio.Event | None = None

    def progress(self):
        """Return the tokens of all progress reports so far."""
        found = re.findall(rb"data: (\{.*notifications/progress.*\})", self.seen)
        return [json.loads(one)["params"]["progressToken"] for one in found]

    async def reports(self):
        """Wait for the first progress report."""
        with anyio.fail_after(SECONDS):
            while not self.progress():
                self.more = asyncio.Event()
                await self.more.wait()

    def take(self, data):
        self.seen += data
        if self.more:
            self.more.set()


@asynccontextmanager
async def tapped(url):
    """Serve the same server through a recording proxy; yield its URL and the recorder."""
    exchange, (host, port) = Recorder(), url.removeprefix("http://").split(":")

    async def copy(reader, writer, taken):
        while data := await reader.read(65536):
            taken(data)
            writer.write(data)
        writer.close()

    async def serve(reader, writer):
        back_reader, back_writer = await asyncio.open_connection(host, int(port))
        ways = [copy(reader, back_writer, lambda _: None), copy(back_reader, writer, exchange.take)]
        await asyncio.gather(*ways, return_exceptions=True)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", exchange


@dataclass
class Inspector:
    """Both programs with one home folder."""

    node_tools: object
    home: Path
    connections: Iterator[int] = field(default_factory=itertools.count)

    @property
    def environment(self):
        return {**os.environ, "HOME": str(self.home), "MCP_INSPECTOR_SECRET_STORE": "memory"}

    def command(self, script, *arguments):
        return [*self.node_tools.script(PACKAGE, script), *map(str, arguments)]

    async def run(self, script, *arguments):
        """Run a command line; return its exit code and stdout."""
        command = self.command(script, *arguments)
        with anyio.fail_after(SECONDS):
            done = await anyio.run_process(command, check=False, env=self.environment)
        return done.returncode, done.stdout.decode() or done.stderr.decode()

    async def cli(self, url, era, *arguments):
        target = (url, "--transport", "http", "--protocol-era", era)
        return await self.run(CLI, "--cli", *target, *arguments)

    async def mcpdo(self, *arguments):
        code, output = await self.run(MCPDO, "--format", "json", *arguments)
        assert code == 0, output
        return json.loads(output)

    async def connect(self, url, key, era):
        """Connect mcpdo in that era; return the name of the connection with its `@`."""
        name = f"{era}{next(self.connections)}"
        entry = {"type": "streamable-http", "url": f"{url}/mcp", "headers": {"X-API-Key": key}}
        catalog = self.home / "catalog.json"
        catalog.write_text(json.dumps({"mcpServers": {name: entry}}))
        connected = await self.mcpdo("--config", catalog, "connect", name, "--era", era)
        assert connected["protocolEra"] == era
        return f"@{name}"

    @asynccontextmanager
    async def at_terminal(self, script, *arguments):
        """Start a run at a pseudo-terminal, as for a user."""
        ours, theirs = os.openpty()
        command = self.command(script, *arguments)
        options = {"stdin": theirs, "stdout": DEVNULL, "stderr": theirs}
        try:
            async with await anyio.open_process(command, env=self.environment, **options) as one:
                yield one
        finally:
            os.close(ours)
            os.close(theirs)


@pytest.fixture(scope="module")
async def inspector(node_tools, anyio_backend):
    # not tmp_path: the path of a socket may have 107 characters
    with tempfile.TemporaryDirectory(prefix="mcpdo") as home:
        found = Inspector(node_tools, Path(home))
        yield found
        await found.run(MCPDO, "daemon", "stop")


def assigned(arguments):
    """Return the arguments in the form of mcpdo."""
    return [f"{name}:={json.dumps(value)}" for name, value in arguments.items()]


def text(result):
    return result["content"][0]["text"]


async def outcome_of(served, tool):
    """Return the outcome of the tool's call, once it has ended."""
    with anyio.fail_after(SECONDS):
        while True:
            for entry in await served.recorded():
                if entry.tool == tool and entry.outcome:
                    return entry.outcome
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("era", ERAS)
async def test_the_one_shot_command_line_lists_and_calls(inspector, demo_served, era):
    code, listed = await inspector.cli(demo_served.mcp, era, "--method", "tools/list")
    assert code == 0, listed
    names = [tool["name"] for tool in json.loads(listed)["tools"]]
    assert names == list(demo_served.fake_tools.tools)
    call = ["--method", "tools/call", "--tool-name", "ListClusters"]
    code, called = await inspector.cli(demo_served.mcp, era, *call)
    assert code == 0, called
    assert '["home-lab",' in text(json.loads(called))


@pytest.mark.parametrize("era", ERAS)
async def test_mcpdo_lists_and_calls_on_one_connection(inspector, demo_served, era):
    at = await inspector.connect(demo_served.url, demo_served.key, era)
    listed = await inspector.mcpdo(at, "tools/list")
    assert [tool["name"] for tool in listed["tools"]] == list(demo_served.fake_tools.tools)
    called = await inspector.mcpdo(at, "tools/call", "ListClusters")
    assert '["home-lab",' in text(called)


@pytest.mark.parametrize("era", ERAS)
async def test_an_interrupted_mcpdo_cancels_its_call(inspector, demo_served, era):
    async with tapped(demo_served.url) as (url, exchange):
        at = await inspector.connect(url, demo_served.key, era)
        call = [at, "tools/call", "BackupVm", *assigned(BACKUP)]
        call += ["--metadata", "progressToken=backup"]
        async with inspector.at_terminal(MCPDO, *call) as process:
            await exchange.reports()
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 1
        assert await outcome_of(demo_served, "BackupVm") == "cancelled"
    assert set(exchange.progress()) == {"backup"}


async def test_an_interrupted_one_shot_command_line_ends_its_call(inspector, demo_served):
    async with tapped(demo_served.url) as (url, exchange):
        target = [f"{url}/mcp/{demo_served.key}", "--transport", "http", "--protocol-era", "modern"]
        call = ["--method", "tools/call", "--tool-name", "BackupVm"]
        call += ["--tool-args-json", json.dumps(BACKUP), "--metadata", "progressToken=backup"]
        async with inspector.at_terminal(CLI, "--cli", *target, *call) as process:
            await exchange.reports()
            process.send_signal(signal.SIGINT)
            await process.wait()
        assert await outcome_of(demo_served, "BackupVm") == "cancelled"
    assert set(exchange.progress()) == {"backup"}


async def test_in_a_session_the_one_shot_command_line_cannot_cancel(inspector, served, fake_tools):
    # a disconnect is no cancellation in a session, and this program sends no other
    call = ["--method", "tools/call", "--tool-name", "Wait", "--protocol-era", "legacy"]
    target = [served.mcp, "--transport", "http"]
    async with inspector.at_terminal(CLI, "--cli", *target, *call) as process:
        with anyio.fail_after(SECONDS):
            await fake_tools.started.wait()
        process.send_signal(signal.SIGINT)
        await process.wait()
    fake_tools.release.set()
    assert await outcome_of(served, "Wait") == "ok"
    assert not fake_tools.cancelled.is_set()


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("answer", "deleted"),
    [(["confirm:=true"], True), (["--decline"], False)],
    ids=["yes", "declined"],
)
async def test_the_users_answer_to_mcpdo_decides(
    inspector, demo_served, demo_pve, era, answer, deleted
):
    snapshots = demo_pve["home-lab"].state.guests[100].snapshots
    at = await inspector.connect(demo_served.url, demo_served.key, era)
    created = {**SNAPSHOT, "wait": True}
    await inspector.mcpdo(at, "tools/call", "CreateVmSnapshot", *assigned(created))
    assert "before" in snapshots
    delete = {**SNAPSHOT, "wait": True}
    asked = await inspector.mcpdo(at, "tools/call", "DeleteVmSnapshot", *assigned(delete))
    question = asked["elicitationPending"]
    assert question["message"].startswith("Delete snapshot 'before' of qemu 100")
    respond = ("elicitation/respond", question["elicitationId"], *answer)
    code, _ = await inspector.run(MCPDO, "--format", "json", *respond)
    assert (code == 0) is deleted
    assert ("before" not in snapshots) is deleted


@pytest.mark.parametrize("era", ERAS)
async def test_the_one_shot_command_line_cannot_ask(inspector, demo_served, demo_pve, era):
    snapshots = demo_pve["home-lab"].state.guests[100].snapshots
    call = ["--method", "tools/call", "--tool-name", "CreateVmSnapshot"]
    call += ["--tool-args-json", json.dumps(SNAPSHOT | {"wait": True})]
    code, output = await inspector.cli(demo_served.mcp, era, *call)
    assert code == 0, output
    call[3] = "DeleteVmSnapshot"
    code, output = await inspector.cli(demo_served.mcp, era, *call)
    assert code != 0
    assert "waiting for approval" in output
    assert "before" in snapshots


async def test_mcpdo_follows_a_task_of_the_tasks_extension(inspector, demo_served, demo_pve):
    # without `wait` the call results in a task, which the program polls until its end
    at = await inspector.connect(demo_served.url, demo_served.key, "modern")
    called = await inspector.mcpdo(at, "tools/call", "CreateVmSnapshot", *assigned(SNAPSHOT))
    assert json.loads(text(called))["data"]["exit_status"] == "OK"
    assert "before" in demo_pve["home-lab"].state.guests[100].snapshots


@pytest.mark.parametrize("era", ERAS)
async def test_mcpdo_is_notified_of_a_subscribed_guest(
    inspector, demo_served, demo_pve, renew_inventory, era
):
    at = await inspector.connect(demo_served.url, demo_served.key, era)
    uri = "pve://clusters/home-lab/guests/100"
    watch = inspector.command(MCPDO, "--format", "json", at, "resources/subscribe", uri)
    async with await anyio.open_process(watch, env=inspector.environment, stderr=DEVNULL) as one:
        printed = TextReceiveStream(one.stdout)
        with anyio.fail_after(SECONDS):
            assert "subscribed" in await printed.receive()
            guest = demo_pve["home-lab"].state.guests[100]
            guest.config["name"], guest.row = "renamed", None
            await renew_inventory()
            said = ""
            while "resources/updated" not in said:
                said += await printed.receive()
        one.send_signal(signal.SIGINT)
        await one.wait()
    assert uri in said
