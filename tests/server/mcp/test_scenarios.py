"""What administrators do in a day, end to end: a real MCP client, HTTP, emulated Proxmox.

Each scenario is compared with the state of the emulator and with the writes that it received, not
with the answers alone.
"""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx2 as httpx
import mcp_types as types
import pytest
from mcp.client import Client
from tests.ports import free_port

from proxmox_client.emulator import Clock, Emulator, demo
from pvemcp_server.access.model import ANY, Grant, Resources
from pvemcp_server.audit import AuditFilter

pytestmark = pytest.mark.anyio

PACE = 200.0  # how much faster than real time Proxmox's tasks run
PATIENCE = 60  # seconds: bounds a hang, as the machine may be busy
ADMIN, PASSWORD = "ada", "correct horse battery"
EACH_CLUSTER = pytest.mark.parametrize("name", ["prod", "home-lab"])
EACH_ERA = pytest.mark.parametrize("mode", ["auto", "legacy"])


@dataclass
class Received:
    """The writes that an emulated cluster has received; `before` is awaited ahead of each."""

    writes: list[str] = field(default_factory=list)
    before: object = None

    def watch(self, emulated):
        handle = emulated.faults.before_request

        async def before_request(node, method, path):
            if method != "GET":
                self.writes.append(f"{method} {path}")
                if self.before is not None:
                    await self.before(path)
            return await handle(node, method, path)

        emulated.faults.before_request = before_request

    def vmids(self):
        """Return the VMID of each write on a guest."""
        return sorted(int(write.split("/")[4]) for write in self.writes)


@dataclass
class Answer:
    """The text of a result, and its data."""

    text: str
    failed: bool

    @property
    def data(self):
        assert not self.failed, self.text
        return json.JSONDecoder().raw_decode(self.text)[0]["data"]


@dataclass
class Assistant:
    """An MCP client, with a user who answers questions if it can ask."""

    client: Client
    questions: list[str]

    async def __call__(self, tool, **arguments) -> Answer:
        result = await self.client.call_tool(tool, arguments)
        return Answer("".join(part.text for part in result.content), result.is_error)


@asynccontextmanager
async def assistant(url, *, mode="auto", decide=None):
    """Connect; `decide` returns the user's consent to each question. Without it, none is asked."""
    questions, options = [], {}

    async def answer(_context, params):
        questions.append(params.message)
        agreed = await decide(params.message)
        action = "accept" if agreed else "decline"
        return types.ElicitResult(action=action, content={"confirm": True} if agreed else None)

    if decide is not None:
        options["elicitation_callback"] = answer
    async with Client(url, mode=mode, **options) as client:
        yield Assistant(client, questions)


async def agree(_question):
    return True


async def decline(_question):
    return False


@pytest.fixture(scope="module")
async def pve(anyio_backend):
    async with Emulator(demo(), clock=Clock(PACE)) as emulator:
        yield emulator


@pytest.fixture(scope="module")
async def served(pve, serve_demo, tmp_path_factory):
    async with serve_demo(tmp_path_factory.mktemp("served") / "state", pve) as server:
        await server.state.settings.change({"calls_per_minute_per_key": 10_000}, by="test")
        await server.state.access.admins.create(ADMIN, PASSWORD, must_change=False)
        yield server


@pytest.fixture
def received(pve):
    """Record the writes that reach each cluster during the test."""
    each = {cluster.name: Received() for cluster in pve}
    for cluster in pve:
        each[cluster.name].watch(cluster)
    yield each
    for cluster in pve:
        del cluster.faults.before_request


@pytest.fixture(scope="module")
async def administrator(served):
    """Return how to send a request of the REST API as a signed-in administrator."""
    async with httpx.AsyncClient(base_url=f"{served.url}/admin/api", timeout=PATIENCE) as http:
        answer = await http.post("/session", json={"name": ADMIN, "password": PASSWORD})
        http.headers["X-CSRF-Token"] = answer.json()["csrf"]
        yield http


def refresh(served):
    """Let the next call read the inventory again, as it does after some seconds."""
    for connection in served.app.endpoint.services.clusters._open.values():
        connection.inventory.invalidate()


def set_options(served, guest, **options):
    guest.config |= options
    guest.touch()
    refresh(served)


async def last_entry(served, tool):
    return [entry for entry in await served.recorded() if entry.tool == tool][-1]


