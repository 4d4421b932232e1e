"""The doctor: checks reachability, TLS, version, nodes, clocks and privileges of clusters."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import suppress
from enum import StrEnum
from shlex import quote
from time import time
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

from proxmox_client import (
    BackupServer,
    Client,
    ProxmoxError,
    Unauthenticated,
    fetch_fingerprint,
)
from proxmox_client.api.nodes import NodeRow, NodeTime
from pvemcp_server.access.model import Caller
from pvemcp_server.admin.audit import forwarded
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.keys import longer_keys, longer_tokens
from pvemcp_server.admin.operation import Command, Route, Subject
from pvemcp_server.admin.permission import AUDITORS
from pvemcp_server.admin.tools import NO_KEY, caller_of
from pvemcp_server.audit import Progress
from pvemcp_server.clusters import explain, outcome_of
from pvemcp_server.clusters.acl import Acl
from pvemcp_server.clusters.checks import CERTIFICATE_COMMANDS, TOKEN_COMMANDS
from pvemcp_server.clusters.explain import LACKS_QUORUM
from pvemcp_server.errors import IssuerUnavailable, counted
from pvemcp_server.program_name import this_command
from pvemcp_server.store.records import ClusterKind, ClusterRecord, TlsMode
from pvemcp_server.toolkit.registry import Tool, tools
from pvemcp_server.tools.access import backup_server_privileges, privileges

TIMEOUT_SECONDS: Final = 20
CLOCK_SECONDS: Final = 30  # a larger difference breaks one-time codes and recent times
OLDEST_VERSION: Final = (8, 0)

subject = Subject("Overview")


class Level(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


class Finding(BaseModel):
    """The outcome of one check; `fix` has commands for a Proxmox node."""

    topic: str
    level: Level
    text: str
    fix: list[str] = []


class Report(BaseModel):
    """The checks of a cluster with one Proxmox account, or of the server itself."""

    cluster: str = Field(description="Empty for the server itself")
    account: str
    findings: list[Finding]

    @property
    def level(self) -> Level:
        """The highest severity among the findings."""
        levels = {finding.level for finding in self.findings}
        return next((level for level in (Level.BAD, Level.WARN) if level in levels), Level.OK)


@subject.operation(
    "doctor",
    Route("POST", "/doctor"),
    Command("doctor", by_hand=True),
    may=AUDITORS,
)
async def examine(
    context: AdminContext,
    cluster: Annotated[str | None, Field(description="One cluster; all when absent")] = None,
    key: Annotated[
        str, Field(description="Id or name of a key; the default account when absent")
    ] = NO_KEY,
) -> list[Report]:
    """Check reachability, TLS, version, nodes, clocks and privileges of clusters.

    A cluster is checked with the account that the key uses there, for the tools that it may call;
    without a key, with the default account for all tools. Without a cluster, the server itself is
    checked as well.
    """
    done = await asyncio.gather(*await reports(context, cluster, key))
    return [report for report in done if report.findings]


async def reports(
    context: AdminContext, cluster: str | None = None, key: str = NO_KEY
) -> list[Coroutine[Any, Any, Report]]:
    """Return the reports, to be awaited: a cluster that hangs need not delay others.

    Without a cluster, the first one is the server's own, which may have no findings.
    """
    caller = await caller_of(context, key)
    clusters = context.services.access.clusters
    records = await clusters.all() if cluster is None else [await clusters.get(cluster)]
    awaited = [_report(context, record, caller) for record in records]
    return [_server(context), *awaited] if cluster is None else awaited


async def _server(context: AdminContext) -> Report:
    """Check the server itself: the forwarding of the audit, the life of keys, and the issuer."""
    findings = [_forwarded(progress) for progress in await forwarded(context)]
    settings = await context.services.settings.current()
    if settings.lacks_audience(context.services.config.public_url):
        text = "Tokens of the external authorization server get 503: neither external_audience nor "
        findings.append(_bad("issuer", f"{text}PVEMCP_PUBLIC_URL says what they have to be for."))
    if issuer := settings.external_issuer:
        findings.append(await _issuer(context, issuer))
    if names := await longer_keys(context):
        text = f"Keys that live longer than longest_key_life_days allows: {', '.join(names)}."
        findings.append(
            _warning("keys", text, *(f"{this_command()} keys regenerate {quote(n)}" for n in names))
        )
    if names := await longer_tokens(context):
        text = f"Service tokens live longer than longest_key_life_days allows: {', '.join(names)}."
        fix = (f"{this_command()} tokens revoke {quote(name)}" for name in names)
        findings.append(_warning("keys", text, *fix))
    return Report(cluster="", account="", findings=findings)


async def _issuer(context: AdminContext, issuer: str) -> Finding:
    """Check that the keys of the external authorization server can be read."""
    try:
        count = await context.services.issuer_users.verifier.check(issuer)
    except IssuerUnavailable as error:
        return _bad("issuer", str(error))
    if not count:
        return _bad("issuer", f"{issuer} publishes no key that signs tokens.")
    return _ok("issuer", f"{issuer} publishes {counted(count, 'key')} that may sign tokens.")


def _forwarded(progress: Progress) -> Finding:
    lag = (
        f"waiting: {counted(progress.waiting, 'row')}" if progress.waiting else "nothing is waiting"
    )
    if progress.error:
        text = f"The audit is not forwarded to {progress.address}: {progress.error}; {lag}."
        return _warning("audit", text)
    return _ok("audit", f"The audit is forwarded to {progress.address}; {lag}.")


async def _report(context: AdminContext, record: ClusterRecord, caller: Caller) -> Report:
    settings = await context.services.settings.current()
    granted = [
        tool
        for tool in tools().values()
        if record.kind in tool.kinds
        and tool.is_switched_on(settings)
        and caller.resources(tool.name, tool.effect, record.name)
    ]
    account, findings = "", [_role(caller, granted)] if caller.key_id else []
    findings += await asyncio.gather(*(_host(record, host) for host in record.hosts))

    async def check_account() -> None:
        nonlocal account
        async with asyncio.timeout(TIMEOUT_SECONDS):
            bound = caller.identities.get(record.name)
            connection = await context.services.clusters.connection(record.name, bound)
            account = connection.identity.token_id
            if isinstance(connection.client, BackupServer):
                checks = _backup_server_checks(connection.client, account)
            else:
                checks = _account_checks(connection.client, account, granted)
            async for finding in checks:
                findings.append(finding)

    failure = await outcome_of(check_account(), f"cluster {record.name}")
    if failure is not None:
        findings.append(_no_answer(failure, account, record.kind))
    return Report(cluster=record.name, account=account, findings=findings)


def _no_answer(error: Exception, account: str, kind: ClusterKind) -> Finding:
    """Return the finding for an error that ends the checks; a wrong token has a next step."""
    user = account.partition("!")[0]
    command = f"{TOKEN_COMMANDS[kind]} {quote(user)}"
    next_step = [command] if isinstance(error, Unauthenticated) else []
    return _bad("answer", explain(error, account), *next_step)


def _role(caller: Caller, granted: Sequence[Tool]) -> Finding:
    text = f"Role {caller.role.name} of key {caller.key_name} grants {len(granted)} tools here."
    return _ok("role", text) if granted else _bad("role", text)


async def _host(record: ClusterRecord, host: str) -> Finding:
    """Check a host's certificate; no answer is only a warning, because another host may answer."""
    try:
        fingerprint = await fetch_fingerprint(host)
    except ProxmoxError as error:
        return _warning("reach", explain(error))
    match record.tls_mode:
        case TlsMode.PINNED if fingerprint not in record.fingerprints:
            text = f"{host} shows another certificate than the pinned one: {fingerprint}"
            return _bad("tls", text, CERTIFICATE_COMMANDS[record.kind])
        case TlsMode.INSECURE:
            text = f"{host} answers, but its certificate is not checked: {fingerprint}"
            return _warning("tls", text)
        case TlsMode.PINNED:
            return _ok("tls", f"{host} answers with the pinned certificate.")
        case TlsMode.CA:
            return _ok("tls", f"{host} answers; its certificate needs the configured authority.")
        case _:
            return _ok("tls", f"{host} answers; its certificate needs a system authority.")


