"""Examples of the README, the documentation page and the docstrings run against the emulator."""

import ast
import inspect
import re
from pathlib import Path

import anyio
import pytest

from proxmox_client import ApiToken, Client
from proxmox_client.emulator import Cluster

pytestmark = pytest.mark.anyio

REPOSITORY = Path(__file__).parents[3]
README = REPOSITORY / "packages" / "proxmox_client" / "README.md"
PAGE = REPOSITORY / "docs" / "contributors" / "client.md"


def examples(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


async def run(source: str, names: dict) -> None:
    """Run an example that may await outside of functions."""
    code = compile(source, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)  # noqa: S307 - this project's own documentation
    if inspect.isawaitable(result):
        await result


async def test_the_example_of_the_readme_works(lab: Cluster, capsys):
    (source,) = examples(README.read_text())
    names: dict = {}
    await run(source, names)
    fingerprint = next(iter(lab.fingerprints.values()))
    with anyio.fail_after(20):
        await names["main"](lab.hosts[:1], *lab.token, fingerprint)
    assert "100 web-100 pve1 running" in capsys.readouterr().out
    assert lab.state.guests[100].snapshots.keys() == {"before-update"}


async def test_the_example_of_the_client_works(client: Client, lab: Cluster, capsys):
    (source,) = examples(inspect.getdoc(Client) or "")
    names = {"ApiToken": ApiToken, "Client": lambda hosts, auth: client}  # noqa: ARG005
    with anyio.fail_after(20):
        await run(source, names)
    assert "100 web-100 pve1 running" in capsys.readouterr().out
    assert lab.state.guests[100].snapshots.keys() == {"before-update"}


async def test_the_examples_of_the_page_work(client: Client, lab: Cluster):
    task = await client.qemu("pve1", 100).power("reset")
    await task.wait()
    names: dict = {"print": lambda *_: None}
    await run("import asyncio\nfrom proxmox_client import *", names)
    with anyio.fail_after(20):
        for source in examples(PAGE.read_text()):
            names |= {"client": client, "guest": await client.guest(100), "upid": str(task)}
            await run(source, names)
    assert lab.state.guests[100].node == "pve2"
    assert lab.state.guests[100].config["description"] == "web"
