"""Client ID Metadata Documents: fetched over https from public addresses only.

A stranger names the URL, so the server must not be a way into the network that it is in: every
address that the host resolves to has to be public, the connection goes to one of these, and
neither redirects nor proxies are followed.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final, TypeVar

import httpx2 as httpx
from pydantic_core import from_json

from proxmox_client.plain_http import PlainTransport
from proxmox_client.responses import limited_head, read_body
from proxmox_client.tls import Tls
from pvemcp_server.access.limits import FairQueue
from pvemcp_server.errors import OAuthError
from pvemcp_server.link_local import METADATA, embedded_ipv4, is_isatap
from pvemcp_server.resolver import Resolver

MOST_BYTES: Final = 5 * 1024
LONGEST_URL: Final = 512  # characters; the column of a client's id has as many
AT_ONCE: Final = 4  # fetches, one for each address that asks
SECONDS: Final = 5.0  # in total: waiting for the turn, resolving, connecting and reading
CONNECT_SECONDS: Final = 2.0  # to one address: the next one may answer
SHORTEST_CACHE: Final = timedelta(minutes=5)
LONGEST_CACHE: Final = timedelta(days=1)
_MAX_AGE: Final = re.compile(r"(?:\A|[,\s])max-age=(\d{1,9})(?:\Z|[,\s])", re.IGNORECASE)

T = TypeVar("T")
Resolve = Callable[[str, int, str], Awaitable[list[str]]]


@dataclass(frozen=True, slots=True)
class Document:
    """A client's document, and for how long it may be cached."""

    metadata: dict[str, Any]
    life: timedelta


class Unreachable(OAuthError):
    """A document that could not be read, whatever it says; `in_time` if not for being too slow."""

    def __init__(self, error: Exception) -> None:
        text = (
            f"it could not be fetched by this server ({type(error).__name__}). Allow the server "
            "https to the document's host; or remove the sign-in in the program (in Claude Code: "
            "claude mcp logout) and connect again, so that it registers here"
        )
        super().__init__("invalid_client", unusable(text).description)
        self.in_time = not isinstance(error, TimeoutError)


class DocumentFetcher:
    """Fetches documents; tests give it a resolver and a transport of their own.

    Those who ask have their turns by `source`, their address: a slow name or host that one of them
    names delays the documents of others by no more than one turn.
    """

    def __init__(
        self,
        resolve: Resolve | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        seconds: float = SECONDS,
    ) -> None:
        self._resolve = resolve or Resolver(AT_ONCE).resolve
        self._queue = FairQueue(AT_ONCE)
        self._transport = transport
        self._seconds = seconds

    async def fetch(self, url: str, source: str = "") -> Document:
        """Return the document at a URL; raise OAuthError with the reason if it cannot be used.

        Raise OverBudget when too many wait, also for the names of others that are resolved slowly.
        """
        target = document_url(url)
        if target is None:
            raise unusable("its URL must be https, with a path and in its normal form")
        try:
            # in total, however slowly it answers
            async with asyncio.timeout(self._seconds), self._queue.turn(source):
                addresses = await self._resolve(target.host, target.port or 443, source)
                if not addresses or not all(is_public(each) for each in addresses):
                    raise unusable("its host has no public address, or others too")
                return await read_at(
                    target,
                    addresses,
                    _document,
                    transport=self._transport,
                    seconds=self._seconds,
                )
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:  # also TimeoutError
            raise Unreachable(error) from error


async def read_at(
    url: httpx.URL,
    addresses: Sequence[str],
    read: Callable[[httpx.Response], Awaitable[T]],
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    seconds: float = SECONDS,
) -> T:
    """Return what `read` returns for the answer of the first address that can be connected to.

    The certificate has to be valid for the host. Redirects are not followed.
    """
    headers = {
        "Host": url.netloc.decode(),
        "Accept": "application/json",
        "Accept-Encoding": "identity",
    }
    # nothing of the environment: neither a proxy nor passwords of ~/.netrc
    async with httpx.AsyncClient(
        trust_env=False,
        verify=Tls().context(),
        transport=transport,
        mounts=None if transport else {"http://": PlainTransport()},
        follow_redirects=False,
        headers=headers,
        timeout=httpx.Timeout(seconds, connect=CONNECT_SECONDS),
    ) as http:
        name = {"sni_hostname": url.raw_host.decode()}
        failure: httpx.RequestError = httpx.ConnectError("the host has no address")
        for address in addresses:
            request = http.build_request("GET", url.copy_with(host=address), extensions=name)
            try:
                with limited_head():
                    response = await http.send(request, stream=True)
                try:
                    return await read(response)
                finally:
                    await response.aclose()
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure


async def _document(response: httpx.Response) -> Document:
    if response.status_code != 200:
        redirect = "; redirects are not followed" if response.is_redirect else ""
        raise unusable(f"the answer was {response.status_code}{redirect}")
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not re.fullmatch(r"application/[\w.-]+\+json", kind):
        raise unusable("it is not application/json")
    body = await read_body(response, MOST_BYTES)
    if body is None:
        raise unusable(f"it is larger than {MOST_BYTES // 1024} KiB")
    try:
        metadata = from_json(body, allow_inf_nan=False)
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict):
        raise unusable("it is no JSON object")
    found = _MAX_AGE.search(response.headers.get("cache-control", ""))
    life = timedelta(seconds=int(found[1])) if found else SHORTEST_CACHE
    return Document(metadata, min(max(life, SHORTEST_CACHE), LONGEST_CACHE))


def document_url(text: str) -> httpx.URL | None:
    """Return the URL of a document; None for what can be none, as with a user or a fragment.

    Only the normal form is one, so that a document has one id.
    """
    if len(text) > LONGEST_URL or not text.isascii() or re.search(r"/\.{1,2}(?:/|\Z)", text):
        return None
    try:
        url = httpx.URL(text)
        url.raw_host.decode().encode("idna")  # refuses empty labels, and those that are too long
    except (httpx.InvalidURL, UnicodeError):
        return None
    is_plain = url.scheme == "https" and url.host and not url.userinfo and "#" not in text
    return url if is_plain and url.path not in ("", "/") and str(url) == text else None


def is_public(address: str) -> bool:
    """Return whether an address is one of the public Internet, also where it embeds IPv4."""
    parsed = ip_address(address)
    embedded = embedded_ipv4(parsed) if isinstance(parsed, IPv6Address) else None
    return all(_is_public(each) for each in (parsed, embedded) if each is not None) and not (
        isinstance(parsed, IPv6Address)
        and (parsed.ipv4_mapped or parsed.is_site_local or is_isatap(parsed))
    )


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    is_special = address.is_multicast or address.is_reserved or address in METADATA
    return address.is_global and not is_special


def unusable(reason: str) -> OAuthError:
    """Return the refusal of a document, with the reason for the user and the client's author."""
    return OAuthError("invalid_client", f"The client's metadata document is not usable: {reason}.")
