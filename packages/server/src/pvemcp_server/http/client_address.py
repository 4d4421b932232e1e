"""Where a request comes from, also behind proxies, as far as they are trusted."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

Networks = tuple[Any, ...]


def networks(texts: Iterable[str]) -> Networks:
    return tuple(ip_network(text) for text in texts)


def client_address(scope: Mapping[str, Any], trusted: Networks) -> str:
    """The nearest address that is not a trusted proxy's: what lies beyond it could be invented."""
    client = scope.get("client")
    nearest = _bare(str(client[0])) if client else ""
    hops = [nearest]
    if trusted and _within(nearest, trusted):
        hops += reversed(_forwarded(scope["headers"]))
    return next((hop for hop in hops if not _within(hop, trusted)), hops[-1])


def _forwarded(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    values = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
    return [_bare(hop.strip()) for value in values for hop in value.split(",") if hop.strip()]


@lru_cache(1024)  # the same few clients call again and again
def _bare(hop: str) -> str:
    """The address alone: some proxies add a port, and sockets for both show IPv4 within IPv6."""
    host = hop.partition(":")[0] if hop.count(":") == 1 else hop
    if hop.startswith("["):
        host = hop[1:].partition("]")[0]
    try:
        parsed = ip_address(host)
    except ValueError:
        return hop
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


@lru_cache(1024)
def _within(address: str, known: Networks) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in one for one in known)
