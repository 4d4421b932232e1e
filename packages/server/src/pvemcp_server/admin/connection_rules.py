"""Connection rules: which roles users may choose when they connect a client."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Final

from pydantic import BaseModel, Field

from proxmox_client import Client, ProxmoxError, deadline
from pvemcp_server.access.fields import Argument, Fields
from pvemcp_server.access.model import ANY
from pvemcp_server.access.roles import READ_ONLY
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.keys import may_write
from pvemcp_server.admin.operation import Command, Result, Route, Subject
from pvemcp_server.admin.permission import AUDITORS, OWNERS
from pvemcp_server.clusters import explain
from pvemcp_server.errors import BadArgument, ServerError, UnknownName
from pvemcp_server.oauth.rules import end_disallowed, needs_no_rule
from pvemcp_server.store.columns import HIGHEST_ID, utc_now
from pvemcp_server.store.records import AdminRole, ClusterKind, PersonKind, PersonRule
from pvemcp_server.store.repository import is_storable

subject = Subject(
    "Connection rules", {"connection-rules": "Roles that users may choose when they connect."}
)
RuleId = Annotated[int, Field(ge=0, le=HIGHEST_ID, description="Id of the rule")]
LONGEST_NAME: Final = 255
CHECK_SECONDS: Final = 5


class RuleFields(Fields):
    """A new rule."""

    kind: Annotated[PersonKind, Argument()] = Field(
        description="realm, group, user, admin (administrators of this server) or claim (users of "
        "the external authorization server)"
    )
    name: Annotated[str, Argument()] = Field(
        description="The realm, the group, the user as alice@pve, the administrator role, or a "
        "value of the claim that the setting external_role_claim names"
    )
    role: str = Field(description="The role that these users may choose; that of claims is given")
    cluster: str | None = Field(
        default=None, description="The cluster that the rule is for; every one when absent"
    )


class ConnectionRule(BaseModel):
    """A rule; without a cluster it is for every one."""

    id: int
    kind: PersonKind
    name: str
    role: str
    cluster: str | None
    created: datetime


class AddedRule(ConnectionRule):
    """A new rule, with what could not be checked."""

    warnings: list[str]


class RemovedRule(BaseModel):
    """The names of the connections that have ended with their rule."""

    ended: list[str]


async def lets_write(context: AdminContext, new: RuleFields) -> bool:
    """Return whether a rule lets users write, or admits users whom Proxmox does not know."""
    return new.kind is PersonKind.CLAIM or await may_write(context, new.role, [ANY])


def _added_text(result: Result) -> str:
    added: AddedRule = result.answer
    return "\n".join([f"Added rule {added.id}.", *added.warnings])


def _removed_text(result: Result) -> str:
    ended: RemovedRule = result.answer
    lines = (f"Ended {name}: its user connects again." for name in ended.ended)
    return "\n".join([f"Removed rule {result.arguments['rule']}.", *lines])


@subject.operation(
    "connection_rules.list",
    Route("GET", "/connection-rules"),
    Command("connection-rules list", columns=("id", "kind", "name", "role", "cluster", "created")),
    may=AUDITORS,
)
async def list_rules(context: AdminContext) -> list[ConnectionRule]:
    """List the rules, the oldest first; all but auditors may choose Read-only without one."""
    store = context.services.store
    roles = {role.id: role.name for role in await store.roles.all()}
    clusters = {cluster.id: cluster.name for cluster in await store.clusters.all()}
    return [_rule(record, roles, clusters) for record in await store.person_rules.all()]


@subject.operation(
    "connection_rules.add",
    Route("POST", "/connection-rules", created=True),
    Command("connection-rules add", text=_added_text),
    may=OWNERS,
    needs_recent_sign_in=lets_write,
)
async def add_rule(context: AdminContext, new: RuleFields) -> AddedRule:
    """Add a rule: these users may choose the role when they connect."""
    access, store = context.services.access, context.services.store
    role = await access.roles.get(new.role)
    cluster = await access.clusters.get(new.cluster) if new.cluster is not None else None
    name = _checked_name(new)
    is_needed = new.kind is PersonKind.CLAIM or (
        new.kind is PersonKind.ADMIN and not needs_no_rule(AdminRole(name))
    )
    if role.name == READ_ONLY and not is_needed:
        raise BadArgument("role", f"{READ_ONLY} needs no rule: these users may choose it.")
    values = {
        "kind": new.kind,
        "name": name,
        "role_id": role.id,
        "cluster_id": cluster.id if cluster else None,
    }
    if await store.person_rules.find(**values):
        raise BadArgument("name", "there is this very rule already.")
    warnings = await _warnings(context, new.kind, name, new.cluster)
    record = await store.person_rules.add(created=utc_now(), **values)
    await context.changed("connection_rules.add", rule=record.id, **new.model_dump(mode="json"))
    rule = _rule(record, {role.id: role.name}, {cluster.id: cluster.name} if cluster else {})
    return AddedRule(warnings=warnings, **rule.model_dump())


@subject.operation(
    "connection_rules.remove",
    Route("POST", "/connection-rules/{rule}/remove"),
    Command("connection-rules remove", text=_removed_text),
    may=OWNERS,
)
async def remove_rule(context: AdminContext, rule: RuleId) -> RemovedRule:
    """Remove a rule, and end the connections whose role no other rule allows to their user.

    Their users connect again, with what is then allowed. Groups are known at a sign-in only, so a
    connection that another rule for a group may allow is ended too.
    """
    services = context.services
    known = await list_rules(context)
    removed = next((each for each in known if each.id == rule), None)
    if removed is None or not await services.store.person_rules.remove(rule):
        raise UnknownName("rule", rule, [each.id for each in known])
    record = await services.access.roles.get(removed.role)
    ended = await end_disallowed(services.store, services.connections, role_id=record.id)
    await context.changed(
        "connection_rules.remove",
        rule=rule,
        kind=str(removed.kind),
        name=removed.name,
        role=removed.role,
        cluster=removed.cluster,
        ended=ended or None,
    )
    return RemovedRule(ended=ended)


def _checked_name(new: RuleFields) -> str:
    """Return the name of a rule; raise BadArgument for one that can match nothing."""
    name = new.name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable() or not is_storable(name):
        raise BadArgument("name", f"1 to {LONGEST_NAME} printable characters.")
    if new.kind is PersonKind.ADMIN and name not in list(AdminRole):
        raise BadArgument("name", str(UnknownName("administrator role", name, list(AdminRole))))
    if new.kind is PersonKind.ADMIN and new.cluster:
        raise BadArgument("cluster", "administrators belong to no cluster; leave it out.")
    if new.kind is PersonKind.USER and not all(name.rpartition("@")):
        raise BadArgument("name", "an account with its realm, as alice@pve.")
    return name


async def _warnings(
    context: AdminContext, kind: PersonKind, name: str, cluster: str | None
) -> list[str]:
    """Return what of a name is not known; raise UnknownName for a realm that no cluster has."""
    if kind in (PersonKind.ADMIN, PersonKind.CLAIM):
        return []
    kinds = await context.services.clusters.kinds()
    places = [each for each, product in kinds.items() if product is ClusterKind.PVE]
    if cluster is not None and cluster not in places:
        raise BadArgument("cluster", f"{cluster} has no users: it is no Proxmox VE cluster.")
    places = [cluster] if cluster else places
    if kind is PersonKind.GROUP:
        return await _missing_groups(context, name, places)
    realm = name.rpartition("@")[2]
    choices = (await context.services.people.realms()).choices
    known = {each.realm for each in choices if not set(places).isdisjoint(each.clusters)}
    if realm in known:
        return []
    answering = {place for each in choices for place in each.clusters}
    silent = [place for place in places if place not in answering]
    if places and not silent:
        raise BadArgument("name", str(UnknownName("realm", realm, sorted(known))))
    where = f"{', '.join(silent)} did not answer" if silent else "no cluster is configured"
    return [f"Whether there is a realm {realm} is not known: {where}."]


async def _missing_groups(context: AdminContext, name: str, places: Iterable[str]) -> list[str]:
    """Return a warning for each cluster that does not show the group to the default account."""
    warnings = []
    for place in places:
        try:
            with deadline(CHECK_SECONDS):
                client = (await context.services.clusters.connection(place)).client
                groups = await client.access.groups() if isinstance(client, Client) else []
        except (ProxmoxError, ServerError) as error:
            warnings.append(f"The groups of {place} are not known: {explain(error)}")
            continue
        if name not in {group.group_id for group in groups}:
            warnings.append(f"{place} shows no group {name} to its default account.")
    return warnings


def _rule(record: PersonRule, roles: dict[int, str], clusters: dict[int, str]) -> ConnectionRule:
    return ConnectionRule(
        id=record.id,
        kind=record.kind,
        name=record.name,
        role=roles.get(record.role_id, ""),
        cluster=clusters.get(record.cluster_id) if record.cluster_id else None,
        created=record.created,
    )
