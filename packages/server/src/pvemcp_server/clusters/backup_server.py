"""Privileges on a Proxmox Backup Server, and the commands that grant them to an account.

A token has the privileges that both it and its user have. A role on `/` adds to the roles there and
replaces none, and it holds wherever no path below has roles of its own.
"""

from collections.abc import Iterable, Iterator, Sequence
from shlex import quote
from typing import Final

from proxmox_client.api.access import Permissions

ROLES: Final = {"Datastore.Audit": "DatastoreAudit", "Remote.Audit": "RemoteAudit"}
"""The roles with one privilege only, without which lists are short: they change nothing."""
_PATHS: Final = {"Datastore.Audit": "/datastore", "Remote.Audit": "/remote"}
_HIDES: Final = {
    "Datastore.Audit": "datastores, jobs and the backups of other accounts",
    "Remote.Audit": "sync jobs",
}
_NAMED: Final = 3  # paths that a sentence names


def missing_privileges(held: Permissions) -> tuple[str, ...]:
    """Return the privileges that an account has nowhere."""
    names = {name for privileges in held.values() for name in privileges}
    return tuple(privilege for privilege in ROLES if privilege not in names)


def hidden_parts(
    account: str, server: str, held: Permissions, privilege: str, *, names_paths: bool
) -> Iterator[str]:
    """Yield what Proxmox leaves out because the account lacks a privilege, as sentences.

    A path may be that of a datastore which a narrow role does not cover: without `names_paths`
    only a privilege that the account has nowhere is reported.
    """
    hidden, base = _HIDES[privilege], _PATHS[privilege]
    if privilege in missing_privileges(held):
        lines = " && ".join(grant_lines(account, [privilege]))
        yield (
            f"{account} lacks {privilege} on {server}, so Proxmox leaves {hidden} out. On the "
            f"backup server, run `{lines}`."
        )
    elif names_paths:
        is_general = privilege in held.get(base, {})
        below = [path for path in sorted(held) if path.startswith(f"{base}/")]
        paths = [path for path in below if (privilege in held[path]) is not is_general]
        some = ", ".join(map(repr, paths[:_NAMED])) + (" …" if paths[_NAMED:] else "")
        if is_general and paths:
            yield f"{account} lacks {privilege} on {some} of {server}: {hidden} are missing there."
        elif not is_general:
            yield (
                f"{account} has {privilege} on {some or 'other paths'} of {server} only, so "
                f"Proxmox leaves {hidden} of others out."
            )


def grant_lines(account: str, privileges: Iterable[str]) -> Sequence[str]:
    """Return the commands that grant these privileges, to be run on the backup server."""
    user = account.partition("!")[0]
    holders = [holder for holder in dict.fromkeys((user, account)) if holder != "root@pam"]
    return [
        f"proxmox-backup-manager acl update / {ROLES[privilege]} --auth-id {quote(holder)}"
        for privilege in privileges
        for holder in holders
    ]
