"""The questions of administrators, each within its bar of calls and tokens, and answered right."""

from collections import Counter
from dataclasses import replace

import pytest

from proxmox_client.emulator import demo
from pvemcp_server.toolkit.registry import tools

from .questions.declared import QUESTIONS
from .questions.model import Demo, ask, bar, differences
from .tool_client import open_tool_client

pytestmark = pytest.mark.anyio

KEEPS_ANSWERS = True
READS = [each for each in QUESTIONS.values() if not each.writes]
WRITES = [each for each in QUESTIONS.values() if each.writes]


async def compare(client, question):
    """Ask with a key that has no toolset, as new keys are, unless the question names one."""
    asked = await ask(replace(client, toolsets=question.toolsets), question)
    states = {name: each.emulated.state for name, each in client.clusters.connected.items()}
    assert differences(question, Demo(states), asked.replies) == []
    assert len(asked.replies) <= question.calls
    assert asked.tokens <= bar(question, asked.replies), asked.texts


@pytest.mark.parametrize("question", READS, ids=lambda question: question.id)
async def test_reads_are_answered_right_within_their_bar(tool_client, question):
    await compare(tool_client, question)


@pytest.fixture(scope="module")
async def client_for_writes(anyio_backend):
    async with open_tool_client(demo()) as client:
        yield client


@pytest.mark.parametrize("question", WRITES, ids=lambda question: question.id)
async def test_writes_do_what_is_asked_within_their_bar(client_for_writes, question):
    await compare(client_for_writes, question)


def test_a_new_tool_answers_the_questions_that_lack_it():
    lacking = {name: each.id for each in QUESTIONS.values() for name in each.no_tool}
    assert {name: each for name, each in lacking.items() if name in tools()} == {}


def test_all_questions_are_declared():
    series = Counter(each.id[0] for each in QUESTIONS.values())
    assert {f"B{number}" for number in range(1, 83)} <= QUESTIONS.keys()
    assert series["N"] >= 40
    assert series["T"] >= 15
