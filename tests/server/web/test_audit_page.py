"""The page Audit: actions and guests in rows, ranges, conditions and the chart."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from pvemcp_server.audit import Event, Outcome
from pvemcp_server.store.audit_search import GUEST, GUESTS
from pvemcp_server.toolkit.registry import tools
from pvemcp_server.tools import all as _declared  # noqa: F401 - importing it declares every tool

pytestmark = pytest.mark.anyio


@pytest.fixture
async def recorded(equipped):
    """Provide a browser beside an audit with writes on guests of prod."""
    await equipped.get("/admin/overview/clusters")  # the names of guests are known afterwards
    events = [
        ("ChangeVmState", {"vmid": 101, "action": "shutdown"}, Outcome.OK),
        ("MigrateVm", {"vmids": [102, 1011], "target_node": "pve02"}, Outcome.ERROR),
        ("CreateVmSnapshot", {"vmids": [100, 101, 102, 103, 104]}, Outcome.REFUSED),
        ("ResizeVmDisk", {"vmid": 110, "disk": "scsi0", "size": "101G"}, Outcome.OK),
        ("ExecuteQuery", {"query": {"from": "guests", "limit": 101}}, Outcome.OK),
    ]
    for tool, arguments, outcome in events:
        event = Event(
            tool=tool,
            key_id="AbCdEfGh",
            key_name="laptop",
            cluster="prod",
            arguments=arguments,
            outcome=outcome,
        )
        await equipped.services.audit.call(event)
    await equipped.services.audit.flush()
    return equipped


def rows(page: str) -> list[str]:
    """Return the words of each row of the table."""
    body = page.split("<tbody>")[1].split("</tbody>")[0]
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in body.split("</tr>")[:-1]]


async def test_a_row_names_the_action_and_the_guests(recorded):
    table = rows((await recorded.get("/admin/audit?key=AbCdEfGh")).text)
    assert "ExecuteQuery from guests" in table[0]
    assert "ResizeVmDisk scsi0 to 101G 110" in table[1]
    assert re.search(r"100 web-01 , 101 db-primary , 102 \S+ and 2 more", table[2])
    assert "MigrateVm to pve02 102" in table[3]
    assert "ChangeVmState shutdown 101 db-primary" in table[4]


async def test_a_guest_is_found_by_its_number_alone(recorded):
    table = rows((await recorded.get("/admin/audit?guest=101")).text)
    assert [row.split(" prod ")[0].split("laptop ")[1].split()[0] for row in table] == [
        "CreateVmSnapshot",
        "ChangeVmState",
    ]
    found = await recorded.api("GET", "/audit?guest=1011")
    assert [entry["tool"] for entry in found.json()] == ["MigrateVm"]


@pytest.mark.parametrize(
    "arguments",
    [
        *({name: value} for name in GUEST for value in (4711, "4711")),
        *({GUESTS: [4710, value, 4712]} for value in (4711, "4711")),
        *({GUESTS: [value]} for value in (4711, "4711")),
    ],
    ids=str,
)
async def test_a_guest_is_found_by_each_argument_that_names_it(front, arguments):
    await front.services.audit.call(Event(tool="CloneVm", cluster="prod", arguments=arguments))
    await front.services.audit.flush()
    (row,) = rows((await front.get("/admin/audit?guest=4711&text=CloneVm")).text)
    assert "4711" in row
    assert "Nothing matches." in (await front.get("/admin/audit?guest=471")).text


def test_every_argument_that_names_a_guest_is_known_to_the_audit():
    named = {
        name
        for tool in tools().values()
        for name, schema in tool.input_schema["properties"].items()
        if name.endswith(("vmid", "vmids")) or schema.get("description", "").startswith("VMID")
    }
    assert named == {*GUEST, GUESTS}


async def test_links_of_a_row_narrow_the_present_search(recorded):
    page = (await recorded.get("/admin/audit?since=24h&cluster=prod")).text
    links = [link.replace("&amp;", "&") for link in re.findall(r'/admin/audit\?([^"]*)"', page)]
    for condition in ("tool=MigrateVm", "outcome=refused", "key=AbCdEfGh", "guest=102"):
        assert f"since=24h&cluster=prod&{condition}" in links
    assert "since=24h" in links  # without the condition
    assert "cluster=prod" in links  # without the range
    assert page.count('aria-current="true"') == 1


async def test_the_chart_counts_what_the_search_finds(recorded):
    page = (await recorded.get("/admin/audit?since=1h&key=AbCdEfGh")).text
    assert "5 entries" in page
    assert "in spans of 1 minute" in page
    assert re.search(r'href="/admin/audit\?key=AbCdEfGh&amp;since=[^"]+until=', page)
    part = (await recorded.get("/admin/audit/chart?guest=101")).text
    assert "2 entries" in part
    assert "in spans of 1 hour" in part


@pytest.mark.parametrize(
    "search",
    [
        "since=0001-01-01T00:00%2B02:00",
        "until=0001-01-02",
        "since=9999-12-31",
        "since=7d&until=1h",
        "guest=1",
    ],
)
async def test_a_chart_of_any_time_has_bars(recorded, search):
    answer = await recorded.get(f"/admin/audit/chart?{search}")
    assert answer.status_code == 200
    assert answer.text.count("data-local-title") <= 62
    assert "entries" in answer.text


async def test_times_carry_their_zone_for_the_browser(recorded):
    page = (await recorded.get("/admin/audit?since=24h")).text
    moment = re.search(r'<time datetime="(\S+)" data-local="moment">', page)[1]
    assert abs(datetime.fromisoformat(moment) - datetime.now(UTC)) < timedelta(days=2)
    assert "data-zoned" in page
