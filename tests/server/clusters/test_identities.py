"""No data fetched by one Proxmox account reaches a caller bound to another."""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.server.tools.few_guests import few_guests
from tests.server.tools.tool_client import FakeApprovals, FakeBudgets, FakeShownPlans, FakeUndos

import pvemcp_server.tools.all  # noqa: F401 - declares the tools
from proxmox_client.emulator import Emulator, ManualClock
from proxmox_client.emulator.cluster import EmulatedCluster
from proxmox_client.emulator.state.user_config import AclEntry
from pvemcp_server.access.model import Caller, Grant, Role, Toolset
from pvemcp_server.audit import Event
from pvemcp_server.mcp.completion import TOOLS as COMPLETED
from pvemcp_server.mcp.completion import complete
from pvemcp_server.mcp.resources import FAMILIES
from pvemcp_server.pipeline.pipeline import Pipeline
from pvemcp_server.pipeline.shown_plans import ShownPlans
from pvemcp_server.pipeline.undo_log import StoredUndos
from pvemcp_server.settings import Values
from pvemcp_server.tables import tables
from pvemcp_server.toolkit.call import Decision
from pvemcp_server.toolkit.registry import tools

pytestmark = pytest.mark.anyio
INSIDE = {"programs": frozenset({"echo"}), "files": frozenset({"/etc/"})}
ROLE = Role(1, "all", "", (Grant(frozenset({"*"}), **INSIDE),))
SEEN = 100  # the only guest of the narrow account
HIDDEN, ABSENT = 101, 1001  # a hidden guest, and an unused VMID that also resembles the SEEN one
ARCHIVE, ABSENT_STORAGE = "nfs-archive", "nfs-nowhere"  # likewise for storages

Arguments = dict[str, Any]


@dataclass
class Settings:
    async def current(self) -> Values:
        return Values(inside_guests=True)


@dataclass
class AuditRecorder:
    events: list[Event] = field(default_factory=list)

    async def call(self, event: Event) -> None:
        self.events.append(event)

    async def refused(self, event: Event) -> None:
        self.events.append(event)


@dataclass
class Elicitation:
    """A client whose user agrees to everything; it keeps the questions."""

    questions: list[str] = field(default_factory=list)
    client, wants_progress = "tests", False

    async def progress(self, done: float, total: float | None, message: str) -> None: ...

    async def ask(self, question: str, _beside: str = "", _digest: str = "") -> Decision:
        self.questions.append(question)
        return Decision.YES


@dataclass
class Clients:
    """Two callers of the same server, one with a wide and one with a narrow account."""

    pipeline: Pipeline
    wide: Caller
    narrow: Caller
    elicitation: Elicitation = field(default_factory=Elicitation)

    async def call(self, caller: Caller, tool: str, arguments: Arguments) -> str:
        result = await self.pipeline.call(caller, tool, arguments, self.elicitation)
        return "".join(result.blocks)

    async def completed(self, caller: Caller, argument: str, typed: str) -> list[str]:
        call = await self.pipeline.open(tools()[COMPLETED[argument]], caller, self.elicitation)
        return await complete(call, argument, typed, "lab")


@pytest.fixture
async def lab() -> AsyncIterator[EmulatedCluster]:
    """Open a cluster with pools, snapshots, backups and images of hidden guests, at one moment."""
    async with Emulator(few_guests(), clock=ManualClock()) as emulator:
        yield emulator["prod"]


@pytest.fixture
async def clients(clusters, access, lab, new_token) -> Clients:
    """Create a caller with the cluster's default account, and one bound to a narrow account."""
    token_id, secret = new_token("narrow")
    lab.state.user_config.acl.append(AclEntry(f"/vms/{SEEN}", "token", token_id, "PVEVMAdmin"))
    await access.clusters.add_identity("lab", "narrow", token_id=token_id, secret=secret)
    bound = (await access.clusters.identity("lab", "narrow")).id
    sets = frozenset(Toolset)
    return Clients(
        Pipeline(
            tools(),
            clusters,
            Settings(),
            AuditRecorder(),
            FakeApprovals(),
            StoredUndos(FakeUndos()),
            ShownPlans(FakeShownPlans(), lambda: b"key"),
            FakeBudgets(),
        ),
        Caller("wide", "wide", ROLE, toolsets=sets, version="w"),
        Caller("narrow", "narrow", ROLE, identities={"lab": bound}, toolsets=sets, version="n"),
    )


