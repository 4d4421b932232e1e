"""A Proxmox account for this server, made with an administrator's password.

The account is a user without a password, with one role on / and a token with the user's rights. The
role has Proxmox's audit privileges, without which lists are short, and what the tools of a role of
this server need. What a tool that only reads needs, but what allows writes as well, is withheld: an
account for reading must not be able to change anything. Nothing that exists is changed: a name in
use gets a number.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from proxmox_client import Client, ProxmoxError
from pvemcp_server.clusters import explain
from pvemcp_server.errors import CallError, UnusableCluster
from pvemcp_server.toolkit.needs import RequiredPrivilege

TOKEN: Final = "pvemcp"  # noqa: S105 - its name, no secret
COMMENT: Final = "pvemcp, an AI server: remove this user to end its access"
_AUDITOR: Final = "PVEAuditor"
_ALL: Final = "Administrator"
_LOGS: Final = "Sys.Syslog"


@dataclass(frozen=True)
class MadeAccount:
    """The account and its token; the secret is available this one time only."""

    token_id: str
    secret: str = field(repr=False)
    role: str
    privileges: tuple[str, ...]
    withheld: tuple[str, ...]


async def make_account(
    client: Client,
    role_name: str,
    reads: Iterable[RequiredPrivilege],
    writes: Iterable[RequiredPrivilege],
) -> MadeAccount:
    """Make a role, a user and a token, named after the role of this server that they are for.

    Needs Permissions.Modify on /, and User.Modify, Realm.AllocateUser and Sys.Modify on /access.
    Raise ProxmoxError before anything is made, CallError with the commands that remove it after,
    and UnusableCluster for a host that does not list the roles of Proxmox VE.
    """
    version = await client.version()
    roles = {role.role_id: frozenset(role.privileges) for role in await client.access.roles()}
    users = {user.userid for user in await client.access.users()}
    if lacking := sorted({_ALL, _AUDITOR} - roles.keys()):
        raise UnusableCluster(
            f"The host lists no role {' and no role '.join(lacking)}, which each Proxmox VE has; "
            "nothing was made.",
            hint="Check that it is a node of Proxmox VE, or make the account there yourself.",
            about="hosts",
        )
    known, major = roles[_ALL], version.number[0]
    to_read = known & {need.of(major)[0] for need in reads}
    to_write = known & {need.of(major)[0] for need in writes}
    harmless = {name for name in to_read if name.endswith(".Audit") or name == _LOGS}
    privileges = roles[_AUDITOR] | harmless | to_write
    name = next(
        each for each in _names(role_name) if each not in roles and f"{each}@pve" not in users
    )
    user = f"{name}@pve"
    await client.access.create_role(name, privileges)
    undo = removal(name)
    try:
        await client.access.create_user(user, comment=COMMENT)
        undo = removal(name, user)
        await client.access.grant("/", user=user, role=name)
        token = await client.access.create_token(user, TOKEN, comment=COMMENT, privsep=False)
    except ProxmoxError as error:
        hint = f"To undo the steps before it: `{undo}`."
        raise CallError(explain(error), hint=hint) from error
    withheld = tuple(sorted(to_read - privileges))
    return MadeAccount(f"{user}!{TOKEN}", token.secret, name, tuple(sorted(privileges)), withheld)


def removal(role: str, user: str = "") -> str:
    """Return the command line that removes the role, and the user that was made for it."""
    commands = [f"pveum user delete {user}"] if user else []
    return " && ".join([*commands, f"pveum role delete {role}"])


def _names(role_name: str) -> Iterable[str]:
    """Yield names of Proxmox roles and users: mcp-read-only, mcp-read-only-2 and so on.

    Proxmox keeps names of roles that begin with PVE, in any case, for itself.
    """
    base = f"mcp-{re.sub(r'[^a-z0-9]+', '-', role_name.casefold()).strip('-')}"
    yield base
    yield from (f"{base}-{number}" for number in count(2))
