"""The firewall of a cluster, its nodes and its guests: rules and options."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Final, Literal, TypeVar

from proxmox_client.api.firewall import Firewall
from proxmox_client.api.firewall import FirewallOptions as OptionsAnswer
from proxmox_client.api.firewall import FirewallRule as RuleAnswer
from pvemcp_server.clusters import Cluster
from pvemcp_server.shown_names import shown_name
from pvemcp_server.tables import fanout
from pvemcp_server.tables.guests import TO_GUEST, TO_NODE
from pvemcp_server.tables.reach import of_everything
from pvemcp_server.tables.registry import (
    COMMON_PUSHDOWN,
    Cost,
    LoadRequest,
    made,
    never_filtered,
    table,
)
from pvemcp_server.tables.rows import Col, Row

T = TypeVar("T")
Level = Literal["cluster", "group", "node", "guest"]

_ON_BY_DEFAULT: Final = frozenset({"node"})
_POLICY_IN: Final = "DROP"
_POLICY_OUT: Final = "ACCEPT"
_RULES_ONLY: Final = (
    "enabled is that of each rule: a firewall that is off applies none. firewall_options says "
    "whether that of the cluster and of each level is on."
)


class FirewallRule(Row):
    """A rule of the firewall."""

    minimal: ClassVar[tuple[str, ...]] = (
        *("level", "group", "node", "vmid", "position", "enabled", "direction", "action", "macro"),
        *("protocol", "source", "destination", "destination_port"),
    )

    level: Annotated[Level, Col("What it filters; a group is a list that other levels refer to")]
    group: Annotated[str | None, Col("Security group it is in")]
    node: Annotated[str | None, Col("Node it filters, or that of the guest")]
    vmid: Annotated[int | None, Col("Guest it filters", aliases=("guest_id",))]
    position: Annotated[
        int, Col("Order within its level; the first rule that fits decides", aliases=("pos",))
    ]
    enabled: Annotated[bool, Col("Whether it is on; firewall_options has whether its level is")]
    direction: Annotated[
        str, Col("Direction; group refers to one", values=("in", "out", "forward", "group"))
    ]
    action: Annotated[str, Col("ACCEPT, DROP, REJECT, or the name of a group")]
    macro: Annotated[str | None, Col("Predefined service: SSH, HTTPS …")]
    protocol: Annotated[str | None, Col("Protocol: tcp, udp, icmp …", aliases=("proto",))]
    source: Annotated[str | None, Col("Addresses, an alias, or +name of an IP set")]
    source_port: Annotated[str | None, Col("Ports of the sender", aliases=("sport",))]
    destination: Annotated[
        str | None, Col("Addresses, an alias, or +name of an IP set", aliases=("dest",))
    ]
    destination_port: Annotated[str | None, Col("Ports of the receiver", aliases=("dport", "port"))]
    interface: Annotated[str | None, Col("Network device: net0, vmbr0", aliases=("iface",))]
    log: Annotated[str | None, Col("Level at which it logs")]
    comment: Annotated[str | None, Col("Comment")]


class FirewallOptions(Row):
    """Whether the firewall of a level is on, and what it does without a rule that fits."""

    minimal: ClassVar[tuple[str, ...]] = (
        *("level", "node", "vmid", "enabled", "policy_in", "policy_out"),
    )

    level: Annotated[Literal["cluster", "node", "guest"], Col("What it filters")]
    node: Annotated[str | None, Col("Node it filters, or that of the guest")]
    vmid: Annotated[int | None, Col("Guest it filters", aliases=("guest_id",))]
    enabled: Annotated[
        bool, Col("Whether it is on; nothing is filtered unless the cluster's is on as well")
    ]
    policy_in: Annotated[str | None, Col("For what comes in; null for a node")]
    policy_out: Annotated[str | None, Col("For what goes out; null for a node")]
    log_in: Annotated[str | None, Col("Level at which it logs what comes in")]
    log_out: Annotated[str | None, Col("Level at which it logs what goes out")]
    rate_limit: Annotated[str | None, Col("Limit of log lines, of the cluster")]
    mac_filter: Annotated[bool | None, Col("Whether a guest may use its own MAC addresses only")]
    ip_filter: Annotated[bool | None, Col("Whether a guest may use its own IP addresses only")]
    dhcp: Annotated[bool | None, Col("Whether a guest may use DHCP, if configured")]


@dataclass(frozen=True, slots=True)
class _Place:
    """What a rule or an option is about."""

    level: Level
    group: str | None = None
    node: str | None = None
    vmid: int | None = None

    def __str__(self) -> str:
        """Return its name for notes."""
        name = self.group or self.vmid or self.node
        return f"of {self.level} {shown_name(str(name))}" if name else "of the cluster"


firewall_table = partial(
    table,
    tool="GetClusterStatus",
    joined=("GetVmConfig",),
    cost=Cost.PER_GUEST,
    covered=of_everything,
    relations=(TO_GUEST, TO_NODE),
    pushdown={**COMMON_PUSHDOWN, "level": "types"},
    looks_filtered=never_filtered,
    rare=True,
)


@firewall_table("firewall_rules")
async def firewall_rules(cluster: Cluster, request: LoadRequest) -> list[FirewallRule]:
    """Rules of the firewall on every level, in force where firewall_options is enabled too.

    For keys with a role on the whole cluster; the account needs Sys.Audit on / and VM.Audit.
    """
    places = [*await _places(cluster, request), *await _groups(cluster, request)]
    answers = await _each(cluster, request, places, Firewall.rules, "firewall rules")
    if any(rules for _, rules in answers):
        cluster.notes.add(_RULES_ONLY, fact=True)
    pairs = ((place, rule) for place, rules in answers for rule in rules)
    return await made(cluster, pairs, lambda pair: [_rule(*pair)])


@firewall_table("firewall_options")
async def firewall_options(cluster: Cluster, request: LoadRequest) -> list[FirewallOptions]:
    """Whether the firewall is on for the cluster, each node and each guest, with its policies.

    For keys with a role on the whole cluster; the account needs Sys.Audit on / and VM.Audit.
    """
    places = await _places(cluster, request)
    answers = await _each(cluster, request, places, Firewall.options, "firewall options")
    return await made(cluster, answers, lambda pair: [_options(*pair)])


async def _places(cluster: Cluster, request: LoadRequest) -> list[_Place]:
    """Return the cluster, nodes and guests whose firewall the request needs."""
    places = []
    if request.wants_type("cluster") and not (request.vmids or request.nodes):
        places.append(_Place("cluster"))
    if request.wants_type("node") and not request.vmids:
        places += [_Place("node", node=node) for node in await fanout.nodes(cluster, request)]
    if request.wants_type("guest"):
        guests = await fanout.guests(cluster, request)
        places += [_Place("guest", node=guest.node, vmid=guest.vmid) for guest in guests]
    return places


async def _groups(cluster: Cluster, request: LoadRequest) -> list[_Place]:
    """Return the security groups, unless conditions leave none of their rules."""
    if not request.wants_type("group") or request.vmids or request.nodes:
        return []
    failure = f"Security groups of {cluster.name} are missing"
    groups = await cluster.optional(cluster.pve.cluster.firewall_groups(), failure)
    return [_Place("group", group=each.group) for each in groups or ()]


async def _each(
    cluster: Cluster,
    request: LoadRequest,
    places: Sequence[_Place],
    ask: Callable[[Firewall], Awaitable[T]],
    what: str,
) -> list[tuple[_Place, T]]:
    guests = (await cluster.inventory_view()).by_vmid

    def firewall(place: _Place) -> Firewall:
        if place.vmid is not None:
            return cluster.api_of(guests[place.vmid]).firewall
        if place.node is not None:
            return cluster.pve.node(place.node).firewall
        return cluster.pve.cluster.firewall(place.group)

    answers = await fanout.each(cluster, places, lambda place: ask(firewall(place)), request, what)
    return list(answers.items())


def _rule(place: _Place, rule: RuleAnswer) -> FirewallRule:
    return FirewallRule(
        level=place.level,
        group=place.group,
        node=place.node,
        vmid=place.vmid,
        position=rule.position,
        enabled=rule.enable,
        direction=rule.type,
        action=rule.action,
        macro=rule.macro,
        protocol=rule.protocol,
        source=rule.source,
        source_port=rule.source_port,
        destination=rule.destination,
        destination_port=rule.destination_port,
        interface=rule.interface,
        log=rule.log,
        comment=rule.comment or None,
    )


def _options(place: _Place, options: OptionsAnswer) -> FirewallOptions:
    """Return the options with Proxmox's defaults; those of nodes have no policy."""
    on = place.level in _ON_BY_DEFAULT if options.enable is None else options.enable
    of_node, of_guest = place.level == "node", place.level == "guest"
    return FirewallOptions(
        level="node" if of_node else "guest" if of_guest else "cluster",
        node=place.node,
        vmid=place.vmid,
        enabled=on,
        policy_in=None if of_node else options.policy_in or _POLICY_IN,
        policy_out=None if of_node else options.policy_out or _POLICY_OUT,
        log_in=options.log_in,
        log_out=options.log_out,
        rate_limit=options.rate_limit,
        mac_filter=options.mac_filter is not False if of_guest else None,
        ip_filter=bool(options.ip_filter) if of_guest else None,
        dhcp=options.dhcp,
    )