def hidden_words(lab: EmulatedCluster) -> set[str]:
    """Return names that only an account with access to the hidden guests can read."""
    state = lab.state
    hidden = [guest for vmid, guest in state.guests.items() if vmid != SEEN]
    words = {guest.name for guest in hidden}
    words |= {name for guest in hidden for name in guest.snapshots} - set(
        state.guests[SEEN].snapshots
    )
    return {word for word in words if "-" in word} | {ARCHIVE, backup(lab)}  # one is called uptime


def backup(lab: EmulatedCluster) -> str:
    """Return the last backup of the hidden guest in the hidden storage; they change weekly."""
    volumes = lab.state.storages[ARCHIVE].everything()
    return max(volume.volid for volume in volumes if volume.vmid == HIDDEN).partition(":")[2]


def hidden_in(text: str, lab: EmulatedCluster, question: object = "") -> list[str]:
    """Return the hidden names in the text, without those of the question."""
    words = {word for word in hidden_words(lab) if word not in str(question)}
    return sorted(w for w in words if re.search(rf"(?<![\w-]){re.escape(w)}\b", text))


def places(lab: EmulatedCluster, vmid: int, storage: str) -> Arguments:
    """Return arguments that name this guest, its node and this storage."""
    node = lab.state.guests[HIDDEN].node
    return {
        "vmid": vmid,
        "vmids": [vmid],
        "source": str(vmid),
        "backup": str(vmid),
        "node": node,
        "path": f"/nodes/{node}/qemu/{vmid}/config",
        "nodes": [node],
        "storage": storage,
        "volid": f"{storage}:{backup(lab)}",
        "upid": f"UPID:{node}:00000001:00000001:6B000000:qmstart:{vmid}:root@pam:",
        "target_node": next(name for name in lab.state.nodes if name != node),
    }


OTHERS: Arguments = {
    "query": {"from": "guests"},
    "words": "guest config",
    "argv": ["echo", "hello"],
    "action": "Reboot",
    "snapshot_name": "before-pg16",
    "filename": "image.iso",
    "name": "copy-1",
    "disk": "scsi0",
    "target_storage": "local-zfs",
    "size": "+1G",
    "volume": "local-zfs:1",
    "template": "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst",
}
# Writes of the wide account that would fail with the values above
VALID: dict[str, Arguments] = {
    "CreateVmSnapshot": {"snapshot_name": "new"},
    "MigrateVm": {"online": True},
    "DetachDisk": {"boot_disk": True},
    "UpdateVmConfig": {"description": "new"},
    "CloneVm": {"storage": None},
    "RestoreBackup": {"storage": "ceph-vm", "vmid": None},
    "CreateVm": {"storage": "ceph-vm"},
    "CreateContainer": {"storage": "ceph-vm"},
    "CallApi": {"method": "PUT", "parameters": ["description=new"]},
    "DownloadIso": {"storage": "nfs-iso", "source": "https://93.184.216.34/image.iso"},
    "DeleteIso": {"storage": "nfs-iso", "volid": "nfs-iso:iso/alpine-virt-3.22.1-x86_64.iso"},
}


NOT_PLANNED = {
    "UnlockVm",  # the guest is not locked
    "Undo",  # no write was made
    "StopTask",  # the task does not exist
    "DeleteVm",  # the guest runs, and its name is not that one
}


def arguments_of(tool: str, named: Arguments) -> Arguments:
    """Return the tool's arguments among these; a new required argument needs an example above."""
    fields = tools()[tool].arguments.model_fields
    required = {name for name, declared in fields.items() if declared.is_required()}
    arguments = {name: value for name, value in named.items() if name in fields}
    arguments |= {name: value for name, value in OTHERS.items() if name in required}
    assert required <= set(arguments), f"{tool} needs examples of {required - set(arguments)}"
    return {"cluster_name": "lab", **arguments} if "cluster_name" in fields else arguments


