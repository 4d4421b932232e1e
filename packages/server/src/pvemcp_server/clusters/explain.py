"""Proxmox's errors as facts with a next step, for whoever asked."""

import proxmox_client as pve
from pvemcp_server.clusters.acl import Grants
from pvemcp_server.errors import ServerError

_TAIL = 8  # lines of a failed task's log


def explain(error: BaseException, account: str = "", grants: Grants | None = None) -> str:
    """Return one or two sentences: what happened and what to do about it.

    With the account's grants, a missing privilege comes with the line that adds it.
    """
    match error:
        case pve.ResponseError():
            return _refusal(error, account, grants)
        case pve.TaskFailed():
            return _failed_task(error)
        case pve.TlsError():
            return f"Nothing was asked, for its certificate is not trusted: {error}"
        case pve.Unreachable():
            return f"Proxmox does not answer ({error})."
        case pve.DeadlineExceeded():
            return f"Proxmox did not answer in time ({error})."
        case pve.ProxmoxError() | ServerError():
            return str(error)
        case TimeoutError():
            return "No answer within the time allowed."
        case _:
            return "The server failed on this; its log says more."


def _refusal(error: pve.ResponseError, account: str, grants: Grants | None) -> str:
    match error:
        case pve.Forbidden():
            return _forbidden(error, account, grants)
        case pve.Unauthenticated():
            return (
                "Proxmox refused the sign-in of this cluster's account "
                f"{account or '(unknown)'}: its token is wrong, expired or disabled. "
                "An administrator can fix it under Clusters."
            )
        case pve.NoQuorum():
            return (
                f"The cluster lacks quorum, so nothing can be changed on it ({error}). "
                "GetClusterStatus counts the nodes that are offline."
            )
        case pve.NodeUnreachable():
            return f"Node {error.node or '(unknown)'} does not answer ({error})."
        case _:
            return str(error)


def _failed_task(error: pve.TaskFailed) -> str:
    said = f"The Proxmox task {error.upid} failed: {error.exit_status}"
    tail = " | ".join(line for line in error.log_tail[-_TAIL:] if line.strip())
    return f"{said}. Its log ends: {tail}" if tail else said


def _forbidden(error: pve.Forbidden, account: str, grants: Grants | None) -> str:
    privileges = list(error.privileges)
    if not error.path or not privileges:
        return f"Proxmox forbids this to {account or 'the account'}: {error}"
    who = account or "the account of this cluster"
    seen = grants or Grants(account)
    fact = f"{who} lacks {' or '.join(privileges)} on {error.path}"
    return seen.advice(error.path, privileges[:1]).after(fact)
