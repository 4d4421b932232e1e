"""The id of a call: the same in its lines of the log and in the audit."""

import json
import logging
from io import StringIO

import pytest

from pvemcp_server.audit import AuditFilter
from pvemcp_server.cli.logs import formatter_of
from pvemcp_server.config import Config

pytestmark = pytest.mark.anyio


@pytest.fixture
def lines():
    """Return the log as it is written in JSON."""
    handler = logging.StreamHandler(StringIO())
    handler.setFormatter(formatter_of(Config(log_format="json")))
    logging.getLogger("pvemcp_server").addHandler(handler)
    yield lambda: [json.loads(line) for line in handler.stream.getvalue().splitlines()]
    logging.getLogger("pvemcp_server").removeHandler(handler)


async def test_a_line_of_a_call_has_the_id_that_the_audit_has(served, lines):
    await served.modern.call("Break")
    (line,) = [line for line in lines() if "incident" in line["event"]]
    (entry,) = [entry for entry in await served.recorded() if entry.tool == "Break"]
    assert line["call_id"] == entry.call_id
    assert line["exception"].endswith("RuntimeError: secret detail")
    found = await served.app.endpoint.services.audit.find(AuditFilter(text=entry.call_id))
    assert [each.tool for each in found] == ["Break"]


async def test_intent_and_outcome_of_a_write_have_one_id(served, lines):
    await served.modern.call("StartThing", vmid=100)
    rows = [entry for entry in await served.recorded() if entry.tool == "StartThing"]
    assert len({entry.call_id for entry in rows}) == 1


def test_a_line_outside_of_calls_has_no_id(lines):
    logging.getLogger("pvemcp_server.test").warning("started")
    assert [("call_id" in line) for line in lines()] == [False]