async def _backup_server_checks(pbs: BackupServer, account: str) -> AsyncIterator[Finding]:
    """Yield the checks that need the account of a backup server."""
    yield _ok("version", f"Proxmox Backup Server {(await pbs.version()).version}")
    stores = await pbs.datastores()
    for store in stores:
        if store.error:
            yield _warning("datastores", f"{store.store} cannot be read: {store.error}")
    if readable := [store.store for store in stores if not store.error]:
        yield _ok("datastores", f"Readable are {', '.join(readable)}.")
    else:
        yield _bad("datastores", "No datastore is visible to this account.")
    for finding in _rights(backup_server_privileges(account, await pbs.permissions())):
        yield finding


async def _account_checks(
    pve: Client, account: str, granted: Sequence[Tool]
) -> AsyncIterator[Finding]:
    """Yield the checks that need the cluster's account."""
    version = await pve.version()
    text = f"Proxmox VE {version.version}"
    if version.number >= OLDEST_VERSION:
        yield _ok("version", text)
    else:
        yield _bad("version", f"{text} is older than 8.0.")
    nodes = await pve.nodes()
    yield _nodes(nodes)
    with suppress(ProxmoxError):  # needs Sys.Audit too
        membership = await pve.cluster.status()
        if not membership.quorate:
            yield _bad("quorum", f"{LACKS_QUORUM}.", "pvecm status")
        elif membership.cut_off:
            cut_off = ", ".join(membership.cut_off)
            yield _bad("quorum", f"{cut_off}: cut off from the nodes with quorum.", "pvecm status")
    if blind := [node.node for node in nodes if node.lacks_statistics]:
        text = f"Proxmox has no current statistics of {', '.join(blind)}: does pvestatd hang there?"
        yield _warning("statistics", text, "systemctl status pvestatd")
    if answering := [node.node for node in nodes if not node.is_offline]:
        with suppress(ProxmoxError):  # needs Sys.Audit, which `_rights` reports when missing
            yield await _clock(pve, answering)
    held = await pve.access.permissions()
    acl = Acl(pve, account)
    for finding in _rights(await privileges(acl, list(granted), held, version.number[0])):
        yield finding


