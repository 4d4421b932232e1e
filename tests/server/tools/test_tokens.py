"""Tokens of answers: no read costs more than its bar unless the caller asks for that many rows."""

import asyncio
import json
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pvemcp_formats import Format
from pvemcp_server.pipeline.pagination import MOST_TOKENS, estimate
from pvemcp_server.toolkit.registry import Tool, tools

from .examples import PROD, examples
from .tool_client import ToolClient

pytestmark = pytest.mark.anyio

KEEPS_ANSWERS = True

BAR = 5_000
PEER = Path(__file__).parents[2] / "npm" / "peer.mjs"
READS = [tool for tool in tools().values() if tool.reads]


def calls(tool: Tool) -> list[dict[str, Any]]:
    """Return default arguments of the tool, and those that ask for every column."""
    fields = tool.arguments.model_fields
    required = {
        n: examples(PROD)[tool.name][n] for n, field in fields.items() if field.is_required()
    }
    wide = [{"detail_level": "Full"}] if "detail_level" in fields else []
    if tool.lists and tool.answer:
        wide.append({"fields": list(tool.answer.__struct_fields__)})
    return [required | more for more in ({}, *wide)]


async def answer(client: ToolClient, tool: str, arguments: dict[str, Any]) -> str:
    """Return both blocks of an answer; of the tool's example where it needs a name."""
    if tool == "GetTask":
        upid = next(iter(client["prod"].emulated.state.tasks))
        arguments = arguments | {"upid": upid, "cluster_name": "prod"}
    result = await client(tool, **arguments)
    if result.failed and result.text.startswith(("cluster_name:", "node:")):
        result = await client(tool, **{**examples(PROD)[tool], **arguments})
    assert not result.failed, f"{tool} {arguments}: {result.text}"
    return f"{result.text}\n{result.notes}"


@pytest.fixture(scope="module")
async def answers(_module_client: ToolClient) -> list[str]:
    """Return the answers of every read in every format."""
    return [
        await answer(_module_client, tool.name, {**arguments, "format": notation.value})
        for tool in READS
        for arguments, notation in product(calls(tool), Format)
    ]


async def test_no_read_exceeds_the_bar_unless_asked_to(answers):
    assert [text[:200] for text in answers if estimate(text) > BAR] == []


@pytest.mark.node
async def test_estimates_are_close_to_the_tokens_of_o200k(answers, npm_folder):
    orders = "\n".join(json.dumps({"work": "tokens", "input": text}) for text in answers)
    command = [str(npm_folder / "node_modules/node/bin/node"), str(PEER), str(npm_folder)]
    done = await asyncio.to_thread(
        subprocess.run, command, input=orders, capture_output=True, text=True, check=True
    )
    counted = [json.loads(line)["output"] for line in done.stdout.splitlines()]
    assert len(counted) == len(answers)
    assert [text[:200] for text, tokens in zip(answers, counted, strict=True) if tokens > BAR] == []
    ratios = [estimate(text) / tokens for text, tokens in zip(answers, counted, strict=True)]
    assert min(ratios) > 0.8
    assert max(ratios) < 1.3


@pytest.mark.parametrize("tool", [t for t in READS if not t.lists], ids=lambda tool: tool.name)
async def test_a_single_answer_costs_no_more_in_toon_than_in_json(tool_client, tool):
    [arguments] = calls(tool)[:1]
    toon, compact = [
        await answer(tool_client, tool.name, {**arguments, "format": notation})
        for notation in ("Toon", "JsonCompact")
    ]
    assert estimate(toon) <= estimate(compact)


async def test_a_list_that_is_cut_continues_with_its_cursor(tool_client):
    whole = await tool_client("ListBackups", limit=1000)
    assert estimate(whole.text) > MOST_TOKENS
    rows: list[Any] = []
    fields = list(whole.data[0])  # a page alone would drop empty columns
    more: dict[str, str] = {}
    while more or not rows:
        page = await tool_client("ListBackups", fields=fields, **more)
        assert estimate(page.text) <= MOST_TOKENS
        rows += page.data
        cursor = page.notes.partition("cursor=")[2].split("\n")[0]
        more = {"cursor": cursor} if cursor else {}
    assert rows == whole.data


async def test_a_narrower_answer_holds_more_rows(tool_client):
    wide = await tool_client("ListBackups")
    narrow = await tool_client("ListBackups", fields=["volid"])
    assert len(narrow.data) > len(wide.data)
    assert "cut at about 4,000 tokens: fewer `fields` or a `limit` give more rows" in wide.notes
