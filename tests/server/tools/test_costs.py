"""What calls cost, as pages for contributors say: requests to Proxmox, and functions of ours."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from pvemcp_server.toolkit.registry import tools

REPOSITORY = Path(__file__).parents[3]
DOCS = REPOSITORY / "docs" / "contributors"


@contextmanager
def benchmark(name: str) -> Iterator[ModuleType]:
    """Import a benchmark, which is a script."""
    folder = REPOSITORY / "benchmarks"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", folder / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder))
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(folder))
        del sys.modules[spec.name]


@pytest.fixture(scope="module")
def bench():
    """Return the benchmark that counts the requests."""
    with benchmark("tools") as module:
        yield module


def column(number: int) -> dict[str, str]:
    """Return a column of the page's table by tool."""
    table = (
        (DOCS / "performance.md")
        .read_text("utf-8")
        .partition("calls: generated -->")[2]
        .partition("<!-- end")[0]
    )
    rows = [line.strip("| ").split(" | ") for line in table.strip().splitlines()[2:]]
    return {cells[0]: cells[number] for cells in rows}


@pytest.mark.parametrize("size", [0, 1], ids=["one node", "five nodes"])
@pytest.mark.anyio
async def test_the_page_has_the_requests_of_a_call(bench, size):
    counted = await bench.calls_at(*bench.SIZES[size])
    assert {tool: str(calls) for tool, calls in counted.items()} == column(size + 1)


def test_every_tool_is_counted(bench):
    assert {title.partition(",")[0] for title in bench.CALLS} == tools().keys()


@pytest.mark.parametrize("size", range(1, 5))
def test_lists_cost_at_most_one_request_per_node(size):
    nodes = {1: 1, 2: 5, 3: 30, 4: 30}[size]
    found = column(size)
    assert found["ListVms"] == found["ListNodes"] == found["ListStorage"] == "1"
    for tool in ("ListTasks", "ListNodeDisks"):
        assert int(found[tool]) <= nodes + 1
    assert int(found["ListNodeRrdData"]) <= 2 * nodes + 1  # averages and maxima


@pytest.mark.anyio
async def test_a_list_of_guests_passes_no_more_files_and_functions_than_the_page_says():
    page = (DOCS / "call-flow.md").read_text("utf-8")
    figures = re.search(r"at most (\d+) files\s+and (\d+) functions", page)
    assert figures
    with benchmark("call_trace") as script:
        calls = (await script.traces(["ListVms"]))["ListVms"]
        functions = script.files(calls)
    assert len(functions) <= int(figures[1]), sorted(functions)
    assert len(calls) <= int(figures[2]), functions
    assert [file for file in functions if Path(file).name not in page] == []
    assert [file for file in functions if "oauth" in file] == []  # the call has an API key
