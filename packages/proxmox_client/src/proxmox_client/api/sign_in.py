"""Sign-in of users: with a password and a second factor, or through an OpenID provider."""

import json
from typing import Any, Final, Literal, TypeVar, get_args
from urllib.parse import parse_qs, unquote

import msgspec

from proxmox_client.auth import Ticket
from proxmox_client.errors import BadParameters, UnexpectedAnswer
from proxmox_client.transport import Transport

Method = Literal["totp", "recovery", "webauthn", "u2f", "yubico"]
"""A kind of second factor, as Proxmox names it."""
T = TypeVar("T")

_TICKET: Final = "/access/ticket"
_CHALLENGE: Final = "PVE:!tfa!"
_LONGEST_TICKET: Final = 16_384  # characters; a ticket has some 400, a challenge a few thousand


class SecondFactor(msgspec.Struct, frozen=True, kw_only=True):
    """The second factor that Proxmox asks for after a correct password.

    It can be stored between two requests of a browser (msgspec encodes and decodes it): `ticket` is
    worth nothing without the factor, but belongs into no log. `host` is where the answer goes,
    because each node keeps its own WebAuthn challenges, for two minutes.
    """

    userid: str
    host: str
    ticket: str
    methods: tuple[Method, ...]
    webauthn: dict[str, Any] | None = None
    """The argument of `navigator.credentials.get`; binary values are base64url texts.

    A browser signs it only on pages at or below the domain `publicKey.rpId`. Proxmox accepts the
    origin of its option `webauthn`, or where that names none, the `page_host` of the answer; of
    either also subdomains with the same scheme and port, unless `allow-subdomains` is off.
    """
    recovery_keys: tuple[int, ...] = ()
    """The numbers of the recovery keys that are left."""

    def __repr__(self) -> str:
        return f"SecondFactor(userid={self.userid!r}, methods={self.methods!r})"


class OpenIdRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in that waits at the OpenID provider, at most ten minutes.

    `host` is the node that keeps its state, so the answer of the provider goes there.
    """

    url: str
    host: str
    redirect_url: str

    def __repr__(self) -> str:
        return f"OpenIdRequest(host={self.host!r}, redirect_url={self.redirect_url!r})"

    @property
    def state(self) -> str:
        """The parameter `state`, which the provider sends back; compare it before you go on."""
        return next(iter(parse_qs(self.url.partition("?")[2]).get("state", ())), "")


class SignIn:
    """Calls that sign a user in. They need no account, and keep neither password nor ticket.

    What they send reaches one host: the next is tried only if no connection was made, and nothing
    is sent again after an answer. A wrong password or code, a user who is disabled, expired, locked
    or unknown, and a directory that is out of reach are all the same `Unauthenticated`, with
    Proxmox's words "authentication failure", three seconds later.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def with_password(self, userid: str, password: str) -> Ticket | SecondFactor:
        """POST /access/ticket. Needs no account; `userid` is user@realm.

        Source: PVE/API2/AccessControl.pm.
        """
        if "@" not in userid:
            message = "the user has no realm: write user@realm"
            raise BadParameters(400, "", message, {"username": message})
        form = {"username": userid, "password": password}
        host, ticket = await self._post(_TICKET, Ticket, form, secrets=[password])
        if ticket.need_tfa or ticket.ticket.startswith(_CHALLENGE):
            return _second_factor(host, ticket)
        return _complete(ticket)

    async def with_second_factor(
        self, challenge: SecondFactor, method: Method, value: str, *, page_host: str | None = None
    ) -> Ticket:
        """POST /access/ticket. Needs no account; `value` is the code, key or signed assertion.

        A signed assertion is JSON text: `id`, `type`, `rawId`, `challenge` as in
        `challenge.webauthn`, and `response` with `authenticatorData`, `clientDataJSON` and
        `signature`. A code or assertion is valid once; after eight wrong codes TOTP is locked until
        a recovery key is used. `page_host` is the host, and the port if it is not 443, of the https
        page on which a key signed: sent as `Host`, which Proxmox compares with the signed origin.

        Source: PVE/API2/AccessControl.pm; configure_u2f_and_wa in PVE/AccessControl.pm.
        """
        if method not in challenge.methods:
            offered = ", ".join(challenge.methods) or "none"
            message = f"{method} is no second factor of {challenge.userid}: {offered}"
            raise BadParameters(400, "", message, {"tfa-challenge": message})
        form = {
            "username": challenge.userid,
            "tfa-challenge": challenge.ticket,
            "password": f"{method}:{value}",
        }
        secrets = [value, challenge.ticket]
        _, ticket = await self._post(
            _TICKET,
            Ticket,
            form,
            secrets=secrets,
            only=challenge.host,
            host_header=page_host,
        )
        return _complete(ticket)

    async def openid_request(self, realm: str, redirect_url: str) -> OpenIdRequest:
        """POST /access/openid/auth-url. Needs no account; the URL is for the user's browser.

        The provider has to know `redirect_url` as one of the realm's client. The cluster itself
        reads the provider's metadata for this.

        Source: PVE/API2/OpenId.pm.
        """
        form = {"realm": realm, "redirect-url": redirect_url}
        path = "/access/openid/auth-url"
        host, url = await self._post(path, str, form)
        if not url.startswith(("https://", "http://")):  # a browser is sent there
            raise UnexpectedAnswer(200, "OK", f"The answer of {path} is no web address")
        return OpenIdRequest(url=url, host=host, redirect_url=redirect_url)

    async def with_openid(self, request: OpenIdRequest, state: str, code: str) -> Ticket:
        """POST /access/openid/login. Needs no account; `state` and `code` are the provider's.

        A state is valid once. There is no second factor: that is the provider's.

        Source: PVE/API2/OpenId.pm.
        """
        form = {"state": state, "code": code, "redirect-url": request.redirect_url}
        path, secrets = "/access/openid/login", [code, state]
        _, ticket = await self._post(path, Ticket, form, secrets=secrets, only=request.host)
        return _complete(ticket)

    async def _post(
        self, path: str, answer: type[T], form: dict[str, str], **details: Any
    ) -> tuple[str, T]:
        for name, value in form.items():
            # urlencode would raise an error that has the text
            if any("\ud800" <= character <= "\udfff" for character in value):
                message = "it has characters that are no text"
                raise BadParameters(400, "", f"{name}: {message}", {name: message})
        return await self._transport.post_once(path, answer, form, **details)


def _complete(ticket: Ticket) -> Ticket:
    """Return a ticket that is valid for requests; raise UnexpectedAnswer for any other."""
    is_long = len(ticket.ticket) > _LONGEST_TICKET
    if not ticket.ticket or not ticket.username or ticket.need_tfa or is_long:
        raise UnexpectedAnswer(200, "OK", f"The answer of {_TICKET} has no ticket")
    return ticket


def _second_factor(host: str, ticket: Ticket) -> SecondFactor:
    """Return the challenge in a ticket like `PVE:!tfa!{"totp"%3Atrue}:TIME::SIGNATURE`."""
    encoded = ticket.ticket.removeprefix(_CHALLENGE).partition(":")[0]
    try:
        challenge = json.loads(unquote(encoded[:_LONGEST_TICKET]))
        # a set of recovery keys that are used up is an empty list
        offered = [name for name in get_args(Method) if challenge.get(name)]
        return msgspec.convert(
            {
                "userid": ticket.username,
                "host": host,
                "ticket": ticket.ticket,
                "methods": offered,
                "webauthn": challenge.get("webauthn"),
                "recovery_keys": challenge.get("recovery") or (),
            },
            SecondFactor,
        )
    except (ValueError, RecursionError, AttributeError, msgspec.ValidationError):
        message = f"The second factor of {ticket.username} cannot be read"
        raise UnexpectedAnswer(200, "OK", message) from None
