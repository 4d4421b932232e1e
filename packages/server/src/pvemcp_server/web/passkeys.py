"""The site that passkeys of a page belong to, or the reason why there can be none."""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request

from pvemcp_server.access.passkeys import RelyingParty
from pvemcp_server.http.hosts import Hosts
from pvemcp_server.web.session import services_of

LOCALHOST: Final = "localhost"


@dataclass(frozen=True, slots=True)
class PasskeySite:
    """The party of passkeys on a page; without one, `reason` says why and what to do."""

    party: RelyingParty | None
    reason: str = ""


def passkey_site_of(request: Request) -> PasskeySite:
    """Return the site by the public URL, or by the Host under which the page was reached."""
    return passkey_site(page_origin(request), services_of(request).config.path_prefix)


def page_origin(request: Request) -> str:
    """Return the origin of the page that is asked for, as the browser names it."""
    return Hosts.of(services_of(request).config).origin_of(request.scope)


def passkey_site(origin: str, prefix: str = "") -> PasskeySite:
    """Return the site of an origin: passkeys belong to a name, over https or on localhost.

    `prefix` is the path of the public URL: what a host serves below others shares its passkeys.
    """
    url = urlsplit(origin)
    host = url.hostname or ""
    if _is_address(host):
        port = f":{url.port}" if url.port else ""
        here = f"http://{LOCALHOST}{port}{prefix}/admin/" if ip_address(host).is_loopback else ""
        return PasskeySite(
            None,
            "Passkeys belong to a host name, and this page was opened by an IP address."
            + (f" Open {here} to use them." if here else " Open it by name, over https."),
        )
    if url.scheme != "https" and host != LOCALHOST:
        return PasskeySite(None, "Passkeys need https, and this page was opened over plain http.")
    return PasskeySite(RelyingParty(host, origin))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