CLONES = {
    "prod": {"source": "tpl-debian-13", "ip": "10.30.9.9/24,10.30.9.1", "ciuser": "admin"},
    "home-lab": {"source": "205", "ip": "10.20.9.9/24,10.20.9.1"},
}


@EACH_CLUSTER
async def test_a_template_becomes_a_guest_that_can_be_reached_in_one_call(
    served, pve, received, name
):
    async with assistant(served.mcp) as call:
        answer = await call(
            "CloneVm", cluster_name=name, name="web-21", start=True, wait=True, **CLONES[name]
        )
    address = CLONES[name]["ip"].partition("/")[0]
    guest = pve[name].state.guests[answer.data["vmid"]]
    assert answer.data["ip_addresses"] == [address]
    assert (guest.name, guest.running) == ("web-21", True)
    assert any(address in str(value) for value in guest.config.values())
    steps = [write.rpartition("/")[2] for write in received[name].writes]
    assert steps == ["clone", "config", "start"]


def boot_disk(guest):
    """Return the size of its disk scsi0 in bytes."""
    return next(disk.size for disk in guest.disks() if disk.slot == "scsi0")


FULL_DISKS = {"prod": 105, "home-lab": 104}
FULL = {
    "from": "filesystems",
    "select": ["vmid"],
    "where": {
        "logic": "and",
        "conditions": [
            {"field": "usage_percentage", "operator": ">", "value": 95},
            {"field": "vmid", "operator": "IN", "value": list(FULL_DISKS.values())},
        ],
    },
}


@EACH_CLUSTER
async def test_a_guest_whose_disk_is_full_gets_a_larger_one(served, pve, received, name):
    guest = pve[name].state.guests[FULL_DISKS[name]]
    guest.agent.disk_used = 0.97
    size = boot_disk(guest)
    resize = {"cluster_name": name, "vmid": guest.vmid, "disk": "scsi0", "size": "+10G"}
    async with assistant(served.mcp) as call:
        full = await call("ExecuteQuery", query=FULL, cluster_name=name, format="JsonNormal")
        assert {row["vmid"] for row in full.data} == {guest.vmid}
        preview = await call("ResizeVmDisk", **resize, dry_run=True)
        assert "It cannot be shrunk again: no call undoes this." in preview.data["would"]
        assert (received[name].writes, boot_disk(guest)) == ([], size)
        answer = await call("ResizeVmDisk", **resize, wait=True)
    assert answer.data["ok"] is True
    assert boot_disk(guest) == size + (10 << 30)
    assert len(received[name].writes) == 1


def leave_few_guests(served, state, node):
    """Leave five VMs and three containers on a node; the others are on another one."""
    on_node = [guest for guest in state.guests.values() if guest.node == node]
    for kind, most in (("qemu", 5), ("lxc", 3)):
        for guest in [each for each in on_node if each.kind == kind][most:]:
            guest.node = "pve03"
            guest.touch()
    refresh(served)


async def test_a_node_is_evacuated_and_gets_its_guests_back(served, pve, received):
    state, node = pve["prod"].state, "pve04"
    leave_few_guests(served, state, node)
    before = {guest.vmid: guest.node for guest in state.guests.values()}
    async with assistant(served.mcp, decide=agree) as call:
        place = {"cluster_name": "prod", "node": node}
        table = (await call("EvacuateNode", **place, dry_run=True)).data["guests"]
        targets = {row["vmid"]: row["target_node"] for row in table if "target_node" in row}
        assert {row["vmid"] for row in table} == {v for v, n in before.items() if n == node}
        assert received["prod"].writes == []
        moved = await call("EvacuateNode", **place)
        assert {v: state.guests[v].node for v in targets} == targets, moved.text
        assert received["prod"].vmids() == sorted(targets)
        undone = await call("Undo", wait=True)
    assert undone.data["success"] is True
    assert {guest.vmid: guest.node for guest in state.guests.values()} == before
    assert len(targets) > 4
    assert received["prod"].vmids() == sorted([*targets, *targets])


@EACH_CLUSTER
async def test_a_deleted_guest_is_restored_from_its_last_backup(served, pve, received, name):
    state, vmid = pve[name].state, 140 if name == "prod" else 105
    guest = state.guests[vmid]
    deletion = {"cluster_name": name, "vmid": vmid, "name": guest.name, "wait": True}
    async with assistant(served.mcp, decide=decline) as call:
        assert "declined" in (await call("DeleteVm", **deletion)).text
    assert vmid in state.guests
    async with assistant(served.mcp, decide=agree) as call:
        await call("DeleteVm", **deletion)
        assert vmid not in state.guests
        [question] = call.questions
        assert guest.name in question
        restored = await call("Undo", wait=True)
    assert restored.data["ok"] is True
    assert state.guests[vmid].name == guest.name
    assert [write.split()[0] for write in received[name].writes] == ["DELETE", "POST"]


