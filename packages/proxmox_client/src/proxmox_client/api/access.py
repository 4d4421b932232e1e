"""Accounts and what they may do."""

from typing import Any

from msgspec import field

from proxmox_client.json_decoder import Answer, convert
from proxmox_client.paths import join
from proxmox_client.transport import Transport

Permissions = dict[str, dict[str, bool]]


class User(Answer, frozen=True):
    """An account; `expire` is an epoch, 0 for never."""

    userid: str
    enable: bool = True
    expire: int = 0
    comment: str | None = None
    email: str | None = None
    first_name: str | None = field(name="firstname", default=None)
    last_name: str | None = field(name="lastname", default=None)
    groups: str | list[str] | None = None
    tokens: dict[str, "Token"] | list["Token"] | None = None
    realm_type: str | None = field(name="realm-type", default=None)


class Token(Answer, frozen=True):
    """An API token; with `privsep` it has only what is granted to it and its user."""

    token_id: str = field(name="tokenid", default="")
    privsep: bool = True
    expire: int = 0
    comment: str | None = None


class Role(Answer, frozen=True):
    """A named set of privileges."""

    role_id: str = field(name="roleid")
    privs: str = ""
    special: bool = False

    @property
    def privileges(self) -> list[str]:
        """The privileges, one by one."""
        return [name for name in self.privs.split(",") if name]


class AclEntry(Answer, frozen=True):
    """A role on a path for a user, group or token (`ugid`)."""

    path: str
    role_id: str = field(name="roleid", default="")
    ugid: str = ""
    type: str = ""
    propagate: bool = True


class Group(Answer, frozen=True):
    """A group of users; `users` is a list with commas."""

    group_id: str = field(name="groupid")
    comment: str | None = None
    users: str | None = None


class Realm(Answer, frozen=True):
    """A place where accounts are kept."""

    realm: str
    type: str = ""
    comment: str | None = None
    tfa: str | None = None


class Access:
    """Calls about accounts and permissions."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def permissions(self, path: str | None = None, userid: str | None = None) -> Permissions:
        """GET /access/permissions. Privileges by path; true where they reach further down.

        Another user's or token's needs Sys.Audit on /access.

        Source: PVE/API2/AccessControl.pm.
        """
        return await self._transport.get(
            "/access/permissions", Permissions, path=path, userid=userid
        )

    async def users(self) -> list[User]:
        """GET /access/users. Only those the account may see.

        Source: PVE/API2/User.pm.
        """
        return await self._transport.get("/access/users", list[User])

    async def user(self, userid: str) -> User:
        """GET /access/users/{userid}. Oneself, or Sys.Audit or User.Modify on its groups.

        Source: PVE/API2/User.pm.
        """
        raw = await self._transport.get(join("access", "users", userid), dict[str, Any])
        return convert({**raw, "userid": userid}, User)

    async def tokens(self, userid: str) -> list[Token]:
        """GET /access/users/{userid}/token. Oneself, or User.Modify on its groups.

        Source: PVE/API2/User.pm.
        """
        return await self._transport.get(join("access", "users", userid, "token"), list[Token])

    async def roles(self) -> list[Role]:
        """GET /access/roles. Any account.

        Source: PVE/API2/Role.pm.
        """
        return await self._transport.get("/access/roles", list[Role])

    async def groups(self) -> list[Group]:
        """GET /access/groups. Only those the account may see.

        Source: PVE/API2/Group.pm.
        """
        return await self._transport.get("/access/groups", list[Group])

    async def acl(self) -> list[AclEntry]:
        """GET /access/acl. Only paths the account may see.

        Source: PVE/API2/ACL.pm.
        """
        return await self._transport.get("/access/acl", list[AclEntry])

    async def realms(self) -> list[Realm]:
        """GET /access/domains. Needs no account.

        Source: PVE/API2/Domains.pm.
        """
        return await self._transport.get("/access/domains", list[Realm])
