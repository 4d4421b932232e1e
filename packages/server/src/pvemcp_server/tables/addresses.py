"""Addresses that running guests have now, as they report them."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, ClassVar, Literal

from proxmox_client import Lxc, Qemu
from proxmox_client.api.agent import AgentInterface, ContainerInterface
from proxmox_client.api.resources import GuestResource
from proxmox_client.properties import whole_number
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.guest_reports import note_problems, reports, without_repeats
from pvemcp_server.tables.guests import TO_GUEST, TO_NODE
from pvemcp_server.tables.reach import of_guest
from pvemcp_server.tables.registry import Cost, LoadRequest, made, table
from pvemcp_server.tables.rows import Col, Gap, Row

_NONE = "no address but loopback and link-local ones"
_TEXT = 50  # characters of a malformed address that are quoted
_UNREPORTED = Gap("their guests could not be asked; the column problem says why")


class GuestAddress(Row):
    """An address of a running guest, or the reason why there is none."""

    minimal: ClassVar[tuple[str, ...]] = ("vmid", "vm_name", "interface", "address", "problem")

    vmid: Annotated[int, Col("Guest", aliases=("guest_id",))]
    vm_name: Annotated[str, Col("Name of the guest", aliases=("guest_name", "name"))]
    node: Annotated[str, Col("Node the guest is on")]
    type: Annotated[Literal["qemu", "lxc"], Col("Kind of guest")]
    interface: Annotated[str | None, Col("Network interface in the guest: eth0 …")]
    mac: Annotated[str | None, Col("MAC address of the interface")]
    address: Annotated[
        str | None, Col("IP address, without prefix", aliases=("ip",), gap=_UNREPORTED)
    ]
    prefix: Annotated[int | None, Col("Length of the network prefix")]
    family: Annotated[str | None, Col("Kind of address", values=("ipv4", "ipv6"))]
    problem: Annotated[str | None, Col("Why no address is known, in Proxmox's words")]


@dataclass(frozen=True, slots=True)
class _Place:
    interface: str
    mac: str | None
    address: str
    prefix: int | None


@table(
    "addresses",
    tool="GetVmStatus",
    cost=Cost.PER_GUEST,
    covered=of_guest,
    relations=(TO_GUEST, TO_NODE),
    rare=True,
)
async def addresses(cluster: Cluster, request: LoadRequest) -> list[GuestAddress]:
    """Addresses of running guests, as the guest agent or the container reports them now.

    Without loopback and link-local ones. A guest that reports none has one row with the problem;
    networks has the configured addresses.
    """
    what = "address of guest"
    vms, containers = await asyncio.gather(
        reports(cluster, request, "qemu", _of_vm, what),
        reports(cluster, request, "lxc", _of_container, what),
    )
    answering = [pair for pair in containers if pair[1]]  # a stopped container has no interface
    rows = await made(cluster, [*vms, *answering], lambda pair: _rows(*pair))
    note_problems(cluster, rows, "addresses")
    return sorted(rows, key=lambda row: row.vmid)


async def _of_vm(api: Qemu | Lxc) -> Sequence[AgentInterface]:
    return await api.agent_network() if isinstance(api, Qemu) else []


async def _of_container(api: Qemu | Lxc) -> Sequence[AgentInterface]:
    return await api.interfaces() if isinstance(api, Lxc) else []


def _rows(guest: GuestResource, report: Sequence[AgentInterface] | str) -> list[GuestAddress]:
    if isinstance(report, str):
        return [_row(guest, None, report)]
    places = without_repeats([place for each in report for place in _places(each)])
    rows = [_row(guest, place, None) for place in places]
    wrong = without_repeats([text for each in report for text in _malformed(each)])
    rows += [_row(guest, None, f"not an address: {text!r}") for text in wrong]
    return rows or [_row(guest, None, _NONE)]


def _places(interface: AgentInterface) -> Iterator[_Place]:
    for address, prefix in _addresses(interface):
        parsed = _parsed(address)
        if parsed and not parsed.is_loopback and not parsed.is_link_local:
            yield _Place(interface.name, interface.mac_address, str(parsed), prefix)


def _malformed(interface: AgentInterface) -> Iterator[str]:
    """Yield the texts in place of addresses: what a guest reports need not be one."""
    return (text[:_TEXT] for text, _ in _addresses(interface) if text and not _parsed(text))


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _addresses(interface: AgentInterface) -> Iterable[tuple[str, int | None]]:
    """Return addresses with their prefixes; older versions have those of containers in inet."""
    for listed in interface.addresses:
        yield listed.address.partition("%")[0], listed.prefix
    if isinstance(interface, ContainerInterface):
        for text in filter(None, (interface.inet, interface.inet6)):
            address, _, prefix = text.partition("/")
            yield address, whole_number(prefix)


def _row(guest: GuestResource, place: _Place | None, problem: str | None) -> GuestAddress:
    return GuestAddress(
        vmid=guest.vmid,
        vm_name=guest.name,
        node=guest.node,
        type=guest.type,
        interface=place.interface if place else None,
        mac=place.mac if place else None,
        address=place.address if place else None,
        prefix=place.prefix if place else None,
        family=f"ipv{ip_address(place.address).version}" if place else None,
        problem=problem,
    )
