"""What stands between a key and its answers: reach, TLS, versions, clocks, nodes and rights."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from enum import StrEnum
from time import time
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

from proxmox_client import Client, ProxmoxError, Unauthenticated, fetch_fingerprint
from pvemcp_server.access.model import Caller
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import Command, Route, Subject
from pvemcp_server.admin.tools import NO_KEY, caller_of
from pvemcp_server.clusters import explain
from pvemcp_server.clusters.connections import Connection
from pvemcp_server.errors import CallError
from pvemcp_server.store.records import ClusterRecord, TlsMode
from pvemcp_server.toolkit.registry import Tool, tools
from pvemcp_server.tools.access import privileges

LONGEST_SECONDS: Final = 20
CLOCK_SECONDS: Final = 30  # further apart, one-time codes and recent times go wrong
OLDEST: Final = (8, 0)

subject = Subject("Overview")


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


class Finding(BaseModel):
    """One thing that was looked at."""

    topic: str
    level: Level
    text: str
    fix: list[str] = []


class Report(BaseModel):
    """A cluster as one Proxmox account sees it."""

    cluster: str
    account: str
    findings: list[Finding]

    @property
    def level(self) -> Level:
        """The worst there is."""
        found = {one.level for one in self.findings}
        return next((one for one in (Level.BAD, Level.WARN) if one in found), Level.OK)


@subject.operation("doctor", Route("POST", "/doctor"), Command("doctor", by_hand=True))
async def examine(
    context: AdminContext,
    cluster: Annotated[str | None, Field(description="One cluster; all when absent")] = None,
    key: Annotated[
        str, Field(description="Id or name of a key; the default account when absent")
    ] = NO_KEY,
) -> list[Report]:
    """Every cluster, or one, with the account that a key uses there and for the tools it may call.

    Without a key: with the default account, and for all tools.
    """
    caller = await caller_of(context, key)
    known = await context.services.access.clusters.all()
    if cluster is not None:
        known = [await context.services.access.clusters.get(cluster)]
    return list(await asyncio.gather(*(_report(context, one, caller) for one in known)))


async def _report(context: AdminContext, record: ClusterRecord, caller: Caller) -> Report:
    granted = _granted(caller, record.name)
    account, findings = "", [_role(caller, granted)] if caller.key_id else []
    findings += await _hosts(record)
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            bound = caller.identities.get(record.name)
            connection = await context.services.clusters.connection(record.name, bound)
            account = connection.identity.token_id
            findings += [one async for one in _inside(connection, granted)]
    except (CallError, ProxmoxError, TimeoutError) as error:
        findings.append(_silent(error, account))
    return Report(cluster=record.name, account=account, findings=findings)


def _silent(error: Exception, account: str) -> Finding:
    """Why nothing more was learned, and where to look when it is the token."""
    user = account.partition("!")[0]
    look = [f"pveum user token list {user}"] if isinstance(error, Unauthenticated) else []
    return _bad("answer", explain(error, account), *look)


def _granted(caller: Caller, cluster: str) -> list[Tool]:
    return [one for one in tools().values() if caller.resources(one.name, one.effect, cluster)]


def _role(caller: Caller, granted: Sequence[Tool]) -> Finding:
    text = f"Role {caller.role.name} of key {caller.key_name} gives {len(granted)} tools here."
    return _ok("role", text) if granted else _bad("role", text)


async def _hosts(record: ClusterRecord) -> list[Finding]:
    return list(await asyncio.gather(*(_host(record, host) for host in record.hosts)))


async def _host(record: ClusterRecord, host: str) -> Finding:
    """One host that is silent is a warning: another one may answer."""
    try:
        shown = await fetch_fingerprint(host)
    except ProxmoxError as error:
        return Finding(topic="reach", level=Level.WARN, text=explain(error))
    match record.tls_mode:
        case TlsMode.PINNED if shown not in record.fingerprints:
            text = f"{host} shows another certificate than the pinned one: {shown}"
            return _bad("tls", text, "pvenode cert info")
        case TlsMode.INSECURE:
            text = f"{host} answers, but its certificate is not checked; it is {shown}"
            return Finding(topic="tls", level=Level.WARN, text=text)
        case mode:
            return _ok("tls", f"{host} answers; its certificate is judged by {_WORDS[mode]}.")


_WORDS: Final = {
    TlsMode.SYSTEM: "the system's authorities",
    TlsMode.CA: "the authority given here",
    TlsMode.PINNED: "its pinned fingerprint",
    TlsMode.INSECURE: "nobody",
}


async def _inside(connection: Connection, granted: Sequence[Tool]) -> AsyncIterator[Finding]:
    """What the account sees once it is let in."""
    pve = connection.pve
    version = await pve.version()
    told = f"Proxmox VE {version.version}"
    new = version.number >= OLDEST
    yield _ok("version", told) if new else _bad("version", f"{told} is older than 8.0.")
    nodes = await pve.nodes()
    offline = [one.node for one in nodes if one.status != "online"]
    for finding in _nodes(len(nodes), offline):
        yield finding
    if online := [one.node for one in nodes if one.status == "online"]:
        with suppress(ProxmoxError):  # needs Sys.Audit; the rights below say when that is missing
            yield await _clock(pve, online)
    held = await pve.access.permissions()
    rights = privileges(connection.identity.token_id, list(granted), held, version.number[0])
    for finding in _rights(rights):
        yield finding


def _nodes(count: int, offline: Sequence[str]) -> Iterable[Finding]:
    if not count:
        yield _bad("nodes", "No node is visible to this account.")
    elif offline:
        text = f"{len(offline)} of {count} nodes do not answer: {', '.join(offline)}."
        yield Finding(topic="nodes", level=Level.WARN, text=text)
    else:
        yield _ok("nodes", f"All {count} nodes are online." if count > 1 else "Its node is online.")


async def _clock(pve: Client, online: Sequence[str]) -> Finding:
    """The furthest of the nodes' clocks from ours."""
    answers = await asyncio.gather(*(pve.node(one).time() for one in online))
    apart = {one: answer.time - time() for one, answer in zip(online, answers, strict=True)}
    node = max(apart, key=lambda one: abs(apart[one]))
    text = f"The clock of {node} is {abs(apart[node]):.0f} s from ours."
    if abs(apart[node]) <= CLOCK_SECONDS:
        return _ok("clock", text)
    return Finding(topic="clock", level=Level.WARN, text=text, fix=["timedatectl status"])


def _rights(rights: dict[str, Any]) -> Iterable[Finding]:
    """What comes back short or is refused, and the lines that fix it."""
    if rights["has"]:
        yield _ok("rights", f"The account has {', '.join(rights['has'])}.")
    for lack in rights["lacks"]:
        where = f" beyond {', '.join(lack['only_on'])}" if "only_on" in lack else ""
        text = (
            f"It lacks {lack['privilege']} on {lack['path']}{where}: "
            f"short or refused are {', '.join(lack['needed_by'])}."
        )
        yield Finding(topic="rights", level=Level.WARN, text=text, fix=[lack["fix"]])
    if "hint" in rights:
        yield Finding(topic="rights", level=Level.WARN, text=rights["hint"])


def _ok(topic: str, text: str) -> Finding:
    return Finding(topic=topic, level=Level.OK, text=text)


def _bad(topic: str, text: str, *fix: str) -> Finding:
    return Finding(topic=topic, level=Level.BAD, text=text, fix=list(fix))