def questions(named: Arguments) -> Iterator[tuple[str, Arguments]]:
    """List calls of every read tool with all these arguments, and queries of every table."""
    reads = [name for name, tool in tools().items() if tool.reads]
    yield from ((name, arguments_of(name, named)) for name in [*reads, "CallApi"])
    yield from ((name, arguments_of(name, {})) for name in reads if _lists_all(name))
    for name in tables():
        yield "ExecuteQuery", {"cluster_name": "lab", "query": {"from": name}}


def _lists_all(tool: str) -> bool:
    fields = tools()[tool].arguments.model_fields
    return not any(
        declared.is_required() for name, declared in fields.items() if name not in OTHERS
    )


def writes() -> list[str]:
    return [name for name, tool in tools().items() if not tool.reads]


async def test_tools_and_tables_show_each_account_its_own_resources(clients, lab):
    calls = list(questions(places(lab, HIDDEN, ARCHIVE)))
    answers = [await clients.call(clients.wide, *question) for question in calls]
    revealing = {calls[n][0] for n, text in enumerate(answers) if hidden_in(text, lab)}
    assert {"ListVms", "ListSnapshots", "ListBackups", "ExecuteQuery"} <= revealing
    leaks = {}
    for question in calls:
        answer = await clients.call(clients.narrow, *question)
        if names := hidden_in(answer, lab, question):
            leaks[str(question)] = names
    assert leaks == {}


async def test_the_wide_account_sees_everything_after_the_narrow_one(clients, lab):
    count = {"from": "guests", "select": ["COUNT(*) as total"]}
    question = ("ExecuteQuery", {"cluster_name": "lab", "query": count, "format": "Csv"})
    answers = [await clients.call(caller, *question) for caller in (clients.narrow, clients.wide)]
    totals = [answer.splitlines()[1] for answer in answers]
    assert totals == ["1", str(len(lab.state.guests))]


@pytest.mark.parametrize("dry_run", [True, False], ids=["dry run", "for real"])
async def test_a_hidden_guest_is_answered_like_an_absent_one(clients, lab, dry_run):
    """Check reads and writes, dry runs and real ones."""
    for tool in set(writes()) - NOT_PLANNED:
        wide = arguments_of(tool, places(lab, HIDDEN, ARCHIVE)) | VALID.get(tool, {})
        assert "would" in await clients.call(clients.wide, tool, {**wide, "dry_run": True}), tool
    before = len(lab.state.tasks)
    for tool, given in [*((name, {}) for name in tools()), ("CallApi", VALID["CallApi"])]:
        options = given if tools()[tool].reads else {**given, "dry_run": dry_run}
        hidden = arguments_of(tool, places(lab, HIDDEN, ARCHIVE)) | options
        absent = arguments_of(tool, places(lab, ABSENT, ABSENT_STORAGE)) | options
        answers = [await clients.call(clients.narrow, tool, args) for args in (hidden, absent)]
        assert _without_names(answers[0]) == _without_names(answers[1]), tool
        assert not hidden_in(answers[0], lab, hidden), tool
    assert clients.elicitation.questions == []
    assert len(lab.state.tasks) == before


def _without_names(text: str) -> str:
    """Return the answer without the names of the question."""
    for name in (str(ABSENT), str(HIDDEN), ABSENT_STORAGE, ARCHIVE):
        text = text.replace(name, "#")
    return text


async def test_completion_offers_each_account_its_own_names(clients, lab):
    for argument in COMPLETED:
        wide = await clients.completed(clients.wide, argument, "")
        narrow = await clients.completed(clients.narrow, argument, "")
        assert wide, argument
        assert set(narrow) <= set(wide)
        assert not hidden_in(" ".join(narrow), lab)
    assert await clients.completed(clients.narrow, "vmid", "") == [str(SEEN)]
    assert await clients.completed(clients.narrow, "vmid", lab.state.guests[HIDDEN].name) == []


async def test_mcp_resources_are_as_narrow_as_the_account(clients, lab):
    values = {"cluster": "lab", "node": "pve01", "vmid": str(HIDDEN), "table": "guests"}
    for family in FAMILIES:
        arguments = {slot: values[slot] for slot in family.slots}
        question = (family.tool, family.call_arguments(arguments))
        await clients.call(clients.wide, *question)
        assert not hidden_in(await clients.call(clients.narrow, *question), lab, question), (
            family.name
        )
