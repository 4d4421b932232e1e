"""Checks on download URLs, against server-side request forgery.

A node fetches the URL from its own network, which a caller may not reach otherwise.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from pvemcp_server.errors import BadArgument, Precondition
from pvemcp_server.link_local import RESOLVE_SECONDS, embedded_ipv4, is_link_local
from pvemcp_server.resolver import Resolver

# Characters of a host: percent signs are refused, since the fetching side decodes `%2e` to a dot
_HOST = re.compile(r"[a-z0-9._:-]+")
_PUBLIC_6 = ip_network("2000::/3")  # the part of IPv6 that is routed on the internet

_resolver = Resolver()

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[list[Address]]]


@dataclass(frozen=True, slots=True)
class DownloadRules:
    """What the administrator allows. A host in `hosts` is trusted whatever its addresses are."""

    hosts: tuple[str, ...] = ()  # names or patterns such as *.debian.org; empty: any public host
    plain_http: bool = False
    private: bool = False  # hosts with addresses that are not public, but link-local ones


async def resolve(host: str, port: int) -> list[Address]:
    """Return every address of the host by the system's resolver; none if it has none in time."""
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            return [ip_address(each) for each in await _resolver.resolve(host, port)]
    except OSError:  # also TimeoutError
        return []


async def check_download(url: str, rules: DownloadRules, resolve: Resolve = resolve) -> str:
    """Return what the URL discloses to a host that is not listed; "" for a listed host.

    Raises BadArgument or Precondition if the URL is not allowed. The node resolves the name again
    and follows redirects. So this check stops mistakes and plain attempts only; the node's firewall
    has to stop the others.
    """
    parts = _parsed(url, rules)
    host = _ascii_host(parts.hostname or "")
    if is_listed(host, rules):
        return ""
    hint = "An administrator can list the host under Settings."
    addresses = await resolve(host, parts.port or 443)
    if not addresses:
        raise Precondition(
            f"{host} does not resolve here, so its addresses cannot be checked.", hint=hint
        )
    if local := [address for address in addresses if is_link_local(address)]:
        raise Precondition(
            f"{host} resolves to {local[0]}, a link-local or metadata address.", hint=hint
        )
    private = [address for address in addresses if not _is_public(address)]
    if private and not rules.private:
        raise Precondition(f"{host} resolves to {private[0]}, which is not public.", hint=hint)
    return f"{host} is not a listed download host; it learns this address."


def is_listed(host: str, rules: DownloadRules) -> bool:
    """Return whether the host is listed; raise Precondition if it isn't and others are."""
    if not rules.hosts:
        return False
    if not any(fnmatchcase(host, pattern.lower()) for pattern in rules.hosts):
        raise Precondition(
            f"Downloads from {host} are not allowed here.",
            hint=f"Allowed are {', '.join(rules.hosts)}; an administrator can change that.",
        )
    return True


def host_of(url: str) -> str:
    """Return the host of a URL; empty if it has none, or is none."""
    with suppress(ValueError):
        return urlsplit(url).hostname or ""
    return ""


def _parsed(url: str, rules: DownloadRules) -> SplitResult:
    if any(ch.isspace() or not ch.isprintable() for ch in url):
        raise BadArgument("source", "it contains blanks or control characters.")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise BadArgument("source", f"{error}.") from None
    allowed = ("https", "http") if rules.plain_http else ("https",)
    if parts.scheme not in allowed:
        raise BadArgument(
            "source", f"it must begin with {' or '.join(f'{s}://' for s in allowed)}."
        )
    if not parts.hostname:
        raise BadArgument("source", "it has no host.")
    if "@" in parts.netloc or "\\" in url:
        raise BadArgument("source", "leave out user name, password and backslashes.")
    return parts


def _ascii_host(host: str) -> str:
    """Return the host; raise BadArgument for what the node could read as another one.

    Versions of IDNA differ in names such as faß.example: fass.example, or one of its own.
    """
    if not host.isascii():
        hint = "Write an international name in its ASCII form, which begins with xn--."
        raise BadArgument("source", f"{host!r} is not a host name of ASCII letters.", hint=hint)
    if not _HOST.fullmatch(host):
        raise BadArgument("source", f"{host!r} is not a host name.")
    return host.rstrip(".")


def _is_public(address: Address) -> bool:
    """Return whether the address is on the internet, also when it embeds IPv4 in IPv6."""
    if isinstance(address, IPv6Address):
        inner = embedded_ipv4(address)
        if inner is not None:
            return _is_public(inner)
        if address not in _PUBLIC_6:
            return False
    return address.is_global and not address.is_multicast
