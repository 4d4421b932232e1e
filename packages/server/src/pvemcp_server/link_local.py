"""Refusal of link-local and cloud metadata addresses as hosts of clusters, syslog and downloads.

Services there trust every program of the machine, and no Proxmox node is reached by them: an
administrator must not use the server to look at them.
"""

import asyncio
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from proxmox_client.hosts import Host
from pvemcp_server.errors import BadArgument
from pvemcp_server.resolver import Resolver

RESOLVE_SECONDS: Final = 5
METADATA: Final = frozenset(
    map(
        ip_address,
        (
            *("100.100.100.200", "192.0.0.192", "168.63.129.16"),  # Alibaba, Oracle, Azure
            *("fd00:ec2::254", "fd20:ce::254"),  # AWS, Google
        ),
    )
)
# The well-known prefix (RFC 6052), and the one for local use (RFC 8215) with its usual length of 96
_NAT64: Final = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))


_resolver = Resolver()


async def check_hosts(hosts: Iterable[str], *, argument: str = "hosts") -> None:
    """Raise BadArgument for a host that is, or resolves to, a link-local or metadata address."""
    for host in hosts:
        await checked_addresses(host, argument=argument)


async def checked_addresses(host: str, *, argument: str) -> list[str]:
    """Return the addresses of a host; raise BadArgument as `check_hosts` does.

    Connect to one of these: the name may resolve to another address in the next moment.
    """
    addresses = await _addresses(host)
    if any(is_link_local(ip_address(each)) for each in addresses):
        raise BadArgument(argument, f"{host} is a link-local or metadata address; not contacted.")
    return addresses


async def _addresses(host: str) -> list[str]:
    """Resolve a host as a connection would; empty when it has no address."""
    try:
        name, port = Host.parse(host)
        async with asyncio.timeout(RESOLVE_SECONDS):
            return await _resolver.resolve(name, port)
    except (OSError, ValueError):  # the connection reports both; TimeoutError is an OSError
        return []


def is_link_local(address: IPv4Address | IPv6Address) -> bool:
    """Return whether the address is link-local or serves metadata, also when it embeds IPv4."""
    if isinstance(address, IPv6Address):
        address = embedded_ipv4(address) or address
    return address.is_link_local or address in METADATA


def embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that packets to an IPv6 address may be translated or tunnelled to."""
    if any(address in network for network in _NAT64):
        return IPv4Address(address.packed[12:])
    if is_isatap(address):
        return IPv4Address(address.packed[12:])
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


def is_isatap(address: IPv6Address) -> bool:
    """Return whether packets to the address are tunnelled within a site (RFC 5214)."""
    return address.packed[8:12] in (b"\0\0\x5e\xfe", b"\2\0\x5e\xfe")
