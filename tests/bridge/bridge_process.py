"""The bridge as a process, and a client that speaks to it in one of the two eras."""

import asyncio
import itertools
import json
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
KEPT = ("PATH", "HOME", "TMPDIR", "SYSTEMROOT", "TEMP", "USERPROFILE", "COVERAGE_PROCESS_CONFIG")
META = {VERSION_KEY: "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


def command():
    """The bridge under test: the frozen one that PVEMCP_BRIDGE names, or the source."""
    frozen = os.environ.get("PVEMCP_BRIDGE")
    return [str(Path(frozen).resolve())] if frozen else [sys.executable, "-m", "pvemcp_bridge"]


def environment(**more):
    return {name: os.environ[name] for name in KEPT if name in os.environ} | more


class BridgeProcess:
    """A bridge with its ends in the test's hands."""

    def __init__(self, process, modern):
        self.process = process
        self.modern = modern
        self._numbers = itertools.count(1)
        self._log = asyncio.create_task(self._read_log())
        self.log = ""

    async def _read_log(self):
        while line := await self.process.stderr.readline():
            self.log += line.decode()

    def write(self, line):
        self.process.stdin.write(line if isinstance(line, bytes) else line.encode() + b"\n")

    def send(self, message):
        self.write(json.dumps(message))

    def ask(self, method, params=None):
        """Sends a request of the era; its id."""
        number = next(self._numbers)
        params = dict(params or {})
        if self.modern:
            params["_meta"] = META | params.get("_meta", {})
        self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return number

    def tell(self, method, params=None):
        params = dict(params or {})
        if self.modern:
            params["_meta"] = META
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def call(self, tool, arguments=None):
        return self.ask("tools/call", {"name": tool, "arguments": arguments or {}})

    async def line(self):
        """The next line of the bridge; empty at its end."""
        async with asyncio.timeout(60):
            return await self.process.stdout.readline()

    async def next(self):
        line = await self.line()
        assert line, f"the bridge ended: {self.log}"
        return json.loads(line)

    async def reply(self, number):
        """The reply to a request; nothing else may come before it."""
        message = await self.next()
        assert message.get("id") == number, message
        return message

    async def open(self):
        """What a client does first: the handshake where the era has one, and a list of tools."""
        if not self.modern:
            await self.initialize()
        return (await self.reply(self.ask("tools/list")))["result"]["tools"]

    async def initialize(self, version="2025-11-25"):
        client = {"name": "test", "version": "1"}
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": client}
        reply = await self.reply(self.ask("initialize", params))
        if "result" in reply:
            self.tell("notifications/initialized")
        return reply

    async def end(self):
        """Closes the input; what still came, and the exit code."""
        self.process.stdin.close()
        async with asyncio.timeout(20):
            rest = await self.process.stdout.read()
            code = await self.process.wait()
            await self._log
        return [json.loads(line) for line in rest.splitlines()], code


@asynccontextmanager
async def running(*arguments, modern=False, env=None):
    process = await asyncio.create_subprocess_exec(
        *command(),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**(env or {})),
        limit=1 << 26,
    )
    bridge = BridgeProcess(process, modern)
    try:
        yield bridge
    finally:
        await _ended(process)
        await bridge._log


async def _ended(process):
    """Ends a bridge the way it can say good-bye, or else by force."""
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(5):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
