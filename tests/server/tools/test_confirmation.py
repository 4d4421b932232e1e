"""Confirmation of every write: asked where its plan loses data, refused where a setting says."""

import pytest

from pvemcp_server.mcp.elicitation import Decision
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tools

from .examples import PROD, add_old_volumes, add_running_task, examples

pytestmark = pytest.mark.anyio

EXAMPLES = examples(PROD)
WRITES = {name: tool for name, tool in tools().items() if not tool.reads}
CLUSTER = {"cluster_name": "prod"}
CONTAINER = {**CLUSTER, "vmid": 300}
NET0 = "net0=virtio=BC:24:11:00:00:01,mtu=1500"
# calls that lose data beside those of Effect.DESTROY, and their counterparts that lose nothing
LOSING = [
    ("ChangeVmState", {**CLUSTER, "vmid": 105, "action": "Stop"}),
    ("ChangeVmState", {**CLUSTER, "vmid": 105, "action": "Reset"}),
    ("BackupVm", {**CLUSTER, "vmid": 105, "storage": "pbs-main", "mode": "stop"}),
    ("MigrateVm", {**CONTAINER, "target_node": "pve02", "online": True}),
    ("RestoreBackup", {**CLUSTER, "backup": "140", "vmid": 140, "overwrite": True}),
    ("UpdateVmConfig", {**CLUSTER, "vmid": 105, "unset": ["net0"]}),
    ("UpdateVmConfig", {**CLUSTER, "vmid": 105, "vlan": 7}),
    ("UpdateVmConfig", {**CLUSTER, "vmid": 105, "options": [f"{NET0},bridge=vmbr0,link_down=1"]}),
    ("UpdateVmConfig", {**CONTAINER, "ip": "10.0.0.5/24"}),
    ("StopTask", EXAMPLES["StopTask"]),
    ("CallApi", {**CLUSTER, "method": "DELETE", "path": "/cluster/ha/rules/api-apart"}),
    (
        "CallApi",
        {
            **CLUSTER,
            "method": "PUT",
            "path": "/nodes/pve01/qemu/105/config",
            "parameters": ["onboot=0"],
        },
    ),
    ("DetachDisk", {**CLUSTER, "vmid": 105, "disk": "scsi0", "boot_disk": True}),
]
# asked about where the account is root@pam: guests/test_locks.py; of several guests:
# test_evacuation.py; where the call asks that it makes: test_undo.py
ELSEWHERE = {"UnlockVm", "EvacuateNode", "Undo"}
HARMLESS = [
    ("ChangeVmState", {**CLUSTER, "vmid": 105, "action": "Shutdown"}),
    ("ChangeVmState", {**CLUSTER, "vmid": 105, "action": "Reboot"}),
    ("ChangeVmState", {**CLUSTER, "vmid": 105, "action": "Suspend"}),
    ("BackupVm", {**CLUSTER, "vmid": 105, "storage": "pbs-main", "mode": "snapshot"}),
    ("BackupVm", {**CLUSTER, "vmid": 105, "storage": "pbs-main", "mode": "suspend"}),
    ("BackupVm", {**CLUSTER, "vmid": 9000, "storage": "pbs-main", "mode": "stop"}),
    ("MigrateVm", {**CLUSTER, "vmid": 105, "target_node": "pve02", "online": True}),
    ("CreateVmSnapshot", EXAMPLES["CreateVmSnapshot"]),
    ("RestoreBackup", EXAMPLES["RestoreBackup"]),
    *((name, EXAMPLES[name]) for name in ("CloneVm", "CreateVm", "CreateContainer")),
    ("ResizeVmDisk", EXAMPLES["ResizeVmDisk"]),
    ("MoveVmDisk", EXAMPLES["MoveVmDisk"]),
    ("AttachDisk", EXAMPLES["AttachDisk"]),
    ("UpdateVmConfig", EXAMPLES["UpdateVmConfig"]),
    ("CallApi", EXAMPLES["CallApi"]),
    ("UpdateVmConfig", {**CLUSTER, "vmid": 105, "cores": 8, "tags": ["+blue"]}),
]
DESTROYING = [(name, EXAMPLES[name]) for name, tool in WRITES.items() if tool.effect == "destroy"]
ALL_LOSING = LOSING + DESTROYING


@pytest.fixture
def client(demo_client):
    add_old_volumes(demo_client["prod"].emulated.state, PROD)
    add_running_task(demo_client["prod"].emulated.state, PROD)
    return demo_client


def sent(client):
    return [r for r in client.requests("prod") if not r.startswith("GET")]


def test_every_write_is_covered():
    named = {name for name, _ in ALL_LOSING + HARMLESS}
    assert WRITES.keys() - named == {"DownloadIso"} | ELSEWHERE


