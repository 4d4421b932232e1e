"""Networks of clients, as the units that limits count."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address


@lru_cache(1024)
def network_of(address: str) -> str:
    """Return the unit to limit: an IPv4 address, or the /64 network of an IPv6 address.

    A client can choose freely among the addresses of its /64.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
