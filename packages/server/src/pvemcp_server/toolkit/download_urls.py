"""Which addresses a node may be told to fetch from: the node reaches networks that we guard."""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from pvemcp_server.errors import BadArgument, Precondition

# Top-level names that lead nowhere on the internet, by rule or by habit.
_LOCAL_TOPS = frozenset(
    {"local", "localhost", "localdomain", "internal", "intranet", "lan", "home", "corp", "private"}
    | {"arpa", "invalid", "test", "onion", "svc"}
)

# What a host may be written with: who fetches would read `%2e` as a dot, and we would not
_HOST = re.compile(r"[a-z0-9._:-]+")
_INTERNET_6 = ip_network("2000::/3")  # all that is routed there of IPv6

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[list[Address]]]


@dataclass(frozen=True, slots=True)
class DownloadRules:
    """What the administrator allows. A host named in `hosts` is trusted wherever it leads."""

    hosts: tuple[str, ...] = ()  # names or patterns such as *.debian.org; empty: any public host
    plain_http: bool = False
    private: bool = False  # addresses that are not public


async def resolve(host: str, port: int) -> list[Address]:
    """Every address of the host, as the system's resolver sees it."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        return []
    return [ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found]


async def check_download(
    url: str, rules: DownloadRules, resolve: Resolve = resolve
) -> tuple[str, ...]:
    """What to know before the URL is fetched; raises when it may not be, saying who can allow it.

    The node resolves the name again and follows redirects: this keeps honest mistakes and plain
    attempts out, the node's firewall has to do the rest.
    """
    parts = _parsed(url, rules)
    host = _ascii(parts.hostname or "")
    if rules.hosts:
        if not any(fnmatchcase(host, one.lower()) for one in rules.hosts):
            raise Precondition(
                f"Downloads from {host} are not allowed here.",
                hint=f"Allowed are {', '.join(rules.hosts)}; an administrator can change that.",
            )
        return ()
    if rules.private:
        return ()
    return _checked(host, await resolve(host, parts.port or 443))


def _parsed(url: str, rules: DownloadRules) -> SplitResult:
    if any(ch.isspace() or not ch.isprintable() for ch in url):
        raise BadArgument("url", "it holds blanks or control characters.")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise BadArgument("url", f"{error}.") from None
    allowed = ("https", "http") if rules.plain_http else ("https",)
    if parts.scheme not in allowed:
        raise BadArgument("url", f"it must begin with {' or '.join(f'{s}://' for s in allowed)}.")
    if not parts.hostname:
        raise BadArgument("url", "it names no host.")
    if "@" in parts.netloc or "\\" in url:
        raise BadArgument("url", "leave out user name, password and backslashes.")
    return parts


def _ascii(host: str) -> str:
    try:
        plain = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        plain = ""
    if not _HOST.fullmatch(plain):
        raise BadArgument("url", f"{host!r} is not a host name.")
    return plain.rstrip(".")


def _checked(host: str, addresses: list[Address]) -> tuple[str, ...]:
    hint = "An administrator can allow the host under Settings."
    if inner := [one for one in addresses if not _public(one)]:
        raise Precondition(f"{host} leads to {inner[0]}, which is not public.", hint=hint)
    if not addresses and not _public_name(host):
        raise Precondition(f"{host} is not a name of the public internet.", hint=hint)
    if not addresses:
        return (f"The name {host} cannot be resolved here, so where it leads is not known.",)
    return ()


def _public_name(host: str) -> bool:
    """Whether the name could be one of the internet's: not a number, not a name of a local net."""
    *rest, top = host.split(".")
    real = top.isalpha() or top.startswith("xn--")
    return bool(rest) and real and top not in _LOCAL_TOPS


def _public(address: Address) -> bool:
    """Whether it is out on the internet, also when written as IPv4 inside IPv6."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        inner = inner or (address.teredo[1] if address.teredo else None) or _nat64(address)
        if inner is not None:
            return _public(inner)
        if address not in _INTERNET_6:
            return False
    return address.is_global and not address.is_multicast


def _nat64(address: IPv6Address) -> IPv4Address | None:
    if address.packed[:12] == bytes.fromhex("0064ff9b") + bytes(8):
        return IPv4Address(address.packed[12:])
    return None
