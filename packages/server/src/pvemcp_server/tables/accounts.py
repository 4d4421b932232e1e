"""Users, API tokens and the access control list of a cluster."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from typing import Annotated, ClassVar, Final

from proxmox_client.api.access import AclEntry as AclAnswer
from proxmox_client.api.access import Role, Token
from proxmox_client.api.access import User as UserAnswer
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.privileges import note_filtered
from pvemcp_server.tables.reach import of_everything
from pvemcp_server.tables.registry import (
    Cost,
    LoadRequest,
    Relation,
    made,
    never_filtered,
    table,
)
from pvemcp_server.tables.rows import Col, Row, Unit, moment

_GROUP: Final = "group"
_TO_USER = Relation("user", "users", {"userid": "userid"}, "The user")


class User(Row):
    """A user of Proxmox VE."""

    minimal: ClassVar[tuple[str, ...]] = ("userid", "name", "enabled", "expires", "groups")

    userid: Annotated[str, Col("Name and realm: alice@pve", aliases=("user", "id"))]
    realm: Annotated[str, Col("Realm: pam, pve, or a directory")]
    name: Annotated[str | None, Col("First and last name")]
    email: Annotated[str | None, Col("Mail address")]
    enabled: Annotated[bool, Col("Whether an administrator has not disabled it")]
    expires: Annotated[datetime | None, Col("When it expires; null for never", Unit.TIME)]
    active: Annotated[bool, Col("Whether it is enabled and has not expired")]
    groups: Annotated[list[str], Col("Groups that it is in")]
    tokens: Annotated[int, Col("API tokens", Unit.COUNT)]
    locked_until: Annotated[
        datetime | None, Col("Until when its second factor is locked after failures", Unit.TIME)
    ]
    totp_locked: Annotated[bool, Col("Whether its one-time passwords are locked after failures")]
    comment: Annotated[str | None, Col("Comment")]


class ApiToken(Row):
    """An API token of a user, without its secret."""

    minimal: ClassVar[tuple[str, ...]] = ("token", "privilege_separation", "expires", "comment")

    token: Annotated[str, Col("User and name: ops@pve!ansible", aliases=("id", "full_tokenid"))]
    userid: Annotated[str, Col("User whose token it is", aliases=("owner",))]
    name: Annotated[str, Col("Name of the token", aliases=("tokenid",))]
    privilege_separation: Annotated[
        bool,
        Col(
            "Whether it needs permissions of its own; else it has those of its user",
            aliases=("privsep",),
        ),
    ]
    expires: Annotated[datetime | None, Col("When it expires; null for never", Unit.TIME)]
    active: Annotated[bool, Col("Whether it and its user are enabled and have not expired")]
    comment: Annotated[str | None, Col("Comment")]


class AclEntry(Row):
    """A role that a user, group or token has on a path."""

    minimal: ClassVar[tuple[str, ...]] = ("path", "type", "holder", "members", "role", "propagate")

    path: Annotated[str, Col("Where: /, /vms/100, /pool/web, /storage/nfs …")]
    type: Annotated[str, Col("Kind of holder", values=("user", "group", "token"))]
    holder: Annotated[str, Col("User, group or token", aliases=("ugid",))]
    members: Annotated[
        list[str] | None, Col("Users of a group, none if it is empty; null for other holders")
    ]
    role: Annotated[str, Col("Role: PVEAdmin, PVEAuditor …", aliases=("roleid",))]
    propagate: Annotated[bool, Col("Whether it also holds below the path")]
    privileges: Annotated[list[str], Col("Privileges of the role")]


account_table = partial(
    table,
    tool="ExplainAccess",
    cost=Cost.ONE,
    covered=of_everything,
    looks_filtered=never_filtered,
    rare=True,
)
"""Declares a table about accounts: for keys with a role on the whole cluster only."""


@account_table("users")
async def users(cluster: Cluster, _request: LoadRequest) -> list[User]:
    """Users of Proxmox VE with their groups; for keys with a role on the whole cluster."""
    now = datetime.now(UTC)
    return await made(cluster, await _users(cluster), lambda user: [_user(user, now)])


@account_table("tokens", relations=(_TO_USER,))
async def tokens(cluster: Cluster, _request: LoadRequest) -> list[ApiToken]:
    """API tokens of all users, without secrets; for keys with a role on the whole cluster."""
    now = datetime.now(UTC)
    pairs = ((user, token) for user in await _users(cluster) for token in _tokens_of(user))
    return await made(cluster, pairs, lambda pair: [_token(*pair, now)])


@account_table("acl")
async def acl(cluster: Cluster, request: LoadRequest) -> list[AclEntry]:
    """Roles of users, groups and tokens by path; for keys with a role on the whole cluster.

    permissions has those of this server's own account.
    """
    entries = await cluster.pve.access.acl()
    roles = await _roles(cluster, request)
    has_groups = any(entry.type == _GROUP for entry in entries)
    members = await _members(cluster) if has_groups and request.wants_column("members") else None
    what = "the entries that the account may change only"
    await note_filtered(cluster, "/access", "Sys.Audit", what=what)
    return await made(cluster, entries, lambda entry: [_entry(entry, roles, members)])


async def _users(cluster: Cluster) -> Sequence[UserAnswer]:
    """Return all users with groups and tokens, and note if Proxmox lists a part only."""
    users = await cluster.pve.access.users(full=True)
    what = "users of some groups and the account's own only"
    await note_filtered(cluster, "/access/groups", "Sys.Audit", "User.Modify", what=what)
    return users


async def _members(cluster: Cluster) -> Mapping[str, Sequence[str]] | None:
    """Return the users of each group that has any; None if they cannot be read."""
    failure = f"Members of groups of {cluster.name} are missing"
    users = await cluster.optional(_users(cluster), failure)
    if users is None:
        return None
    members = defaultdict(list)
    for user in sorted(users, key=attrgetter("userid")):
        for group in user.group_list:
            members[group].append(user.userid)
    return members


async def _roles(cluster: Cluster, request: LoadRequest) -> Mapping[str, Sequence[str]]:
    """Return the privileges of each role, if that column is needed."""
    if not request.wants_column("privileges"):
        return {}
    failure = f"Privileges of roles of {cluster.name} are missing"
    roles: Sequence[Role] | None = await cluster.optional(cluster.pve.access.roles(), failure)
    return {role.role_id: sorted(role.privileges) for role in roles or ()}


def _tokens_of(user: UserAnswer) -> list[Token]:
    return user.tokens if isinstance(user.tokens, list) else []


def _is_active(user: UserAnswer, now: datetime) -> bool:
    return user.enable and not _has_ended(user.expire, now)


def _has_ended(expire: int, now: datetime) -> bool:
    end = moment(expire)
    return end is not None and end <= now


def _user(user: UserAnswer, now: datetime) -> User:
    name = " ".join(part for part in (user.first_name, user.last_name) if part)
    return User(
        userid=user.userid,
        realm=user.userid.rpartition("@")[2],
        name=name or None,
        email=user.email or None,
        enabled=user.enable,
        expires=moment(user.expire),
        active=_is_active(user, now),
        groups=sorted(user.group_list),
        tokens=len(_tokens_of(user)),
        locked_until=moment(user.locked_until),
        totp_locked=user.totp_locked,
        comment=user.comment or None,
    )


def _token(user: UserAnswer, token: Token, now: datetime) -> ApiToken:
    return ApiToken(
        token=f"{user.userid}!{token.token_id}",
        userid=user.userid,
        name=token.token_id,
        privilege_separation=token.privsep,
        expires=moment(token.expire),
        active=_is_active(user, now) and not _has_ended(token.expire, now),
        comment=token.comment or None,
    )


def _entry(
    entry: AclAnswer,
    roles: Mapping[str, Sequence[str]],
    members: Mapping[str, Sequence[str]] | None,
) -> AclEntry:
    is_group = entry.type == _GROUP
    return AclEntry(
        path=entry.path,
        type=entry.type,
        holder=entry.ugid,
        members=None if members is None or not is_group else list(members.get(entry.ugid, ())),
        role=entry.role_id,
        propagate=entry.propagate,
        privileges=list(roles.get(entry.role_id, ())),
    )
