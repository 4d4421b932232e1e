"""Trying a cluster before it is saved: does it answer, is it the right one, what may the token."""

from collections.abc import Sequence
from dataclasses import dataclass

import proxmox_client as pve
from pvemcp_server.clusters.acl import Acl, Advice
from pvemcp_server.clusters.explain import explain
from pvemcp_server.errors import CallError

CHECK_SECONDS = 20
# Without these a list comes back short, and nothing in the answer says so
AUDITS = ("VM.Audit", "Datastore.Audit", "Sys.Audit")


@dataclass(frozen=True)
class Check:
    """What a cluster answered when it was tried."""

    version: str
    nodes: tuple[str, ...]
    missing: tuple[str, ...]  # privileges without which answers are short
    advice: tuple[str, ...]  # the commands that grant them
    question: str = ""  # what to ask instead, where no command is certain to take nothing away


async def check(
    hosts: Sequence[str], token_id: str, secret: str, tls: pve.Tls, name: str = ""
) -> Check:
    """Sign in and look around, without changing anything; raises CallError saying what is wrong."""
    try:
        auth = pve.ApiToken(token_id, secret)
        async with pve.Client(hosts, auth, tls=tls, name=name) as client:
            with pve.deadline(CHECK_SECONDS):
                return await _look(client, token_id)
    except ValueError as error:
        raise CallError(str(error)) from error
    except pve.TlsError as error:
        raise CallError(explain(error), hint=await _tls_hint(hosts)) from error
    except pve.ProxmoxError as error:
        raise CallError(explain(error, token_id), hint=_hint(error)) from error


async def _look(client: pve.Client, token_id: str) -> Check:
    version = await client.version()
    nodes = await client.nodes()
    granted = await client.access.permissions()
    held = {privilege for privileges in granted.values() for privilege in privileges}
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
    """The fingerprints the hosts show now, for comparison with the node's own word."""
    shown = []
    for host in hosts:
        try:
            shown.append(f"{host} shows {await pve.fetch_fingerprint(host)}")
        except pve.ProxmoxError:
            continue  # it does not answer; the error already says what went wrong
    if not shown:
        return "Is it Proxmox VE that listens there?"
    return (
        f"{'; '.join(shown)}. Compare it with `pvenode cert info` on the node, "
        "and if it is the same, pin it with --fingerprint."
    )


def _hint(error: pve.ProxmoxError) -> str:
    match error:
        case pve.Unauthenticated():
            return "Check token id and secret; `pveum user token list USER` shows which exist."
        case pve.Unreachable():
            return "Check host and port (8006 unless told), and that a firewall lets us through."
        case _:
            return ""
