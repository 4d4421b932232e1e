"""Nothing that one Proxmox account has fetched reaches a caller who is bound to another."""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

import pvemcp_server.tools.all  # noqa: F401 - declares the tools
from proxmox_client.emulator import Emulator, ManualClock, demo
from proxmox_client.emulator.cluster import Cluster as EmulatedCluster
from proxmox_client.emulator.state.people import Grant as AclEntry
from pvemcp_server.access.model import Caller, Grant, Role
from pvemcp_server.audit import Event
from pvemcp_server.mcp.completion import TOOLS as COMPLETED
from pvemcp_server.mcp.completion import complete
from pvemcp_server.mcp.resources import FAMILIES
from pvemcp_server.pipeline.pipeline import Pipeline
from pvemcp_server.settings import Values
from pvemcp_server.tables import tables
from pvemcp_server.toolkit.call import Decision
from pvemcp_server.toolkit.registry import tools

pytestmark = pytest.mark.anyio
ROLE = Role(1, "all", "", (Grant(frozenset({"*"})),))
SEEN = 100  # the one guest that the narrow account may look at and change
HIDDEN, NOBODY = 101, 99_101  # one it may not see, and a number that no guest has
ARCHIVE, NOWHERE = "nfs-archive", "nfs-nowhere"  # likewise of storages

Arguments = dict[str, Any]


@dataclass
class Settings:
    async def current(self) -> Values:
        return Values()


@dataclass
class Journal:
    events: list[Event] = field(default_factory=list)

    async def call(self, event: Event) -> None:
        self.events.append(event)

    async def refused(self, event: Event) -> None:
        self.events.append(event)


@dataclass
class Talk:
    """A person who agrees to everything, and what they were asked."""

    asked: list[str] = field(default_factory=list)
    client, wants_progress = "tests", False

    async def progress(self, done: float, total: float | None, message: str) -> None: ...

    async def ask(self, question: str) -> Decision:
        self.asked.append(question)
        return Decision.YES


@dataclass
class Desk:
    """Both callers, before the same server."""

    pipeline: Pipeline
    wide: Caller
    narrow: Caller
    talk: Talk = field(default_factory=Talk)

    async def say(self, caller: Caller, tool: str, arguments: Arguments) -> str:
        result = await self.pipeline.call(caller, tool, arguments, self.talk)
        return "\n".join(result.blocks)

    async def completed(self, caller: Caller, argument: str, typed: str) -> list[str]:
        call = await self.pipeline.open(tools()[COMPLETED[argument]], caller, self.talk)
        return await complete(call, argument, typed, "lab")


@pytest.fixture
async def lab() -> AsyncIterator[EmulatedCluster]:
    """With pools, snapshots, notes, backups and images of guests that are hidden, at one moment."""
    async with Emulator(demo(), clock=ManualClock()) as emulator:
        yield emulator["prod"]


@pytest.fixture
async def desk(clusters, access, lab, new_token) -> Desk:
    """One caller with the cluster's default account, one bound to an account of one guest."""
    token_id, secret = new_token("narrow")
    lab.state.people.grants.append(AclEntry(f"/vms/{SEEN}", "token", token_id, "PVEVMAdmin"))
    await access.clusters.add_identity("lab", "narrow", token_id=token_id, secret=secret)
    bound = (await access.clusters.identity("lab", "narrow")).id
    return Desk(
        Pipeline(tools(), clusters, Settings(), Journal()),
        Caller("wide", "wide", ROLE, version="w"),
        Caller("narrow", "narrow", ROLE, identities={"lab": bound}, version="n"),
    )


def hidden_words(lab: EmulatedCluster) -> set[str]:
    """What only somebody who sees the hidden guests could know."""
    state = lab.state
    hidden = [guest for vmid, guest in state.guests.items() if vmid != SEEN]
    seen = state.guests[SEEN]
    words = {guest.name for guest in hidden}
    words |= {name for guest in hidden for name in guest.snapshots} - set(seen.snapshots)
    return {word for word in words if "-" in word} | {ARCHIVE, backup(lab)}  # one is called uptime


def backup(lab: EmulatedCluster) -> str:
    """The last backup of the hidden guest in the hidden storage: they come and go weekly."""
    held = lab.state.storages[ARCHIVE].everything()
    return max(one.volid for one in held if one.vmid == HIDDEN).partition(":")[2]


def hidden_in(text: str, lab: EmulatedCluster, asked: object = "") -> list[str]:
    """Those in the text that were not brought by the question itself."""
    words = {word for word in hidden_words(lab) if word not in str(asked)}
    return sorted(w for w in words if re.search(rf"(?<![\w-]){re.escape(w)}\b", text))


def places(lab: EmulatedCluster, vmid: int, storage: str) -> Arguments:
    """Arguments that name something: that guest, on its node, and that storage."""
    node = lab.state.guests[HIDDEN].node
    return {
        "vmid": vmid,
        "vmids": [vmid],
        "node": node,
        "nodes": [node],
        "storage": storage,
        "volid": f"{storage}:{backup(lab)}",
        "upid": f"UPID:{node}:00000001:00000001:6B000000:qmstart:{vmid}:root@pam:",
        "target_node": next(name for name in lab.state.nodes if name != node),
    }