@EACH_CLUSTER
async def test_twenty_snapshots_before_patching_are_one_call_and_one_to_remove_them(
    served, pve, received, name
):
    state = pve[name].state
    chosen = [g.vmid for g in state.guests.values() if g.running and g.node != "pve05"][:20]
    call_of_all = {"cluster_name": name, "vmids": chosen, "snapshot_name": "patching"}
    async with assistant(served.mcp, decide=agree) as call:
        taken = await call("CreateVmSnapshot", **call_of_all, wait=True)
        assert taken.data["success"] is True
        assert all("patching" in state.guests[vmid].snapshots for vmid in chosen)
        assert call.questions == []  # nothing is lost
        removed = await call("DeleteVmSnapshot", **call_of_all, wait=True)
    assert removed.data["success"] is True
    [question] = call.questions
    assert all(f"{vmid} (" in question for vmid in chosen)
    assert not any("patching" in guest.snapshots for guest in state.guests.values())
    assert received[name].vmids() == sorted([*chosen, *chosen])


HIDDEN, ABSENT = 200, 250
ON_A_GUEST = {
    "GetVmStatus": {},
    "ChangeVmState": {"action": "Stop"},
    "CreateVmSnapshot": {"snapshot_name": "mine"},
    "DeleteVm": {"name": "mail-gateway"},
    "UpdateVmConfig": {"cores": 1},
    "ResizeVmDisk": {"disk": "scsi0", "size": "+1G"},
}


@EACH_ERA
async def test_a_guest_of_another_pool_is_answered_like_one_that_does_not_exist(
    served, received, mode
):
    grant = Grant(frozenset({ANY}), resources=Resources(pools=frozenset({"staging"})))
    await served.state.access.roles.create(f"staging-{mode}", [grant])
    toolsets = ["lifecycle", "maintenance"]
    key = await served.new_key(f"staging-{mode}", role=f"staging-{mode}", toolsets=toolsets)
    async with assistant(f"{served.url}/mcp/{key}", mode=mode, decide=agree) as call:
        for tool, arguments in ON_A_GUEST.items():
            hidden, absent = [
                await call(tool, cluster_name="prod", vmid=vmid, **arguments)
                for vmid in (HIDDEN, ABSENT)
            ]
            assert (hidden.failed, f"No guest {HIDDEN}" in hidden.text) == (True, True), tool
            assert hidden.text.replace(str(HIDDEN), "n") == absent.text.replace(str(ABSENT), "n")
    assert (call.questions, received["prod"].writes) == ([], [])


async def test_a_protected_guest_is_not_changed_and_its_user_is_not_asked(served, pve, received):
    guest = pve["prod"].state.guests[HIDDEN]
    tags = guest.config["tags"]
    set_options(served, guest, tags=f"{tags};protected")
    config = dict(guest.config)
    async with assistant(served.mcp, decide=agree) as call:
        for tool, arguments in ON_A_GUEST.items():
            answer = await call(tool, cluster_name="prod", vmid=guest.vmid, **arguments)
            is_read = tool == "GetVmStatus"
            assert answer.failed is not is_read, answer.text
            assert is_read or "is protected by its tag" in answer.text
    set_options(served, guest, tags=tags)
    assert (call.questions, received["prod"].writes) == ([], [])
    assert config | {"tags": tags} == guest.config


@EACH_CLUSTER
async def test_a_guest_that_was_changed_after_the_plan_is_left_as_it_is(
    served, pve, received, name
):
    guest = pve[name].state.guests[105 if name == "prod" else 104]
    place = {"cluster_name": name, "vmid": guest.vmid}

    async def change(_path):
        guest.config["memory"] = "12345"
        guest.touch()

    received[name].before = change
    changes = {
        "UpdateVmConfig": {"cores": 3, "description": "mine"},
        "ResizeVmDisk": {"disk": "scsi0", "size": "+1G"},
    }
    config = dict(guest.config) | {"memory": "12345"}
    async with assistant(served.mcp) as call:
        for tool, arguments in changes.items():
            guest.config["memory"] = "4096"
            guest.touch()
            answer = await call(tool, **place, **arguments)
            assert answer.failed
            assert "configuration" in answer.text
            assert guest.config == config
            assert (await last_entry(served, tool)).outcome == "error"
    assert len(received[name].writes) == len(changes)


