"""The answers of every tool while something fails, compared with those on record."""

import gc

import pytest

from pvemcp_server.toolkit.registry import tools

from .fault_cases import (
    CASES,
    WITHOUT_REQUESTS,
    answers_during,
    cluster_is_down,
    message_of,
    record,
    recorded,
)

pytestmark = [
    pytest.mark.anyio,
    # anyio leaves a connection attempt that is cancelled, before its first step or during its
    # TLS handshake, to the garbage collector
    pytest.mark.filterwarnings("ignore:coroutine 'connect_tcp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def collect_dropped_attempts():
    """Collect them here, not in a later test, where the warning would count."""
    yield
    gc.collect()


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.title, marks=[pytest.mark.slow] * case.slow) for case in CASES],
)
async def test_answers_during_a_fault_are_those_on_record(case):
    answers = await answers_during(case)
    for tool, answer in answers.items():
        assert "incident" not in message_of(answer), tool
        assert message_of(answer) or answer.data, f"{tool} has neither rows nor a message"
    renew = "run `python scripts/make_docs_faults.py` and read the difference"
    assert record(answers) == recorded()[case.title], renew


async def test_a_dead_cluster_takes_nothing_from_the_others(demo_client):
    lists = [name for name, tool in tools().items() if tool.lists and _needs_no_arguments(tool)]
    before = {tool: await demo_client(tool) for tool in lists}
    await cluster_is_down(demo_client)
    demo_client.refresh()
    for tool in lists:
        answer = await demo_client(tool)
        assert not answer.failed, answer.text
        assert _rows_of_prod(answer) >= _rows_of_prod(before[tool]), tool
        assert "home-lab" in answer.notes + answer.text


def test_every_tool_is_called_during_faults():
    called = {tool for case in CASES for tool in case.calls}
    assert called == tools().keys() - WITHOUT_REQUESTS


def test_the_record_has_the_same_cases():
    assert list(recorded()) == [case.title for case in CASES]


def _needs_no_arguments(tool):
    one_of_several = ("GetLog", "ListNodeRrdData")
    return not tool.input_schema.get("required") and tool.name not in one_of_several


def _rows_of_prod(answer):
    """Return the rows of prod by their names: their figures change from second to second."""
    names = ("upid", "volid", "vmid", "id", "name", "poolid", "storage", "node", "device")
    rows = [row for row in answer.data if row.get("cluster") == "prod"]
    return {tuple(row.get(name) for name in names) for row in rows}
