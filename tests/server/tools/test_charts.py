"""Charts as PNG beside the answers of recorded metrics, for clients that take images."""

import base64
import json
import struct
import sys
import threading
from importlib import import_module
from random import Random

import pytest
from mcp.client import Client
from tests.cases import walk

from pvemcp_server.pipeline import chart_image
from pvemcp_server.pipeline.chart_image import MOST_BYTES, draw
from pvemcp_server.settings import Values
from pvemcp_server.tables.rows import Unit
from pvemcp_server.toolkit.charts import MOST_LINES, MOST_PANELS, Chart, Line, Panel
from pvemcp_server.toolkit.registry import tools

CALLS = {
    "ListVmRrdData": {"cluster_name": "prod", "vmids": [100, 101]},
    "ListNodeRrdData": {"cluster_name": "prod", "step": "1h", "time_frame": "Hour"},
    "ListStorageRrdData": {"cluster_name": "prod"},
}
MOST_TOKENS_ON = 40  # of tools/list, while the setting is on
CHARACTERS_PER_TOKEN = 3.0


def is_png(data: bytes) -> bool:
    return data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR"


def full_chart() -> Chart:
    """Return a chart of the most panels, with more lines than are drawn, of noise."""
    noise = Random(1)  # noqa: S311 - the same picture each time
    lines = [
        Line(
            f"{100 + number} a-rather-long-name-of-a-guest-{number}",
            [(60 * n, noise.uniform(0, 100)) for n in range(350)],
        )
        for number in range(MOST_LINES + 2)
    ]
    panels = [Panel(f"metric {n}", Unit.PERCENT, lines) for n in range(MOST_PANELS + 1)]
    return Chart("guests of prod", panels)


@pytest.mark.anyio
async def test_charts_are_an_argument_only_while_the_setting_is_on(demo_served):
    settings = demo_served.state.settings
    async with Client(demo_served.mcp) as client:
        plain = {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}
        texts = {name: await client.call_tool(name, call) for name, call in CALLS.items()}
        unknown = await client.call_tool("ListNodeRrdData", {"chart": True})
        assert unknown.is_error
        assert unknown.content[0].text.startswith("chart: ")

    await settings.change({"chart_images": True}, by="test")
    async with Client(demo_served.mcp) as client:  # the first one may keep its list for a time
        drawing = {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}
        changed = {name for name in plain if plain[name] != drawing[name]}
        assert changed == set(CALLS)
        grown = len(json.dumps(drawing)) - len(json.dumps(plain))
        assert grown / CHARACTERS_PER_TOKEN < MOST_TOKENS_ON * len(CALLS)
        for name, call in CALLS.items():
            same = await client.call_tool(name, call)
            assert [block.type for block in same.content] == [b.type for b in texts[name].content]
            drawn = await client.call_tool(name, {**call, "chart": True})
            assert [block.type for block in drawn.content[-2:]] == ["text", "image"]
            assert drawn.content[-2].text.startswith("\nChart: ")
            assert drawn.content[-1].mime_type == "image/png"
            png = base64.b64decode(drawn.content[-1].data)
            assert is_png(png)
            assert len(png) < MOST_BYTES


@pytest.mark.anyio
async def test_without_a_chart_an_answer_is_the_same_to_the_byte(tool_client):
    calls = {name: dict(call) for name, call in CALLS.items()}
    before = {name: await tool_client(name, **call) for name, call in calls.items()}
    tool_client.change(chart_images=True)
    for name, call in calls.items():
        assert await tool_client(name, **call) == before[name]
        assert (await tool_client(name, **call, chart=True)).text == before[name].text


@pytest.mark.anyio
async def test_the_alternative_text_has_each_line_with_its_values(demo_served):
    await demo_served.state.settings.change({"chart_images": True}, by="test")
    async with Client(demo_served.mcp) as client:
        call = {**CALLS["ListVmRrdData"], "metrics": ["Cpu"], "chart": True}
        drawn = await client.call_tool("ListVmRrdData", call)
    text = drawn.content[-2].text
    assert "guests of prod over the last day" in text
    assert "cpu usage: 100 web-01 from " in text
    assert "; 101 db-primary from " in text


@pytest.mark.anyio
async def test_a_missing_library_is_named_with_the_command_that_installs_it(
    tool_client, monkeypatch
):
    tool_client.change(chart_images=True)
    monkeypatch.setitem(sys.modules, "PIL", None)
    charts = import_module("pvemcp_server.toolkit.charts")
    monkeypatch.setattr(charts, "find_spec", lambda _name: None)
    error = await tool_client.refused("ListNodeRrdData", **CALLS["ListNodeRrdData"], chart=True)
    assert "pip install 'pvemcp-server[charts]'" in error
    monkeypatch.setattr("pvemcp_server.settings.find_spec", lambda _name: None)
    with pytest.raises(ValueError, match=r"pvemcp-server\[charts\]"):
        Values(chart_images=True)


def test_a_full_chart_stays_below_its_size():
    picture = draw(full_chart())
    assert is_png(picture.png)
    assert len(picture.png) < MOST_BYTES
    width, height = struct.unpack(">II", picture.png[16:24])
    assert (width, height) == (800, height)
    assert f"{len(full_chart().panels[0].lines) - MOST_LINES} more are not drawn" in (
        picture.alternative
    )


@walk(
    "points",
    [[(0, 5.0)], [(0, 0.0), (60, 0.0)], [(0, 1e300), (60, -1e300)], [(60, 5.0), (60, 5.0)]],
)
def test_unusual_values_are_drawn(points):
    chart = Chart("nodes", [Panel("load", Unit.COUNT, [Line("pve01\n", points)])])
    assert is_png(draw(chart).png)


@pytest.mark.anyio
async def test_a_chart_is_drawn_outside_the_event_loop(tool_client, monkeypatch):
    threads = []

    def drawn(chart):
        threads.append(threading.current_thread())
        return chart_image.draw(chart)

    monkeypatch.setattr("pvemcp_server.pipeline.pipeline.draw", drawn)
    tool_client.change(chart_images=True)
    await tool_client("ListNodeRrdData", **CALLS["ListNodeRrdData"], chart=True)
    assert threads
    assert threading.main_thread() not in threads


def test_the_library_is_not_imported_before_the_first_chart():
    assert {name for name, tool in tools().items() if tool.charts} == set(CALLS)
    source = chart_image.__loader__.get_source(chart_image.__name__)
    imports = [line for line in source.splitlines() if "from PIL" in line]
    assert all(line.startswith("    ") for line in imports)