OTHERS: Arguments = {
    "query": {"from": "guests"},
    "action": "Reboot",
    "snapshot_name": "before-pg16",
    "url": "https://example.org/image.iso",
    "filename": "image.iso",
}
# Where a write of the wide account would fail with the values above
MEANT: dict[str, Arguments] = {
    "CreateVmSnapshot": {"snapshot_name": "new"},
    "MigrateVm": {"online": True},
    "DownloadIso": {"storage": "nfs-iso"},
    "DeleteIso": {"storage": "nfs-iso", "volid": "nfs-iso:iso/alpine-virt-3.22.1-x86_64.iso"},
}


def arguments_of(tool: str, named: Arguments) -> Arguments:
    """Everything named that the tool can take; a new kind of argument needs an example above."""
    fields = tools()[tool].arguments.model_fields
    needed = {name for name, one in fields.items() if one.is_required()}
    given = {name: value for name, value in named.items() if name in fields}
    given |= {name: value for name, value in OTHERS.items() if name in needed}
    assert needed <= set(given), f"{tool} needs examples of {needed - set(given)}"
    return {"cluster_name": "lab", **given} if "cluster_name" in fields else given


def questions(named: Arguments) -> Iterator[tuple[str, Arguments]]:
    """Every read tool, with all it can be asked about; every table, through ExecuteQuery."""
    reads = [name for name, one in tools().items() if one.reads]
    yield from ((name, arguments_of(name, named)) for name in reads)
    yield from ((name, arguments_of(name, {})) for name in reads if _may_ask_for_all(name))
    for name in tables():
        yield "ExecuteQuery", {"cluster_name": "lab", "query": {"from": name}}


def _may_ask_for_all(tool: str) -> bool:
    fields = tools()[tool].arguments.model_fields
    return not any(one.is_required() for name, one in fields.items() if name not in OTHERS)


def writes() -> list[str]:
    return [name for name, one in tools().items() if not one.reads]


async def test_every_tool_and_table_tells_each_account_only_what_it_may_see(desk, lab):
    asked = list(questions(places(lab, HIDDEN, ARCHIVE)))
    told = [await desk.say(desk.wide, *question) for question in asked]
    known_to_wide = {asked[n][0] for n, text in enumerate(told) if hidden_in(text, lab)}
    assert {"ListVms", "ListSnapshots", "ListBackups", "ExecuteQuery"} <= known_to_wide
    leaks = {}
    for question in asked:
        if found := hidden_in(await desk.say(desk.narrow, *question), lab, question):
            leaks[str(question)] = found
    assert leaks == {}


async def test_the_narrow_account_comes_first_and_the_wide_one_still_sees_everything(desk, lab):
    count = {"from": "guests", "select": ["COUNT(*) as total"]}
    question = ("ExecuteQuery", {"cluster_name": "lab", "query": count, "format": "Csv"})
    answers = [await desk.say(caller, *question) for caller in (desk.narrow, desk.wide)]
    totals = [answer.splitlines()[1] for answer in answers]
    assert totals == ["1", str(len(lab.state.guests))]


@pytest.mark.parametrize("dry_run", [True, False], ids=["dry run", "for real"])
async def test_no_write_can_tell_a_hidden_guest_from_none(desk, lab, dry_run):
    """Neither can a read: what is hidden is answered exactly like what does not exist."""
    for tool in writes():
        wide = arguments_of(tool, places(lab, HIDDEN, ARCHIVE)) | MEANT.get(tool, {})
        assert "would" in await desk.say(desk.wide, tool, {**wide, "dry_run": True}), tool
    before = len(lab.state.tasks)
    for tool in tools():
        options = {} if tools()[tool].reads else {"dry_run": dry_run}
        hidden = arguments_of(tool, places(lab, HIDDEN, ARCHIVE)) | options
        absent = arguments_of(tool, places(lab, NOBODY, NOWHERE)) | options
        answers = [await desk.say(desk.narrow, tool, one) for one in (hidden, absent)]
        assert _unnamed(answers[0]) == _unnamed(answers[1]), tool
        assert not hidden_in(answers[0], lab, hidden), tool
    assert desk.talk.asked == []
    assert len(lab.state.tasks) == before


def _unnamed(text: str) -> str:
    """The answer without the names that the question itself has brought."""
    for name in (str(NOBODY), str(HIDDEN), NOWHERE, ARCHIVE):
        text = text.replace(name, "#")
    return text


async def test_completion_offers_each_account_its_own_names(desk, lab):
    for argument in COMPLETED:
        wide = await desk.completed(desk.wide, argument, "")
        narrow = await desk.completed(desk.narrow, argument, "")
        assert wide, argument
        assert set(narrow) <= set(wide)
        assert not hidden_in(" ".join(narrow), lab)
    assert await desk.completed(desk.narrow, "vmid", "") == [str(SEEN)]
    assert await desk.completed(desk.narrow, "vmid", lab.state.guests[HIDDEN].name) == []


async def test_resources_by_address_are_as_narrow_as_the_account(desk, lab):
    values = {"cluster": "lab", "node": "pve01", "vmid": str(HIDDEN), "table": "guests"}
    for place in FAMILIES:
        question = (place.tool, place.call_arguments({slot: values[slot] for slot in place.slots}))
        await desk.say(desk.wide, *question)
        assert not hidden_in(await desk.say(desk.narrow, *question), lab, question), place.name
