"""Check of a cluster before it is saved: connection, certificate, token and privileges."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import proxmox_client as pve
from pvemcp_server.clusters.acl import Acl, Advice
from pvemcp_server.clusters.backup_server import grant_lines, missing_privileges
from pvemcp_server.clusters.explain import explain, reason_of
from pvemcp_server.errors import UnusableCluster
from pvemcp_server.link_local import check_hosts
from pvemcp_server.store.records import ClusterKind

CHECK_SECONDS = 20
CLIENTS: Final[Mapping[ClusterKind, type[pve.Client | pve.BackupServer]]] = {
    ClusterKind.PVE: pve.Client,
    ClusterKind.PBS: pve.BackupServer,
}
CERTIFICATE_COMMANDS: Final = {
    ClusterKind.PVE: "pvenode cert info",
    ClusterKind.PBS: "proxmox-backup-manager cert info",
}
TOKEN_COMMANDS: Final = {
    ClusterKind.PVE: "pveum user token list",
    ClusterKind.PBS: "proxmox-backup-manager user list-tokens",
}
# Without these privileges Proxmox shortens lists silently
AUDITS = ("VM.Audit", "Datastore.Audit", "Sys.Audit")


@dataclass(frozen=True)
class Check:
    """The outcome of checking a cluster or a backup server that answers."""

    kind: ClusterKind
    version: str
    nodes: tuple[str, ...]
    datastores: tuple[str, ...]  # of a backup server
    missing: tuple[str, ...]  # privileges without which lists are short
    advice: tuple[str, ...]  # the commands that grant them
    question: str = ""  # for an administrator, where no command is safe
    silent: tuple[str, ...] = ()  # hosts that did not answer, each with the reason

    @property
    def facts(self) -> str:
        """Version and parts in words."""
        is_pve = self.kind is ClusterKind.PVE
        word, names = ("nodes", self.nodes) if is_pve else ("datastores", self.datastores)
        return f"{self.kind.product} {self.version}, {word} {', '.join(names) or 'none'}"


async def check(
    hosts: Sequence[str],
    token_id: str,
    secret: str,
    tls: pve.Tls,
    name: str = "",
    kind: ClusterKind = ClusterKind.PVE,
) -> Check:
    """Sign in at each host, and read version, parts and privileges of one that answers.

    Raise CallError with the next step; a certificate that is not trusted makes a host useless, so
    one such host is enough. Hosts without an answer are named, as long as another one answers.
    """
    await check_hosts(hosts)
    try:
        auth = pve.ApiToken(token_id, secret)
    except ValueError as error:
        raise UnusableCluster(str(error), about="token_id") from error
    try:
        silent = await _silent_hosts(hosts, auth, tls, kind) if len(hosts) > 1 else ()
        async with CLIENTS[kind](hosts, auth, tls=tls, name=name) as client:
            with pve.deadline(CHECK_SECONDS):
                if isinstance(client, pve.BackupServer):
                    outcome = await _read_backup_server(client, token_id)
                else:
                    outcome = await _read(client, token_id)
        return replace(outcome, silent=silent)
    except ValueError as error:
        raise UnusableCluster(str(error), about="hosts") from error
    except pve.ProxmoxError as error:
        raise await unusable(error, token_id, hosts, kind) from error


async def _silent_hosts(
    hosts: Sequence[str], auth: pve.ApiToken, tls: pve.Tls, kind: ClusterKind
) -> tuple[str, ...]:
    """Return the hosts that do not answer; raise TlsError for one that shows no trusted
    certificate."""

    async def problem(host: str) -> str:
        try:
            async with CLIENTS[kind]([host], auth, tls=tls) as client:
                with pve.deadline(CHECK_SECONDS):
                    await client.version()
        except pve.TlsError:
            raise
        except (pve.Unreachable, pve.DeadlineExceeded) as error:
            return f"{host}: {explain(error)}"
        return ""

    return tuple(filter(None, await asyncio.gather(*map(problem, hosts))))


async def _read(client: pve.Client, token_id: str) -> Check:
    version = await client.version()
    nodes = await client.nodes()
    permissions = await client.access.permissions()
    held = {privilege for privileges in permissions.values() for privilege in privileges}
    missing = tuple(privilege for privilege in AUDITS if privilege not in held)
    advice = await Acl(client, token_id).advice("/", missing) if missing else Advice()
    return Check(
        kind=ClusterKind.PVE,
        version=version.version,
        nodes=tuple(sorted(node.node for node in nodes)),
        datastores=(),
        missing=missing,
        advice=(advice.line,) if advice.line else (),
        question=advice.question,
    )


async def _read_backup_server(client: pve.BackupServer, token_id: str) -> Check:
    version = await client.version()
    stores = await client.datastores()
    missing = missing_privileges(await client.permissions())
    return Check(
        kind=ClusterKind.PBS,
        version=version.version,
        nodes=(),
        datastores=tuple(sorted(store.store for store in stores)),
        missing=missing,
        advice=tuple(grant_lines(token_id, missing)),
    )


async def unusable(
    error: pve.ProxmoxError, account: str, hosts: Sequence[str], kind: ClusterKind
) -> UnusableCluster:
    """Return the error of a cluster that was tried with this account: a token, or a user's name."""
    match error:
        case pve.PlainPort():
            return UnusableCluster(explain(error), about="hosts")
        case pve.TlsError():
            message = f"Nothing was sent: {error}."
            return UnusableCluster(message, hint=await _tls_hint(hosts, kind), about="fingerprints")
        case pve.Unauthenticated() if "!" in account:
            about, what = "token_secret", "the token is wrong, missing, expired or disabled"
        case pve.Unauthenticated():
            about, what = "password", "user, password or code is wrong"
        case pve.Unreachable() | pve.DeadlineExceeded():
            return UnusableCluster(explain(error), hint=_hint(error, kind), about="hosts")
        case _:
            return UnusableCluster(explain(error, account), hint=_hint(error, kind))
    message = f"Proxmox refused {account}: {what} ({reason_of(error)})."
    hint = _hint(error, kind) if "!" in account else "Each code of a second factor counts once."
    return UnusableCluster(message, hint=hint, about=about)


async def _tls_hint(hosts: Sequence[str], kind: ClusterKind) -> str:
    """Return the hosts' current fingerprints, to compare with those that the nodes report."""
    fingerprints = []
    for host in hosts:
        try:
            fingerprints.append(f"{host} shows {await pve.fetch_fingerprint(host)}")
        except pve.ProxmoxError:
            continue  # it does not answer; the error already says what went wrong
    if not fingerprints:
        return f"Is it {kind.product} that listens there?"
    return (
        f"{'; '.join(fingerprints)}. Compare it with `{CERTIFICATE_COMMANDS[kind]}` there, "
        "and if it is the same, pin it."
    )


def _hint(error: pve.ProxmoxError, kind: ClusterKind) -> str:
    match error:
        case pve.Unauthenticated():
            return (
                f"Check token id and secret; `{TOKEN_COMMANDS[kind]} USER` shows which exist. "
                f"If the host is no {kind.product}, choose another kind."
            )
        case pve.Unreachable():
            port = CLIENTS[kind].default_port
            return f"Check the host, the port ({port} by default) and the firewall in between."
        case _:
            return ""
