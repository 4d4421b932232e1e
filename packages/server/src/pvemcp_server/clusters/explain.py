"""Proxmox's errors as facts with a next step, for whoever asked."""

import proxmox_client as pve
from pvemcp_server.errors import ServerError

# The built-in Proxmox role that gives a privilege without giving much else: what `pveum` lines
# propose. A role on a path takes the place of what is inherited there, so that guests get the
# largest one of theirs, and nothing is lost.
_ROLES = {
    "VM.Audit": "PVEAuditor",
    "VM.GuestAgent.Audit": "PVEAuditor",
    "VM.Monitor": "",  # only readers lack it, and they must not become administrators of guests
    "Datastore.Audit": "PVEAuditor",
    "Sys.Audit": "PVEAuditor",
    "Pool.Audit": "PVEAuditor",
    "Datastore.AllocateSpace": "PVEDatastoreUser",
    "Datastore.AllocateTemplate": "PVEDatastoreAdmin",
    "Datastore.Allocate": "PVEDatastoreAdmin",
}
_TAIL = 8  # lines of a failed task's log
_VM_ROLE = "PVEVMAdmin"


def explain(error: BaseException, account: str = "") -> str:
    """One or two sentences: what happened and what to do about it."""
    match error:
        case pve.ResponseError():
            return _refusal(error, account)
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


def pveum(account: str, path: str, privilege: str) -> str:
    """The command that grants `privilege` on `path` to the account (a token or a user)."""
    role = _ROLES.get(privilege, _VM_ROLE if privilege.startswith("VM.") else "")
    make = "" if role else f"{_new_role(privilege)} && "
    return f"{make}pveum acl modify {path} {_whom(account)} --roles {role or f'MCP-{privilege}'}"


def _new_role(privilege: str) -> str:
    """Of the built-in roles only larger ones have it; on its path it must still let us look."""
    privileges = dict.fromkeys((privilege, f"{privilege.partition('.')[0]}.Audit"))
    return f"pveum role add MCP-{privilege} --privs {','.join(privileges)}"


def _whom(account: str) -> str:
    """A token without privilege separation has its user's rights, one with it what both have."""
    user, separator, _ = account.partition("!")
    if not separator:
        return f"--users '{account}'"
    token = f"--tokens '{account}'"
    return token if user == "root@pam" else f"{token} --users '{user}'"


def _refusal(error: pve.ResponseError, account: str) -> str:
    match error:
        case pve.Forbidden():
            return _forbidden(error, account)
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


def _forbidden(error: pve.Forbidden, account: str) -> str:
    privileges = list(error.privileges)
    if not error.path or not privileges:
        return f"Proxmox forbids this to {account or 'the account'}: {error}"
    wanted = " or ".join(privileges)
    who = account or "the account of this cluster"
    line = pveum(account or "USER@REALM!TOKEN", error.path, privileges[0])
    return f"{who} lacks {wanted} on {error.path}: run `{line}`."