@pytest.mark.parametrize(("name", "arguments"), ALL_LOSING)
async def test_a_call_that_loses_data_is_asked_about_and_sent_only_with_consent(
    client, name, arguments
):
    rehearsed = await client(name, **arguments, dry_run=True)
    client.conversation.decision = Decision.NO
    assert await client.refused(name, **arguments) == "The user declined; nothing was changed."
    assert client.conversation.questions == [rehearsed.data["would"]]
    assert sent(client) == []
    client.conversation.decision = Decision.YES
    assert (await client(name, **arguments)).data["success"] is True
    assert len(sent(client)) == (2 if name == "RollbackVmSnapshot" else 1)  # it keeps the present


@pytest.mark.parametrize(
    ("setting", "decision", "says"),
    [
        ({"confirm_destructive": "deny"}, Decision.YES, "are switched off here"),
        (
            {"unconfirmed_destructive": "deny"},
            Decision.CANNOT_ASK,
            "this client cannot ask for it",
        ),
        ({}, Decision.NO_ANSWER, "gave no decision"),
        ({}, Decision.DISMISSED, "dismissed without a decision"),
        ({}, Decision.NOT_TICKED, "without ticking"),
        ({"unconfirmed_destructive": "allow"}, Decision.DISMISSED, "dismissed"),
    ],
)
async def test_without_consent_nothing_is_sent(client, setting, decision, says):
    client.change(**setting)
    client.conversation.decision = decision
    for name, arguments in ALL_LOSING:
        assert says in await client.refused(name, **arguments), (name, arguments)
        assert sent(client) == [], (name, arguments)


@pytest.mark.parametrize(("name", "arguments"), HARMLESS)
async def test_a_call_that_loses_nothing_is_not_asked_about(client, name, arguments):
    client.change(confirm_destructive="deny")
    client.conversation.decision = Decision.NO
    assert (await client(name, **arguments)).data["success"] is True
    assert client.conversation.questions == []


@pytest.mark.parametrize(("name", "arguments"), ALL_LOSING + HARMLESS)
async def test_a_consent_is_bound_to_the_digest_that_is_sent(client, monkeypatch, name, arguments):
    planned, written, send = [], [], client["prod"].pve.transport.request
    checked = Plan.checked

    def recorded_plan(plan, check):
        planned.append(plan.digest)
        return checked(plan, check)

    async def recorded(method, path, parameters):
        if method != "GET":
            written.append(parameters.get("digest"))
        return await send(method, path, parameters)

    monkeypatch.setattr(Plan, "checked", recorded_plan)
    client["prod"].pve.transport.request = recorded
    await client(name, **arguments)
    assert written[0] in (None, planned[0])


def test_the_hint_is_set_on_tools_that_may_lose_data():
    destructive = {name for name, tool in tools().items() if tool.annotations["destructiveHint"]}
    assert destructive == {name for name, _ in ALL_LOSING} | ELSEWHERE


async def test_no_argument_pushes_a_loss_or_a_disclosure_out_of_the_question(client):
    url = f"https://93.184.216.34/{'a' * 1_900}/new.iso"
    arguments = {**EXAMPLES["DownloadIso"], "source": url, "verify_certificates": False}
    would = (await client("DownloadIso", **arguments, dry_run=True)).data["would"]
    await client("DownloadIso", **arguments)
    [question] = client.conversation.questions
    shown, rest = question.split("… (")
    assert would.startswith(shown)
    assert would.endswith(rest.partition(" more characters) ")[2])
    assert "certificate is not checked" in rest
    assert len(question) < 1_500


def status_names(value):
    """Return the names of all fields of an answer, at any depth, that end with `status`."""
    if isinstance(value, list):
        return {name for each in value for name in status_names(each)}
    if not isinstance(value, dict):
        return set()
    own = {name for name in value if name.casefold().endswith("status")}
    return own.union(*map(status_names, value.values()))


async def test_no_write_answers_with_a_bare_status(client):
    # `status` of a task beside a guest reads as the guest's: Start answered "status":"stopped"
    client["prod"].emulated.state.guests[140].config["lock"] = "backup"
    calls = {**EXAMPLES, "UnlockVm": {**CLUSTER, "vmid": 140}}
    walked = [(name, calls[name], True) for name in calls if name in WRITES]
    walked.append(("CloneVm", {**EXAMPLES["CloneVm"], "name": "copy-2", "start": True}, True))
    for wait in (True, False):
        many = {**CLUSTER, "vmids": [105, 300], "action": "Reboot"}
        walked.append(("ChangeVmState", many, wait))
    names = set()
    for name, arguments, wait in walked:
        waits = {"wait": wait} if "wait" in tools()[name].input_schema["properties"] else {}
        answer = await client(name, **arguments, **waits)
        assert not answer.failed, answer.text
        names |= status_names(answer.data)
    assert {name for name, _, _ in walked} == WRITES.keys()
    assert names == {"task_status", "exit_status", "guest_status"}


async def test_the_network_that_a_guest_is_moved_to_is_in_the_question(client):
    trunks = ";".join(map(str, range(2, 40)))
    options = [f"{NET0},trunks={trunks},bridge=vmbr9"]
    await client("UpdateVmConfig", **CLUSTER, vmid=105, options=options)
    [question] = client.conversation.questions
    assert "bridge vmbr0 → vmbr9" in question
