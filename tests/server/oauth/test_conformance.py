"""The official conformance suite's scenarios for authorization servers, in every revision."""

import os
import re

import anyio
import pytest
from anyio.streams.text import TextReceiveStream
from tests.ports import free_port

from .connected import CLIENT, add_client
from .consent import consenting

PACKAGE, SCRIPT = "@modelcontextprotocol/conformance", "dist/index.js"
REVISIONS = ("2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
LISTENS = "Callback server started"
SECONDS = 300  # the machine may be busy
pytestmark = [pytest.mark.anyio, pytest.mark.node]


async def test_the_authorization_server_passes_in_every_revision(node_tools, served, tmp_path):
    await add_client(served.state.store)
    command = node_tools.script(PACKAGE, SCRIPT)
    issuer, resource = f"{served.url}/oauth", f"{served.url}/mcp"
    command += ["authorization", "--url", issuer, "--client-id", CLIENT, "--resource", resource]
    command += ["--port", str(free_port()), "--spec-version"]  # of its callback
    with consenting(served), anyio.fail_after(SECONDS):
        for revision in REVISIONS:
            options = [revision, "-o", str(tmp_path / revision)]
            async with await anyio.open_process([*command, *options], env=os.environ) as process:
                printed, opened = "", False
                async for text in TextReceiveStream(process.stdout):
                    printed += text
                    found = re.search(r"http\S+/oauth/authorize\?\S+\s", printed)
                    # it may print the address of the sign-in before it listens for the redirect
                    if found and LISTENS in printed and not opened:
                        opened = True
                        await served.http.get(found[0].strip(), follow_redirects=True)
                assert await process.wait() == 0, printed
            total = re.search(r"Total: (\d+) passed, 0 failed\s", printed)
            assert int(total[1]) >= 2, printed
