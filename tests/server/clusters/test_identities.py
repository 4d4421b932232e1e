"""No row that one Proxmox account has fetched reaches a caller who is bound to another."""

import re
from dataclasses import dataclass, field
from typing import Any

import pytest

import pvemcp_server.tools.all  # noqa: F401 - declares the tools
from proxmox_client.emulator.state.people import Grant as AclEntry
from pvemcp_server.access.model import Caller, Grant, Role
from pvemcp_server.audit import Event
from pvemcp_server.endpoint.conversation import Decision
from pvemcp_server.endpoint.pipeline import Pipeline
from pvemcp_server.settings import Values
from pvemcp_server.tables import tables
from pvemcp_server.tools.registry import tools

pytestmark = pytest.mark.anyio
ROLE = Role(1, "all", "", (Grant(frozenset({"*"})),))
SEEN = 100  # the one guest that the narrow account may look at


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


class Silent:
    client, wants_progress = "tests", False

    async def progress(self, done: float, total: float | None, message: str) -> None: ...

    async def ask(self, question: str) -> Decision:
        return Decision.NO


@pytest.fixture
async def callers(clusters, access, lab, new_token) -> tuple[Caller, Caller]:
    """One with the cluster's default account, one bound to an account that sees one guest."""
    token_id, secret = new_token("narrow")
    lab.state.people.grants.append(AclEntry(f"/vms/{SEEN}", "token", token_id, "PVEAuditor"))
    await access.clusters.add_identity("lab", "narrow", token_id=token_id, secret=secret)
    bound = (await access.clusters.identity("lab", "narrow")).id
    wide = Caller("wide", "wide", ROLE, version="w")
    return wide, Caller("narrow", "narrow", ROLE, identities={"lab": bound}, version="n")


async def say(pipeline: Pipeline, caller: Caller, tool: str, arguments: dict[str, Any]) -> str:
    result = await pipeline.call(caller, tool, arguments, Silent())
    return "\n".join(result.blocks)


def hidden_in(text: str, lab) -> list[str]:
    """Names of guests in the text that the narrow account may not see."""
    hidden = [guest.name for vmid, guest in lab.state.guests.items() if vmid != SEEN]
    return [name for name in hidden if re.search(rf"\b{re.escape(name)}\b", text)]


def arguments_of(tool: str, lab) -> dict[str, Any]:
    """The least that the tool takes, about a guest, node and storage that exist."""
    other = next(vmid for vmid in lab.state.guests if vmid != SEEN)
    known = {
        "vmid": other,
        "vmids": [],
        "node": next(iter(lab.state.nodes)),
        "storage": "local",
        "upid": f"UPID:{next(iter(lab.state.nodes))}:00000001:00000001:6B000000:qmstart:101:a@pve:",
        "query": {"from": "guests"},
    }
    fields = tools()[tool].arguments.model_fields
    needed = {name: known[name] for name in fields if name in known and fields[name].is_required()}
    return {"cluster_name": "lab", **needed} if "cluster_name" in fields else needed


def questions(lab) -> dict[str, tuple[str, dict[str, Any]]]:
    """Every read tool and, through ExecuteQuery, every table."""
    reads = {name: (name, arguments_of(name, lab)) for name, one in tools().items() if one.reads}
    queried = {
        f"table {name}": ("ExecuteQuery", {"cluster_name": "lab", "query": {"from": name}})
        for name in tables()
    }
    return reads | queried


async def test_every_tool_and_table_tells_each_account_only_what_it_may_see(clusters, callers, lab):
    wide, narrow = callers
    pipeline = Pipeline(tools(), clusters, Settings(), Journal())
    asked = questions(lab)
    told = {name: await say(pipeline, wide, *question) for name, question in asked.items()}
    assert {"ListVms", "table guests"} <= {name for name in told if hidden_in(told[name], lab)}
    leaks = {}
    for name, question in asked.items():
        if found := hidden_in(await say(pipeline, narrow, *question), lab):
            leaks[name] = found
    assert leaks == {}


async def test_the_narrow_account_comes_first_and_the_wide_one_still_sees_everything(
    clusters, callers, lab
):
    wide, narrow = callers
    pipeline = Pipeline(tools(), clusters, Settings(), Journal())
    listing = ("ListVms", {"cluster_name": "lab"})
    assert not hidden_in(await say(pipeline, narrow, *listing), lab)
    assert len(hidden_in(await say(pipeline, wide, *listing), lab)) == len(lab.state.guests) - 1
