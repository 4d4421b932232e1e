"""Check of a cluster before it is saved: connection, certificate, token and privileges."""

from collections.abc import Sequence
from dataclasses import dataclass

import proxmox_client as pve
from pvemcp_server.clusters.acl import Acl, Advice
from pvemcp_server.clusters.explain import explain
from pvemcp_server.clusters.link_local import check_hosts
from pvemcp_server.errors import CallError

CHECK_SECONDS = 20
# Without these privileges Proxmox shortens lists silently
AUDITS = ("VM.Audit", "Datastore.Audit", "Sys.Audit")


@dataclass(frozen=True)
class Check:
    """The outcome of checking a cluster that answers."""

    version: str
    nodes: tuple[str, ...]
    missing: tuple[str, ...]  # privileges without which lists are short
    advice: tuple[str, ...]  # the commands that grant them
    question: str = ""  # for an administrator, where no command is safe


async def check(
    hosts: Sequence[str], token_id: str, secret: str, tls: pve.Tls, name: str = ""
) -> Check:
    """Sign in and read version, nodes and privileges; raise CallError with the next step."""
    await check_hosts(hosts)
    try:
        auth = pve.ApiToken(token_id, secret)
        async with pve.Client(hosts, auth, tls=tls, name=name) as client:
            with pve.deadline(CHECK_SECONDS):
                return await _read(client, token_id)
    except ValueError as error:
        raise CallError(str(error)) from error
    except pve.TlsError as error:
        raise CallError(explain(error), hint=await _tls_hint(hosts)) from error
    except pve.ProxmoxError as error:
        raise CallError(explain(error, token_id), hint=_hint(error)) from error


async def _read(client: pve.Client, token_id: str) -> Check:
    version = await client.version()
    nodes = await client.nodes()
    permissions = await client.access.permissions()
    held = {privilege for privileges in permissions.values() for privilege in privileges}
    missing = tuple(privilege for privilege in AUDITS if privilege not in held)
    advice = await Acl(client, token_id).advice("/", missing) if missing else Advice()
    return Check(
        version=version.version,
        nodes=tuple(sorted(node.node for node in nodes)),
        missing=missing,
        advice=(advice.line,) if advice.line else (),
        question=advice.question,
    )


async def _tls_hint(hosts: Sequence[str]) -> str:
    """Return the hosts' current fingerprints, to compare with those that the nodes report."""
    fingerprints = []
    for host in hosts:
        try:
            fingerprints.append(f"{host} shows {await pve.fetch_fingerprint(host)}")
        except pve.ProxmoxError:
            continue  # it does not answer; the error already says what went wrong
    if not fingerprints:
        return "Is it Proxmox VE that listens there?"
    return (
        f"{'; '.join(fingerprints)}. Compare it with `pvenode cert info` on the node, "
        "and if it is the same, pin it with --fingerprint."
    )


def _hint(error: pve.ProxmoxError) -> str:
    match error:
        case pve.Unauthenticated():
            return "Check token id and secret; `pveum user token list USER` shows which exist."
        case pve.Unreachable():
            return "Check the host, the port (8006 by default) and the firewall in between."
        case _:
            return ""
