"""Services, clocks, certificates and subscriptions of nodes."""

from collections.abc import Sequence
from datetime import UTC, datetime
from time import time
from typing import Annotated, ClassVar

from proxmox_client import Node
from proxmox_client.api.nodes import NodeTime
from proxmox_client.api.software import Certificate, Service, Subscription
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.per_node import node_table, rows_of_nodes
from pvemcp_server.tables.registry import LoadRequest
from pvemcp_server.tables.rows import Caveat, Col, Row, Unit, days_until, moment


class NodeService(Row):
    """A service of a node."""

    minimal: ClassVar[tuple[str, ...]] = ("node", "service", "state", "unit_state")

    node: Annotated[str, Col("Node")]
    service: Annotated[str, Col("Service: pveproxy, corosync …", aliases=("name",))]
    running: Annotated[bool, Col("Whether it runs")]
    state: Annotated[str, Col("State: running, dead, failed, exited …")]
    active_state: Annotated[str | None, Col("systemd's state: active, inactive, failed …")]
    unit_state: Annotated[str | None, Col("Whether it starts with the node: enabled, disabled …")]
    description: Annotated[str | None, Col("Description")]


class NodeClock(Row):
    """The clock of a node."""

    minimal: ClassVar[tuple[str, ...]] = ("node", "time", "offset", "uncertainty", "timezone")

    node: Annotated[str, Col("Node")]
    time: Annotated[datetime | None, Col("What its clock said, in whole seconds", Unit.TIME)]
    offset: Annotated[
        float,
        Col(
            "How far its clock is ahead of this server's; below 0 it is behind",
            Unit.SECONDS,
            caveat=Caveat("Compare offsets of nodes: the clock of this server may be wrong."),
        ),
    ]
    uncertainty: Annotated[float, Col("The offset differs by no more than this", Unit.SECONDS)]
    timezone: Annotated[str | None, Col("Time zone: Europe/Vienna …")]


class NodeCertificate(Row):
    """A certificate of a node."""

    minimal: ClassVar[tuple[str, ...]] = ("node", "filename", "subject", "not_after", "days_left")

    node: Annotated[str, Col("Node")]
    filename: Annotated[str, Col("File: pveproxy-ssl.pem is a custom one, pve-ssl.pem Proxmox's")]
    subject: Annotated[str | None, Col("Subject")]
    issuer: Annotated[str | None, Col("Issuer")]
    not_before: Annotated[datetime | None, Col("Start of its validity", Unit.TIME)]
    not_after: Annotated[
        datetime | None, Col("End of its validity", Unit.TIME, ("expires", "valid_until"))
    ]
    days_left: Annotated[int | None, Col("Days until it ends; negative once it has")]
    names: Annotated[list[str], Col("Names and addresses that it is for", aliases=("san",))]
    fingerprint: Annotated[str | None, Col("SHA-256 fingerprint")]
    key_type: Annotated[str | None, Col("Kind of key: rsaEncryption, id-ecPublicKey …")]
    key_bits: Annotated[int | None, Col("Length of the key in bits")]


class NodeSubscription(Row):
    """The support subscription of a node."""

    minimal: ClassVar[tuple[str, ...]] = ("node", "status", "level", "product", "next_due")

    node: Annotated[str, Col("Node")]
    status: Annotated[
        str,
        Col(
            "State; notfound: it has none",
            values=("new", "notfound", "active", "invalid", "expired", "suspended"),
        ),
    ]
    level: Annotated[str | None, Col("c community, b basic, s standard, p premium")]
    product: Annotated[str | None, Col("Name of the product")]
    sockets: Annotated[int | None, Col("Processor sockets of the node", Unit.COUNT)]
    next_due: Annotated[
        datetime | None, Col("When it ends or is renewed", Unit.TIME, ("next_due_date",))
    ]
    days_left: Annotated[int | None, Col("Days until then; negative once it has ended")]
    checked: Annotated[datetime | None, Col("When Proxmox last checked it", Unit.TIME)]
    message: Annotated[str | None, Col("What Proxmox says about it")]


@node_table("services", tool="GetNodeStatus")
async def services(cluster: Cluster, request: LoadRequest) -> list[NodeService]:
    """Services of nodes with their state, such as pveproxy, corosync and chrony."""
    return await rows_of_nodes(cluster, request, Node.services, _service, "services of node")


@node_table("clocks", tool="GetNodeStatus")
async def clocks(cluster: Cluster, request: LoadRequest) -> list[NodeClock]:
    """Clocks of nodes, compared with this server's; one row per node."""

    async def ask(node: Node) -> Sequence[NodeClock]:
        sent = time()
        clock = await node.time()
        return [_clock(node.name, clock, sent, received=time())]

    return await rows_of_nodes(cluster, request, ask, lambda _node, row: row, "clock of node")


@node_table("certificates", tool="GetNodeStatus")
async def certificates(cluster: Cluster, request: LoadRequest) -> list[NodeCertificate]:
    """Certificates of nodes and the end of their validity."""
    return await rows_of_nodes(
        cluster,
        request,
        Node.certificates,
        _certificate,
        "certificates of node",
    )


@node_table("subscriptions", tool="GetNodeStatus")
async def subscriptions(cluster: Cluster, request: LoadRequest) -> list[NodeSubscription]:
    """Support subscriptions of nodes; one row per node."""

    async def ask(node: Node) -> Sequence[Subscription]:
        return [await node.subscription()]

    return await rows_of_nodes(
        cluster,
        request,
        ask,
        _subscription,
        "subscription of node",
    )


def _service(node: str, service: Service) -> NodeService:
    return NodeService(
        node=node,
        service=service.service,
        running=service.state == "running",
        state=service.state,
        active_state=service.active_state,
        unit_state=service.unit_state,
        description=service.description or None,
    )


def _clock(node: str, clock: NodeTime, sent: float, received: float) -> NodeClock:
    """Return the row of a clock, which Proxmox cuts to whole seconds."""
    offset = clock.time + 0.5 - (sent + received) / 2
    return NodeClock(
        node=node,
        time=moment(clock.time),
        offset=round(offset, 1),
        uncertainty=round(0.5 + (received - sent) / 2, 1),
        timezone=clock.timezone,
    )


def _certificate(node: str, certificate: Certificate) -> NodeCertificate:
    end = moment(certificate.not_after)
    return NodeCertificate(
        node=node,
        filename=certificate.filename,
        subject=certificate.subject,
        issuer=certificate.issuer,
        not_before=moment(certificate.not_before),
        not_after=end,
        days_left=days_until(end),
        names=certificate.names,
        fingerprint=certificate.fingerprint,
        key_type=certificate.key_type,
        key_bits=certificate.key_bits,
    )


def _subscription(node: str, subscription: Subscription) -> NodeSubscription:
    due = _date(subscription.next_due_date)
    return NodeSubscription(
        node=node,
        status=subscription.status,
        level=subscription.level or None,
        product=subscription.product,
        sockets=subscription.sockets,
        next_due=due,
        days_left=days_until(due),
        checked=moment(subscription.check_time),
        message=subscription.message,
    )


def _date(text: str | None) -> datetime | None:
    """Parse a date such as 2027-03-01; None for other text, which the shop may send."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC) if text else None
    except ValueError:
        return None