@EACH_ERA
async def test_a_consent_to_a_plan_that_has_changed_is_not_used(served, pve, received, mode):
    guest = pve["prod"].state.guests[105]
    bridge = guest.config["net0"]

    async def change_and_agree(_question):
        set_options(served, guest, net0=bridge.replace("vmbr0", "vmbr1"))
        return True

    async with assistant(served.mcp, mode=mode, decide=change_and_agree) as call:
        move = {"cluster_name": "prod", "vmid": guest.vmid, "bridge": "vmbr2"}
        answer = await call("UpdateVmConfig", **move)
    set_options(served, guest, net0=bridge)
    assert answer.text.startswith("The configuration was changed after the user was asked")
    [question] = call.questions
    assert "bridge vmbr0 →" in question
    assert received["prod"].writes == []


STOPPING = {
    "prod": {"vmid": 106, "storage": "pbs-main", "mode": "stop"},
    "home-lab": {"vmid": 104, "storage": "nas-backup", "mode": "stop"},
}


@EACH_CLUSTER
async def test_a_client_that_cannot_ask_waits_for_an_approval_that_counts_once(
    served, received, administrator, name
):
    backup = {"cluster_name": name, **STOPPING[name], "wait": True}
    async with assistant(served.mcp) as call:
        refused = await call("BackupVm", **backup)
        assert "waiting for approval" in refused.text
        [waiting] = [
            each
            for each in (await administrator.get("/approvals")).json()
            if (each["state"], each["cluster"]) == ("waiting", name)
        ]
        again = await call("BackupVm", **backup)
        assert f"number {waiting['number']}" in again.text
        assert received[name].writes == []
        approved = await administrator.post(f"/approvals/{waiting['number']}/approve")
        assert approved.json()["state"] == "approved"
        other = await call("BackupVm", **{**backup, "mode": "snapshot"}, dry_run=True)
        assert other.data["dry_run"] is True
        done = await call("BackupVm", **backup)
        third = await call("BackupVm", **backup)
    assert done.data["ok"] is True
    assert "waiting for approval" in third.text
    assert [write.rpartition("/")[2] for write in received[name].writes] == ["vzdump"]


def running_on(pve, node, most):
    guests = pve["prod"].state.guests.values()
    return [g.vmid for g in guests if g.node == node and g.running and not g.paused][:most]


async def test_a_freeze_in_the_middle_of_a_bulk_write_names_the_guests_not_sent(
    served, pve, received, administrator
):
    vmids = running_on(pve, "pve01", 10)
    writes, known = 0, anyio.Event()

    async def freeze(_path):
        nonlocal writes
        writes += 1
        if writes > 1:  # the others that are on their way wait until the freeze is known
            await known.wait()
            return
        frozen = await administrator.post("/clusters/prod/freeze", json={"reason": "an incident"})
        assert frozen.status_code == 200, frozen.text
        await served.app.endpoint.services.store.watch.poll()  # else within a second
        known.set()

    received["prod"].before = freeze
    async with assistant(served.mcp) as call:
        many = {"cluster_name": "prod", "vmids": vmids, "snapshot_name": "frozen"}
        answer = await call("CreateVmSnapshot", **many, wait=True)
    received["prod"].before = None
    assert (await administrator.post("/clusters/prod/unfreeze")).status_code == 200
    rows = answer.data["results"]
    sent = [row["vmid"] for row in rows if row["success"]]
    unsent = [row["vmid"] for row in rows if not row["success"]]
    assert received["prod"].vmids() == sent
    assert sent
    assert sorted([*sent, *unsent]) == vmids
    assert unsent
    assert all("frozen" in row["error"] for row in rows if not row["success"])
    assert {v for v in vmids if "frozen" in pve["prod"].state.guests[v].snapshots} == {*sent}
    entry = await last_entry(served, "CreateVmSnapshot")
    assert sorted(vmids_of(entry.reason, "Writes are frozen")) == unsent


