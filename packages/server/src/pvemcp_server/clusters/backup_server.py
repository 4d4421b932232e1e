"""Privileges on a Proxmox Backup Server, and the commands that grant them to an account.

A token has the privileges that both it and its user have. A role on `/` adds to the roles there and
replaces none, and it holds wherever no path below has roles of its own.
"""

from collections.abc import Iterable, Sequence
from shlex import quote
from typing import Final

from proxmox_client.api.access import Permissions

ROLES: Final = {"Datastore.Audit": "Audit", "Remote.Audit": "RemoteAudit"}
"""The roles with a privilege, without which lists are short: they read and change nothing."""


def missing_privileges(held: Permissions) -> tuple[str, ...]:
    """Return the privileges that an account has nowhere."""
    names = {name for privileges in held.values() for name in privileges}
    return tuple(privilege for privilege in ROLES if privilege not in names)


def grant_lines(account: str, privileges: Iterable[str]) -> Sequence[str]:
    """Return the commands that grant these privileges, to be run on the backup server."""
    user = account.partition("!")[0]
    holders = [holder for holder in dict.fromkeys((user, account)) if holder != "root@pam"]
    return [
        f"proxmox-backup-manager acl update / {ROLES[privilege]} --auth-id {quote(holder)}"
        for privilege in privileges
        for holder in holders
    ]
