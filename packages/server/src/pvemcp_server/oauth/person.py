"""A user who signs in to connect, how far their sign-in is, and the session that holds it."""

import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import msgspec

from proxmox_client import OpenIdRequest, SecondFactor, Ticket
from pvemcp_server.errors import AccessDenied, CallError, Undecryptable
from pvemcp_server.store import Store
from pvemcp_server.store.columns import CLOCK_SKEW, utc_now
from pvemcp_server.store.records import ClusterRecord

SESSION_LIFE: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Place:
    """A cluster with its hosts and certificates, as they were at the sign-in.

    A ticket is sent nowhere else.
    """

    name: str
    id: int
    destination: str

    @classmethod
    def of(cls, record: ClusterRecord) -> "Place":
        """Return the place of a cluster's record."""
        return cls(record.name, record.id, record.destination)

    def check(self, record: ClusterRecord) -> None:
        """Raise CallError unless the record is of the same cluster with the same hosts."""
        if Place.of(record) != self:
            raise CallError(
                f"The configuration of cluster {self.name} was changed since the sign-in.",
                hint="Sign in again.",
            )


@dataclass(frozen=True, slots=True)
class Account:
    """An account of Proxmox that a user has signed in with."""

    place: Place
    ticket: Ticket = field(repr=False)

    @property
    def userid(self) -> str:
        """The account, as alice@pve."""
        return self.ticket.username


@dataclass(frozen=True, slots=True)
class Person:
    """A user who has signed in, with Proxmox accounts by cluster or as an administrator.

    `subject` has the forms of `ConnectionRecord`. An administrator has the `admin_id` and the
    `generation` of their account, which a new password changes, the id of the `admin_session` that
    it ends with, and no accounts. `signed_in` is when the first account was checked.
    """

    subject: str
    name: str
    signed_in: datetime
    accounts: dict[str, Account] = field(default_factory=dict)
    admin_id: int | None = None
    generation: int = 0
    admin_session: str = field(default="", repr=False)

    def with_account(self, account: Account) -> "Person":
        """Return the user with a further account; the subject stays that of the first one."""
        return replace(self, accounts={**self.accounts, account.place.name: account})


@dataclass(frozen=True, slots=True)
class Challenge:
    """A second factor that a cluster asks for after the right password."""

    place: Place
    factor: SecondFactor = field(repr=False)
    shared_realm: str = ""


@dataclass(frozen=True, slots=True)
class OpenIdStep:
    """A sign-in that waits at the OpenID provider of a realm.

    `query` is the authorization request that it is for, if it is for one.
    """

    place: Place
    realm: str
    query: str
    request: OpenIdRequest = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignIn:
    """How far a sign-in is; with a `person` it is complete, also while challenges are open.

    `problems` are sentences about clusters of a shared realm that did not sign the user in.
    """

    person: Person | None = None
    challenges: tuple[Challenge, ...] = ()
    openid: OpenIdStep | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PersonSignIn:
    """A session of a user's browser; the `csrf` token is valid for this session only."""

    id: str = field(repr=False)
    csrf: str = field(repr=False)
    sign_in: SignIn

    def check_csrf(self, token: str) -> None:
        """Raise AccessDenied unless the token is the one of this session."""
        if not hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self.csrf.encode()):
            raise AccessDenied("wrong CSRF token")


class PersonSessions:
    """Opens, finds and ends sessions of users; each step of a sign-in opens a new one.

    So a cookie that was known before a step, or set by others, is worth nothing after it. No step
    prolongs the time of a user since the sign-in.
    """

    def __init__(self, store: Store, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._store = store
        self._clock = clock

    async def open(self, sign_in: SignIn) -> str:
        """Store the sign-in and return the token of its session, for the cookie."""
        token, person = secrets.token_urlsafe(32), sign_in.person
        begun = min(person.signed_in, self._clock()) if person else self._clock()
        await self._store.person_sessions.open(
            self.session(token, sign_in).id,
            subject=person.subject if person else "",
            expires=begun + SESSION_LIFE,
            values=msgspec.to_builtins(sign_in),
        )
        return token

    async def find(self, token: str) -> PersonSignIn | None:
        """Return the session of this token; None when it has ended or is unknown."""
        digest = self._keyed("person sessions", token)
        record = await self._store.person_sessions.find(digest=digest)
        now = self._clock()
        if record is None or record.expires <= now or record.created > now + CLOCK_SKEW:
            return None
        try:
            values: Mapping[str, Any] = await self._store.person_sessions.opened(record)
        except Undecryptable:
            return None  # was written into the database by other means
        if not values:  # was ended by another request
            return None
        return self.session(token, msgspec.convert(values, SignIn))

    def session(self, token: str, sign_in: SignIn) -> PersonSignIn:
        """Return the session that has this token."""
        digest = self._keyed("person sessions", token)
        return PersonSignIn(digest, self._keyed("person csrf", token), sign_in)

    async def end(self, session_id: str) -> bool:
        """End a session; return False if it was ended before, also by another process."""
        return await self._store.person_sessions.remove(session_id)

    async def remove_expired(self) -> None:
        """Delete the sessions that have expired."""
        await self._store.person_sessions.remove_expired(self._clock())

    def _keyed(self, purpose: str, token: str) -> str:
        key = self._store.vault.derive(purpose)
        text = token.encode("utf-8", "surrogatepass")
        return hmac.new(key, text, sha256).hexdigest()