def _nodes(nodes: Sequence[NodeRow]) -> Finding:
    count, offline = len(nodes), [node.node for node in nodes if node.is_offline]
    if not count:
        return _bad("nodes", "No node is visible to this account.")
    if offline:
        text = f"{len(offline)} of {counted(count, 'node')} offline: {', '.join(offline)}."
        return _warning("nodes", text)
    return _ok("nodes", f"All {count} nodes are online." if count > 1 else "Its node is online.")


async def _clock(pve: Client, names: Sequence[str]) -> Finding:
    """Compare the nodes' clocks with this server's; report the largest difference."""
    requests = (pve.node(node).time() for node in names)
    answers = await asyncio.gather(*requests, return_exceptions=True)
    if not any(isinstance(answer, NodeTime) for answer in answers):
        raise next(answer for answer in answers if isinstance(answer, BaseException))
    offsets = {
        node: answer.time - time()
        for node, answer in zip(names, answers, strict=True)
        if isinstance(answer, NodeTime)
    }
    node = max(offsets, key=lambda name: abs(offsets[name]))
    text = f"The clock of {node} differs by {abs(offsets[node]):.0f} s from this server's."
    if abs(offsets[node]) <= CLOCK_SECONDS:
        return _ok("clock", text)
    return _warning("clock", text, "timedatectl status")


def _rights(rights: dict[str, Any]) -> Iterable[Finding]:
    """Yield the privileges that the account has and lacks, with the commands that add them."""
    if rights["has"]:
        yield _ok("rights", f"The account has {', '.join(rights['has'])}.")
    for lack in rights["lacks"]:
        where = f" beyond {', '.join(lack['only_on'])}" if "only_on" in lack else ""
        text = (
            f"It lacks {lack['privilege']} on {lack['path']}{where}: "
            f"incomplete or refused are {', '.join(lack['needed_by'])}."
        )
        if "fix" in lack:
            yield _warning("rights", text, lack["fix"])
        else:
            yield _warning("rights", f"{text} {lack['ask']}")


def _ok(topic: str, text: str) -> Finding:
    return Finding(topic=topic, level=Level.OK, text=text)


def _warning(topic: str, text: str, *fix: str) -> Finding:
    return Finding(topic=topic, level=Level.WARN, text=text, fix=list(fix))


def _bad(topic: str, text: str, *fix: str) -> Finding:
    return Finding(topic=topic, level=Level.BAD, text=text, fix=list(fix))
