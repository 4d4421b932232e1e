"""Roles that a user may choose when they connect: Read-only, and what rules allow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pvemcp_server.access.model import Role
from pvemcp_server.access.roles import READ_ONLY, role_of
from pvemcp_server.errors import BadArgument
from pvemcp_server.oauth.person import Person
from pvemcp_server.store import Store
from pvemcp_server.store.records import AdminRole, PersonKind, PersonRule


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
    """List the roles that a user may choose, Read-only first.

    `groups` are those of their accounts by cluster, `admin_role` that of an administrator.
    """
    allowed: dict[int, set[str] | None] = {}
    for rule in await store.person_rules.all():
        matched = _matched(rule, person, groups or {}, admin_role)
        if matched is None:
            allowed[rule.role_id] = None
        elif matched and allowed.get(rule.role_id, set()) is not None:
            allowed[rule.role_id] = (allowed.get(rule.role_id) or set()) | matched
    records = await store.roles.all()
    first = [RoleChoice(role_of(record)) for record in records if record.name == READ_ONLY]
    return first + [
        RoleChoice(role_of(record), None if clusters is None else frozenset(clusters))
        for record in records
        if record.id in allowed and record.name != READ_ONLY
        for clusters in [allowed[record.id]]
    ]


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
    matched = set()
    for name, account in person.accounts.items():
        if rule.cluster_id not in (None, account.place.id):
            continue
        _, _, realm = account.userid.rpartition("@")
        holds = {
            PersonKind.REALM: {realm},
            PersonKind.USER: {account.userid},
            PersonKind.GROUP: groups.get(name, frozenset()),
        }
        if rule.name in holds.get(rule.kind, ()):
            matched.add(name)
    return matched