@EACH_ERA
@pytest.mark.parametrize("tool", ["CreateVmSnapshot", "UpdateVmConfig"])
async def test_a_client_that_goes_away_leaves_the_writes_sent_in_the_audit(
    served, pve, received, mode, tool
):
    vmids, mark = running_on(pve, "pve02", 10), f"gone-{mode}"
    options = {"snapshot_name": mark} if tool == "CreateVmSnapshot" else {"description": mark}

    async with assistant(served.mcp, mode=mode) as call, anyio.create_task_group() as tasks:

        async def leave(_path):
            if len(received["prod"].writes) == 2:
                tasks.cancel_scope.cancel()

        received["prod"].before = leave
        many = {"cluster_name": "prod", "vmids": vmids, **options, "wait": True}
        tasks.start_soon(lambda: call(tool, **many))
    entry = await ended(served, AuditFilter(tool=tool, text=mark))
    assert (entry.outcome, entry.arguments["vmids"]) == ("cancelled", vmids)
    sent, unsent = received["prod"].vmids(), vmids_of(entry.reason, "Not sent")
    assert len(sent) == len({*sent})
    assert not {*unsent} & {*sent}
    assert len(unsent) > 1
    begun = {int(upid.split(":")[6]) for upid in entry.upid.split()}
    assert begun <= {*sent} <= {*vmids} - {*unsent}
    await pve["prod"].tasks.settle()


async def ended(served, which):
    """Return the entry of a write once it has an outcome."""
    with anyio.fail_after(PATIENCE):
        while True:
            [entry] = await served.app.endpoint.services.audit.find(which)
            if entry.outcome:
                return entry
            await anyio.sleep(0.02)


def vmids_of(reason, text):
    """Return the VMIDs before a sentence that begins with the text."""
    found = re.search(rf"([\d, ]+): {text}", reason)
    return [int(vmid) for vmid in found[1].split(",")] if found else []


@pytest.mark.e2e
async def test_a_server_that_is_killed_in_a_bulk_write_sends_nothing_twice(
    pve, received, serve_demo, tmp_path
):
    vmids = [v for node in ("pve01", "pve02") for v in running_on(pve, node, 8)]
    call_of_all = {"cluster_name": "prod", "vmids": vmids, "snapshot_name": "killed"}
    state = tmp_path / "state"
    async with serve_demo(state, pve) as first:
        key = first.key
    with server_process(state) as (process, url):

        async def kill(_path):
            if len(received["prod"].writes) == 5:
                process.kill()

        received["prod"].before = kill
        await until_ready(process, url)
        with suppress(Exception):  # whichever error the client has for a broken connection
            async with assistant(f"{url}/mcp/{key}") as call:
                await call("CreateVmSnapshot", **call_of_all, wait=True)
        assert process.wait(PATIENCE) == -signal.SIGKILL
    await pve["prod"].tasks.settle()
    sent = received["prod"].vmids()
    assert len(sent) == len({*sent})
    assert 5 <= len(sent) < len(vmids)

    async with serve_demo(state, pve) as again, assistant(again.mcp) as call:
        audit = again.app.endpoint.services.audit
        assert await audit.verify() == []
        [intent] = await audit.find(AuditFilter(outcome="unknown"))
        assert (intent.tool, intent.outcome) == ("CreateVmSnapshot", None)
        assert intent.arguments["vmids"] == vmids
        query = {
            "from": "snapshots",
            "select": ["vmid"],
            "where": {"field": "name", "operator": "=", "value": "killed"},
        }
        known = await call("ExecuteQuery", query=query, cluster_name="prod", format="JsonNormal")
        assert sorted(row["vmid"] for row in known.data) == sent
        rest = await call("CreateVmSnapshot", **call_of_all, wait=True)
        rows = {row["vmid"]: row for row in rest.data["results"]}
    assert [vmid for vmid, row in rows.items() if not row["success"]] == sent
    assert all("already has a snapshot" in rows[vmid]["error"] for vmid in sent)
    assert received["prod"].vmids() == sorted(vmids)


@contextmanager
def server_process(state):
    """Start `pvemcp serve` on the state; yield the process and its URL."""
    port = free_port()
    command = [Path(sys.executable).with_name("pvemcp"), "serve", "--port", str(port)]
    environment = {**os.environ, "PVEMCP_STATE_DIR": str(state)}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, **pipes, stderr=subprocess.DEVNULL) as process:
        try:
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.kill()


async def until_ready(process, url):
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as http:
        with anyio.fail_after(PATIENCE):
            while True:
                assert process.poll() is None
                with suppress(httpx.ConnectError):
                    if (await http.get("/readyz")).status_code == 200:
                        return
                await anyio.sleep(0.05)
