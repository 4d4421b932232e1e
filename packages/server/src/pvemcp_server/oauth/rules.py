"""Roles that a user may choose when they connect: Read-only, and what rules allow.

An administrator who is auditor needs a rule for Read-only too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pvemcp_server.access.model import Role
from pvemcp_server.access.roles import READ_ONLY, role_of
from pvemcp_server.errors import BadArgument
from pvemcp_server.oauth.connections import Connections
from pvemcp_server.oauth.person import Person
from pvemcp_server.store import Store
from pvemcp_server.store.records import AdminRole, ConnectionRecord, PersonKind, PersonRule


@dataclass(frozen=True, slots=True)
class RoleChoice:
    """A role that a user may choose, on these clusters only; None is on all of theirs."""

    role: Role
    clusters: frozenset[str] | None = None

    def check(self, clusters: Sequence[str]) -> None:
        """Raise BadArgument unless the role is allowed on each of the clusters."""
        outside = sorted(set(clusters) - self.clusters) if self.clusters is not None else []
        if outside:
            raise BadArgument(
                "role", f"{self.role.name} is not allowed to you on {', '.join(outside)}."
            )


async def role_choices(
    store: Store,
    person: Person,
    *,
    groups: Mapping[str, frozenset[str]] | None = None,
    admin_role: AdminRole | None = None,
) -> list[RoleChoice]:
    """List the roles that a user may choose, Read-only first; none who may not connect.

    `groups` are those of their accounts by cluster, `admin_role` that of an administrator.
    """
    allowed: dict[int, set[str] | None] = {}
    for rule in await store.person_rules.all():
        matched = _matched(rule, person, groups or {}, admin_role)
        if matched is None:
            allowed[rule.role_id] = None
        elif matched and allowed.get(rule.role_id, set()) is not None:
            allowed[rule.role_id] = (allowed.get(rule.role_id) or set()) | matched
    records = sorted(await store.roles.all(), key=lambda record: record.name != READ_ONLY)
    if person.admin_id is None or needs_no_rule(admin_role):
        allowed |= {record.id: None for record in records if record.name == READ_ONLY}
    return [
        RoleChoice(role_of(record), None if clusters is None else frozenset(clusters))
        for record in records
        if record.id in allowed
        for clusters in [allowed[record.id]]
    ]


def needs_no_rule(role: AdminRole | None) -> bool:
    """Return whether administrators with this role may connect with Read-only without a rule.

    A connection reads the clusters with the server's own tokens, as the keys that they may make.
    """
    return role in (AdminRole.OWNER, AdminRole.KEY_ISSUER)


async def end_disallowed(store: Store, connections: Connections, **equals: Any) -> list[str]:
    """End the connections with a role that no rule allows to their user; return their names.

    `equals` are columns of keys. What only a rule for a group may allow is ended too: groups are
    known while their user signs in. Users of an external issuer get their role with each token.
    """
    rules = await store.person_rules.all()
    read_only = await store.roles.find(name=READ_ONLY)
    ended = []
    for key in await store.keys.all(**equals):
        record = await store.connections.find(id=key.id) if key.person is not None else None
        if record is None or record.is_external:
            continue
        of_role = [rule for rule in rules if rule.role_id == key.role_id]
        is_read_only = read_only is not None and key.role_id == read_only.id
        if not await _is_allowed(store, record, of_role, is_read_only=is_read_only):
            await connections.end(record.id)
            ended.append(key.name)
    return ended


async def _is_allowed(
    store: Store, connection: ConnectionRecord, rules: Sequence[PersonRule], *, is_read_only: bool
) -> bool:
    """Return whether rules allow their role on every cluster of a connection, by name or realm."""
    if connection.admin_id is not None:
        admin = await store.admins.find(id=connection.admin_id)
        held = admin.role if admin else None
        if is_read_only and needs_no_rule(held):
            return True
        return any(rule.kind is PersonKind.ADMIN and rule.name == held for rule in rules)
    if is_read_only:
        return True
    accounts = [
        (identity.cluster_id, identity.token_id.partition("!")[0])
        for identity in await store.identities.all(connection_id=connection.id)
    ]
    return all(any(_matches(rule, *account) for rule in rules) for account in accounts)


async def has_group_rules(store: Store) -> bool:
    """Return whether groups decide about any role, so that they have to be read."""
    return await store.person_rules.find(kind=PersonKind.GROUP) is not None


def _matched(
    rule: PersonRule,
    person: Person,
    groups: Mapping[str, frozenset[str]],
    admin_role: AdminRole | None,
) -> set[str] | None:
    """Return the clusters on which a rule allows its role to the user; None is on all."""
    if rule.kind is PersonKind.ADMIN:
        return None if admin_role is not None and rule.name == admin_role else set()
    return {
        name
        for name, account in person.accounts.items()
        if _matches(rule, account.place.id, account.userid, groups.get(name, frozenset()))
    }


def _matches(
    rule: PersonRule, cluster_id: int, userid: str, groups: frozenset[str] = frozenset()
) -> bool:
    """Return whether a rule is for this account of a cluster, with these groups."""
    holds = {
        PersonKind.REALM: {userid.rpartition("@")[2]},
        PersonKind.USER: {userid},
        PersonKind.GROUP: groups,
    }
    return rule.cluster_id in (None, cluster_id) and rule.name in holds.get(rule.kind, ())
