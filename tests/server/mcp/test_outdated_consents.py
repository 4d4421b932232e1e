"""A consent or an approval is for the configuration that its plan was made from, in every era."""

import mcp_types as types
import pytest
from mcp.client import Client
from mcp.client.sse import sse_client

from pvemcp_server.admin import approvals
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.permission import COMMAND_LINE

from .test_scenarios import pve, received, refresh, served  # noqa: F401 - fixtures

pytestmark = pytest.mark.anyio

ERAS = ["auto", "legacy", "sse"]
PROD = {"cluster_name": "prod"}
# Writes that send a digest and lose something, and the guest whose configuration they are from
WRITES = {
    "DetachDisk of a VM": ("DetachDisk", {"vmid": 105, "disk": "scsi0", "boot_disk": True}, 105),
    "UpdateVmConfig of a VM": ("UpdateVmConfig", {"vmids": [105], "vlan": 7}, 105),
    "UpdateVmConfig of a container": ("UpdateVmConfig", {"vmids": [300], "ip": "10.0.0.5/24"}, 300),
    "UpdateVmConfig of several": ("UpdateVmConfig", {"vmids": [105, 110], "vlan": 9}, 110),
    "CallApi on a VM": (
        "CallApi",
        {"method": "PUT", "path": "/nodes/pve01/qemu/105/config", "parameters": ["onboot=0"]},
        105,
    ),
    "CallApi on a container": (
        "CallApi",
        {"method": "PUT", "path": "/nodes/pve01/lxc/300/config", "parameters": ["onboot=0"]},
        300,
    ),
}
EACH_WRITE = pytest.mark.parametrize("write", WRITES)


@pytest.fixture
def change(pve, served):  # noqa: F811
    """Return how another administrator changes the description of a guest, with all put back."""
    guests = pve["prod"].state.guests
    before = {vmid: dict(guests[vmid].config) for vmid in (105, 110, 300)}

    def describe(vmid, text):
        guests[vmid].config["description"] = text
        guests[vmid].touch()

    yield describe
    for vmid, config in before.items():
        guests[vmid].config.clear()
        guests[vmid].config.update(config)
        guests[vmid].touch()
    refresh(served)


@EACH_WRITE
@pytest.mark.parametrize("era", ERAS)
async def test_a_consent_does_not_count_for_a_changed_configuration(
    served,  # noqa: F811
    received,  # noqa: F811
    change,
    era,
    write,
):
    tool, arguments, vmid = WRITES[write]
    asked, changes = [], ["changed while the user was asked"]

    async def agree(_context, params):
        asked.append(params.message)
        if changes:
            change(vmid, changes.pop())
        return types.ElicitResult(action="accept", content={"confirm": True})

    if era == "sse":
        wire, mode = sse_client(f"{served.url}/sse/{served.key}"), "legacy"
    else:
        wire, mode = served.mcp, era
    async with Client(wire, mode=mode, elicitation_callback=agree) as client:
        refused = await client.call_tool(tool, PROD | arguments)
        assert refused.content[0].text == (
            "The configuration was changed after the user was asked, so the consent does not "
            "count; nothing was changed. Repeat the call: it is planned and asked again from the "
            "present configuration."
        )
        assert received["prod"].writes == []
        done = await client.call_tool(tool, PROD | arguments)
    first, second = (question.partition(" Running since ")[0] for question in asked)
    assert first == second  # the change is not of what the question shows
    assert not done.is_error, done.content[0].text
    assert len(received["prod"].writes) == len(arguments.get("vmids", [vmid]))
    [*_, entry] = [e for e in await served.recorded() if e.tool == tool and e.outcome == "error"]
    assert "the consent does not count" in entry.reason


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("DeleteVm", {"vmid": 140}),
        ("DeleteVm", {"vmid": 305}),
        ("RestoreBackup", {"backup": "140", "vmid": 140, "overwrite": True}),
    ],
)
async def test_a_guest_that_changed_since_the_question_is_not_deleted(
    served,  # noqa: F811
    pve,  # noqa: F811
    received,  # noqa: F811
    tool,
    arguments,
):
    guest = pve["prod"].state.guests[arguments["vmid"]]
    name = {"name": guest.name} if tool == "DeleteVm" else {}

    async def agree(_context, _params):
        guest.config["description"] = f"needed after all, says {tool}"
        guest.touch()
        return types.ElicitResult(action="accept", content={"confirm": True})

    async with Client(served.mcp, elicitation_callback=agree) as client:
        refused = await client.call_tool(tool, PROD | arguments | name)
    assert refused.content[0].text.startswith("The configuration was changed after the user was")
    assert received["prod"].writes == []


@EACH_WRITE
async def test_an_approval_does_not_count_for_a_changed_configuration(
    served,  # noqa: F811
    received,  # noqa: F811
    change,
    write,
):
    tool, arguments, vmid = WRITES[write]
    services = served.app.endpoint.services
    administrator = AdminContext(services, by="ada", address="127.0.0.1", authority=COMMAND_LINE)

    async def approve():
        [approval] = await services.approvals.waiting()
        await approvals.approve(administrator, approval.id)
        return approval.id

    async with Client(served.mcp) as client:
        await client.call_tool(tool, PROD | arguments)
        first = await approve()
        change(vmid, "changed after the approval")
        again = await client.call_tool(tool, PROD | arguments)
        assert "this call is waiting for approval" in again.content[0].text
        why_not = f"Approval {first} does not count: the configuration, or the key, "
        assert why_not in again.content[0].text
        assert received["prod"].writes == []
        assert await approve() != first
        done = await client.call_tool(tool, PROD | arguments)
    assert not done.is_error, done.content[0].text
    assert len(received["prod"].writes) == len(arguments.get("vmids", [vmid]))


@pytest.mark.parametrize("write", ["UpdateVmConfig of several", "CallApi on a container"])
@pytest.mark.parametrize("era", ERAS)
async def test_a_changed_configuration_is_refused_before_the_user_is_asked(
    served,  # noqa: F811
    received,  # noqa: F811
    change,
    era,
    write,
):
    tool, arguments, vmid = WRITES[write]
    asked = []

    async def agree(_context, params):
        asked.append(params.message)
        return types.ElicitResult(action="accept", content={"confirm": True})

    if era == "sse":
        wire, mode = sse_client(f"{served.url}/sse/{served.key}"), "legacy"
    else:
        wire, mode = served.mcp, era
    async with Client(wire, mode=mode, elicitation_callback=agree) as client:
        await client.call_tool(tool, PROD | arguments | {"dry_run": True})
        change(vmid, "changed after the dry run")
        refused = await client.call_tool(tool, PROD | arguments)
        assert refused.content[0].text.startswith("The configuration has changed since the dry run")
        assert (received["prod"].writes, asked) == ([], [])
        done = await client.call_tool(tool, PROD | arguments)
    assert not done.is_error, done.content[0].text
    assert len(asked) == 1
