"""Accounts and permissions."""

from collections.abc import Iterable
from typing import Any

from msgspec import field

from proxmox_client.auth import ApiToken
from proxmox_client.json_decoder import Answer, convert, split_list
from proxmox_client.paths import join
from proxmox_client.transport import Transport, converted

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
    locked_until: int | None = field(name="tfa-locked-until", default=None)
    totp_locked: bool = field(name="totp-locked", default=False)

    @property
    def group_list(self) -> list[str]:
        """The groups of the user, which some endpoints return as a text."""
        return self.groups if isinstance(self.groups, list) else split_list(self.groups)


class Token(Answer, frozen=True):
    """An API token; with `privsep` it has only privileges granted to both it and its user."""

    token_id: str = field(name="tokenid", default="")
    privsep: bool = True
    expire: int = 0
    comment: str | None = None


class NewToken(Answer, frozen=True):
    """An API token that was just made: the only answer that has its secret."""

    token_id: str = field(name="full-tokenid")
    secret: str = field(name="value")

    def __repr__(self) -> str:
        return f"NewToken(token_id={self.token_id!r})"

    @property
    def credential(self) -> ApiToken:
        """The token for a client; ValueError if the name of the user is not ASCII."""
        return ApiToken(self.token_id, self.secret)


class Role(Answer, frozen=True):
    """A named set of privileges."""

    role_id: str = field(name="roleid")
    privs: str = ""
    special: bool = False

    @property
    def privileges(self) -> list[str]:
        """The privileges as a list."""
        return split_list(self.privs)


class AclEntry(Answer, frozen=True):
    """A role on a path for a user, group or token (`ugid`)."""

    path: str
    role_id: str = field(name="roleid", default="")
    ugid: str = ""
    type: str = ""
    propagate: bool = True


class Group(Answer, frozen=True):
    """A group of users; `users` is a comma-separated list."""

    group_id: str = field(name="groupid")
    comment: str | None = None
    users: str | None = None


class Realm(Answer, frozen=True):
    """An authentication realm: `pam`, `pve`, LDAP or another directory."""

    realm: str
    type: str = ""
    comment: str | None = None
    tfa: str | None = None
    default: bool = False

    @property
    def is_openid(self) -> bool:
        """Whether its users sign in at a provider, without a password for Proxmox."""
        return self.type == "openid"


class Access:
    """Calls about accounts and permissions."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def permissions(self, path: str | None = None, userid: str | None = None) -> Permissions:
        """GET /access/permissions. Privileges by path; true if they propagate.

        Needs Sys.Audit on /access for another user or token.

        Source: PVE/API2/AccessControl.pm.
        """
        return await self._transport.get(
            "/access/permissions", Permissions, path=path, userid=userid
        )

    async def users(self, *, full: bool | None = None) -> list[User]:
        """GET /access/users. Lists only users that the account may see.

        All need User.Modify or Sys.Audit on /access/groups. `full` adds groups and tokens.

        Source: PVE/API2/User.pm.
        """
        return await self._transport.get("/access/users", list[User], full=full)

    async def user(self, userid: str) -> User:
        """GET /access/users/{userid}. Needs Sys.Audit or User.Modify unless own account.

        The privilege is needed on the groups of the user.

        Source: PVE/API2/User.pm.
        """
        user = await self._transport.get(join("access", "users", userid), dict[str, Any])
        return convert({**user, "userid": userid}, User)

    async def tokens(self, userid: str) -> list[Token]:
        """GET /access/users/{userid}/token. Needs User.Modify unless own account.

        The privilege is needed on the groups of the user.

        Source: PVE/API2/User.pm.
        """
        return await self._transport.get(join("access", "users", userid, "token"), list[Token])

    async def create_user(self, userid: str, *, comment: str | None = None) -> None:
        """POST /access/users. Needs User.Modify and Realm.AllocateUser on the realm.

        The user has no password: no one signs in with it. ResponseError for a name in use.

        Source: PVE/API2/User.pm.
        """
        await self._transport.post("/access/users", userid=userid, comment=comment)

    async def create_role(self, name: str, privileges: Iterable[str]) -> None:
        """POST /access/roles. Needs Sys.Modify on /access. ResponseError for a name in use.

        Source: PVE/API2/Role.pm.
        """
        await self._transport.post("/access/roles", roleid=name, privs=",".join(sorted(privileges)))

    async def grant(self, path: str, *, user: str, role: str) -> None:
        """PUT /access/acl. Needs Permissions.Modify on the path, below which it propagates.

        Source: PVE/API2/ACL.pm.
        """
        await self._transport.put("/access/acl", path=path, users=user, roles=role, propagate=True)

    async def create_token(
        self,
        userid: str,
        name: str,
        *,
        comment: str | None = None,
        expire: int | None = None,
        privsep: bool = True,
    ) -> NewToken:
        """POST /access/users/{userid}/token/{tokenid}. Needs User.Modify unless own account.

        The privilege is needed on the groups of the user. A token of the user is not the own
        account: it is Forbidden. `expire` is an epoch, 0 for never. Without `privsep` it may do
        what its user may. Raise Conflict for a name that is taken, BadParameters for one of less
        than two characters.

        Source: PVE/API2/User.pm.
        """
        path = join("access", "users", userid, "token", name)
        sent = {"comment": comment, "expire": expire, "privsep": privsep}
        data = await self._transport.post(path, **sent)
        return converted(path, data, lambda value: convert(value, NewToken))

    async def delete_token(self, userid: str, name: str) -> None:
        """DELETE /access/users/{userid}/token/{tokenid}. Needs User.Modify unless own account.

        As with `create_token`. Raise NotFound for a missing token or user.

        Source: PVE/API2/User.pm.
        """
        await self._transport.delete(join("access", "users", userid, "token", name))

    async def roles(self) -> list[Role]:
        """GET /access/roles. Needs an account, but no privilege.

        Source: PVE/API2/Role.pm.
        """
        return await self._transport.get("/access/roles", list[Role])

    async def groups(self) -> list[Group]:
        """GET /access/groups. Lists only groups that the account may see.

        Source: PVE/API2/Group.pm.
        """
        return await self._transport.get("/access/groups", list[Group])

    async def acl(self) -> list[AclEntry]:
        """GET /access/acl. Lists only paths that the account may see.

        Source: PVE/API2/ACL.pm.
        """
        return await self._transport.get("/access/acl", list[AclEntry])

    async def realms(self) -> list[Realm]:
        """GET /access/domains. Needs no account.

        Source: PVE/API2/Domains.pm.
        """
        return await self._transport.get("/access/domains", list[Realm])
