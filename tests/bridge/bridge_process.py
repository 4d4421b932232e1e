"""The bridge as a process, with a client in one of the two eras."""

import asyncio
import itertools
import json
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
PASSED_VARIABLES = (
    "PATH", "PYTHONPATH", "HOME", "TMPDIR", "SYSTEMROOT", "TEMP", "USERPROFILE",
    "COVERAGE_PROCESS_CONFIG",
)  # fmt: skip
META = {VERSION_KEY: "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


# The bridge with retries of 6 s when a session opens and of 2 s later, instead of 45 s and 20 s
SHORT_RETRIES = """
from pvemcp_bridge import main, retry
retry.OPENING_RETRY_SECONDS, retry.RETRY_SECONDS = 6.0, 2.0
main.main()
"""


def command(*, short_retries=False):
    """Return the command of the bridge: the binary in PVEMCP_BRIDGE, or the source.

    A binary keeps its retries.
    """
    if frozen := os.environ.get("PVEMCP_BRIDGE"):
        return [str(Path(frozen).resolve())]
    return [sys.executable, *(("-c", SHORT_RETRIES) if short_retries else ("-m", "pvemcp_bridge"))]


def environment(**more):
    return {name: os.environ[name] for name in PASSED_VARIABLES if name in os.environ} | more


class BridgeProcess:
    """A bridge process whose client is the test."""

    def __init__(self, process, modern):
        self.process = process
        self.modern = modern
        self._numbers = itertools.count(1)
        self._log = asyncio.create_task(self._read_log())
        self._logged = asyncio.Event()
        self.log = ""

    async def _read_log(self):
        while line := await self.process.stderr.readline():
            self.log += line.decode()
            self._logged.set()

    async def wait_for_log(self, text):
        async with asyncio.timeout(10):
            while text not in self.log:
                self._logged.clear()
                await self._logged.wait()

    def write(self, line):
        self.process.stdin.write(line if isinstance(line, bytes) else line.encode() + b"\n")

    def send(self, message):
        self.write(json.dumps(message))

    def request(self, method, params=None):
        """Send a request of the era; return its id."""
        number = next(self._numbers)
        params = dict(params or {})
        if self.modern:
            params["_meta"] = META | params.get("_meta", {})
        self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return number

    def notify(self, method, params=None):
        params = dict(params or {})
        if self.modern:
            params["_meta"] = META
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def call(self, tool, arguments=None):
        return self.request("tools/call", {"name": tool, "arguments": arguments or {}})

    async def read_line(self):
        """Read the next line of the bridge; it is empty at the end."""
        async with asyncio.timeout(60):
            return await self.process.stdout.readline()

    async def read(self):
        line = await self.read_line()
        assert line, f"the bridge ended: {self.log}"
        return json.loads(line)

    async def reply(self, number):
        """Read the reply to a request; nothing else may come before it."""
        message = await self.read()
        assert message.get("id") == number, message
        return message

    async def open(self):
        """Do what a client does first: the handshake, if the era has one, and a tool list."""
        if not self.modern:
            await self.initialize()
        return (await self.reply(self.request("tools/list")))["result"]["tools"]

    async def initialize(self, version="2025-11-25"):
        client = {"name": "test", "version": "1"}
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": client}
        reply = await self.reply(self.request("initialize", params))
        if "result" in reply:
            self.notify("notifications/initialized")
        return reply

    async def end(self):
        """Close the input; return the remaining messages and the exit code."""
        self.process.stdin.close()
        async with asyncio.timeout(20):
            rest = await self.process.stdout.read()
            code = await self.process.wait()
            await self._log
        return [json.loads(line) for line in rest.splitlines()], code


@asynccontextmanager
async def running(*arguments, modern=False, env=None, short_retries=False):
    process = await asyncio.create_subprocess_exec(
        *command(short_retries=short_retries),
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
        await _stop(process)
        await bridge._log


async def _stop(process):
    """Stop a bridge in good order, or kill it after 5 s."""
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(5):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
