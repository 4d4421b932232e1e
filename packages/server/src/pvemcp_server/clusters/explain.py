"""Explanation of Proxmox's errors: the fact and the next step, for the caller."""

import re

import proxmox_client as pve
from proxmox_client.hosts import BACKUP_SERVER_PORT, DEFAULT_PORT
from pvemcp_server.clusters.acl import Grants, holder_of
from pvemcp_server.errors import ServerError

LACKS_QUORUM = "The cluster lacks quorum, so nothing can be changed on it"
_PORTS = f"Proxmox VE listens at {DEFAULT_PORT}, a backup server at {BACKUP_SERVER_PORT}"
_TAIL = 8  # lines of a failed task's log
_WAITED_FOR_LOCK = re.compile(r"can't lock|got lock (request )?timeout", re.IGNORECASE)
_LOCK_IS_HELD = " Another operation holds the lock: try again when it has ended."


def explain(error: BaseException, account: str = "", grants: Grants | None = None) -> str:
    """Return one or two sentences: the fact and the next step.

    Proxmox's own words are quoted, so that nothing in them passes for the server's. With the
    account's grants, a missing privilege comes with the line that adds it.
    """
    match error:
        case pve.ResponseError():
            return _refusal(error, account, grants)
        case pve.TaskFailed():
            return _failed_task(error)
        case pve.TlsError():
            return _not_asked(error)
        case pve.NodeSilent():
            return f"Node {error.host} does not answer ({error.message})."
        case pve.Unreachable():
            return f"Proxmox does not answer ({error})."
        case pve.Delayed():
            return f"{error}. Narrow the call, or try again."
        case pve.DeadlineExceeded():
            return f"Proxmox did not answer in time ({error})."
        case pve.ProxmoxError() | ServerError():
            return str(error)
        case TimeoutError():
            return "No answer within the time allowed."
        case _:
            return "The server failed on this; its log says more."


def _not_asked(error: pve.TlsError) -> str:
    step = "An administrator sees with `pvemcp doctor` what to compare and pin."
    if isinstance(error, pve.PlainPort):
        step = f"Check host and port: {_PORTS}."
    return f"Nothing was asked: {error}. {step}"


def _refusal(error: pve.ResponseError, account: str, grants: Grants | None) -> str:
    match error:
        case pve.Forbidden():
            return _forbidden(error, account, grants)
        case pve.Unauthenticated() if holder_of(account) != account:
            return (
                f"Proxmox refused {account}: its user is disabled or locked, or the token of this "
                f"connection has expired or was removed ({reason_of(error)}). Connect again to "
                "sign in."
            )
        case pve.Unauthenticated():
            return (
                "Proxmox refused the sign-in of this cluster's account "
                f"{account or '(unknown)'}: its token is wrong, missing, expired or disabled "
                f"({reason_of(error)}). An administrator can fix it under Clusters."
            )
        case pve.NoQuorum():
            return (
                f"{LACKS_QUORUM} ({reason_of(error)}). "
                "GetClusterStatus counts the nodes that are offline."
            )
        case pve.NodeUnreachable():
            return _unreachable_node(error)
        case pve.OutdatedDigest():
            return (
                "The configuration changed between the plan and the write, so nothing was written "
                f"({reason_of(error)}). Repeat the call: it plans from what is configured by then."
            )
        case _:
            return f"{reason_of(error)}.{_on_lock(error.message)}"


def _unreachable_node(error: pve.NodeUnreachable) -> str:
    node = error.node or "(unknown)"
    if "certificate" in error.message:
        return (
            f"The host that was asked does not trust the certificate of node {node} "
            f"({reason_of(error)}). An administrator renews it on {node}: `pvecm updatecerts "
            "--force`, then `systemctl restart pveproxy`."
        )
    return f"Node {node} does not answer ({reason_of(error)})."


def _failed_task(error: pve.TaskFailed) -> str:
    fact = f"The Proxmox task {error.upid} failed: {quoted(error.exit_status)}"
    if error.lacks_quorum:
        fact = f"{LACKS_QUORUM}. {fact}"
    tail = " | ".join(line for line in error.log_tail[-_TAIL:] if line.strip())
    fact = f"{fact}. Its log ends: {quoted(tail)}." if tail else f"{fact}."
    return fact + _on_lock(error.exit_status)


def _on_lock(words: str) -> str:
    """Return the next step after Proxmox could not get a lock in time; else nothing."""
    return _LOCK_IS_HELD if _WAITED_FOR_LOCK.search(words) else ""


def _forbidden(error: pve.Forbidden, account: str, grants: Grants | None) -> str:
    privileges = list(error.privileges)
    if not error.path or not privileges:
        return (
            f"Proxmox forbids this to {account or 'the account'}: {quoted(str(error))}. "
            "ExplainAccess says which privileges are missing."
        )
    holder = account or "the account of this cluster"
    fact = f"{holder} lacks {' or '.join(privileges)} on {error.path}"
    return (grants or Grants(holder_of(account))).advice(error.path, privileges[:1]).after(fact)


def quoted(words: str) -> str:
    """Return words of Proxmox in quotes, on one line."""
    return repr(" ".join(words.split()))


def reason_of(error: BaseException) -> str:
    """Return the error in a few words, for parentheses; Proxmox's own words are quoted."""
    if isinstance(error, pve.ResponseError) and not isinstance(error, pve.UnexpectedAnswer):
        return f"Proxmox: {quoted(str(error))}"
    return str(error)
