"""Sign-in of users with their Proxmox accounts: realms, passwords, second factors and OpenID.

A password or code goes to Proxmox and nowhere else. What Proxmox answers is shown in its own words.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import Final

import anyio

import proxmox_client as pve
from proxmox_client import Client, ProxmoxError, Realm, SecondFactor, deadline
from proxmox_client.api.sign_in import Method
from pvemcp_server.access.limits import Clock, RateLimiter
from pvemcp_server.access.sessions import Session
from pvemcp_server.access.sign_in_limits import FailureLocks, KnownDevices, SignInQueue
from pvemcp_server.clusters import Clusters, explain, reason_of
from pvemcp_server.errors import (
    BadArgument,
    CallError,
    ServerError,
    StateUnavailable,
    TooManyFailures,
)
from pvemcp_server.networks import network_of
from pvemcp_server.oauth.person import (
    Account,
    Challenge,
    OpenIdStep,
    Person,
    PersonSessions,
    Place,
    SignIn,
)
from pvemcp_server.settings import Values
from pvemcp_server.store import Store
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import ClusterKind

OWN_REALMS: Final = frozenset({"pam", "pve"})  # of each cluster, whatever the name of others'
ALL: Final = "*"  # in place of a cluster in the value of a shared realm
REALM_SECONDS: Final = 5
SIGN_IN_SECONDS: Final = 20
GROUP_SECONDS: Final = 5
KEPT_SECONDS: Final = 60  # the realms of a cluster
KEPT_PROBLEM_SECONDS: Final = 10
AT_ONCE: Final = 2  # sign-ins at a cluster: a failure holds one of three workers for 3 s
FAILURES_PER_MINUTE: Final = 10  # from one address for all accounts, or of a known one
BEGUN_PER_MINUTE: Final = 30  # sign-ins with OpenID, from one address
LONGEST_USER: Final = 64  # characters, as Proxmox limits them
LONGEST_SECRET: Final = 4096
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a sign-in comes from: the client's address, and the token of a known browser."""

    address: str = ""
    device: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class RealmChoice:
    """A realm to sign in to: of one cluster, or of all clusters that share it."""

    realm: str
    clusters: tuple[str, ...]
    comment: str = ""
    is_shared: bool = False
    is_openid: bool = False
    is_default: bool = False

    @property
    def value(self) -> str:
        """The value in forms, as lab/pve."""
        return f"{ALL if self.is_shared else self.clusters[0]}/{self.realm}"


@dataclass(frozen=True, slots=True)
class Realms:
    """The realms of all clusters, and sentences about clusters that did not answer."""

    choices: tuple[RealmChoice, ...]
    problems: tuple[str, ...] = ()

    def get(self, value: str) -> RealmChoice:
        """Return the realm of a form's value; raise BadArgument for an unknown one."""
        for choice in self.choices:
            if choice.value == value:
                return choice
        raise BadArgument("realm", "is not among the realms any more; choose one of the list.")


@dataclass(frozen=True, slots=True)
class _Source:
    """Whose attempt it is: failures lock `counted`, and turns go to each `waiting` one.

    A browser is `known` by an account, whose browsers share the turns: their number is its choice.
    """

    counted: str
    waiting: str
    known: bool


class People:
    """Signs users in with accounts of Proxmox.

    Strangers who guess passwords lock their own addresses for an account, and never a browser that
    has signed in before: see `access/sign_in_limits.py`.
    """

    def __init__(
        self,
        store: Store,
        clusters: Clusters,
        values: Callable[[], Values],
        *,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self.sessions = PersonSessions(store, clock=clock)
        self.devices = KnownDevices(lambda: store.vault.derive("known devices of users"), clock)
        self._clusters = clusters
        self._values = values
        self._clock = clock
        self._monotonic = monotonic
        self._realms: dict[str, tuple[float, list[Realm] | str]] = {}
        self._locks = FailureLocks(clock, "sign-ins of users", store.shared_failures)
        self._failures = RateLimiter("sign-ins of users", store.shared_limits, clock=monotonic)
        self._begun = RateLimiter("begun sign-ins", store.shared_limits, clock=monotonic)
        self._queues: dict[tuple[str, bool], SignInQueue] = {}

    async def realms(self) -> Realms:
        """Return the realms to choose from, read from all clusters at once.

        A cluster is asked once a minute, however many pages are shown.
        """
        kinds = await self._clusters.kinds()
        names = [name for name, kind in kinds.items() if kind is ClusterKind.PVE]
        answers = dict(zip(names, await asyncio.gather(*map(self._realms_of, names)), strict=True))
        shared: dict[str, list[str]] = {}
        choices, problems = [], []
        for name, answer in answers.items():
            if isinstance(answer, str):
                problems.append(answer)
                continue
            for realm in answer:
                if self._is_shared(realm):
                    shared.setdefault(realm.realm, []).append(name)
                choices.append(_choice(realm, [name]))
        together = [
            RealmChoice(realm, tuple(clusters), is_shared=True)
            for realm, clusters in shared.items()
            if len(clusters) > 1
        ]
        return Realms((*together, *choices), tuple(problems))

    async def sign_in(
        self, choice: RealmChoice, user: str, password: str, origin: Origin, to: SignIn
    ) -> SignIn:
        """Sign in with a password at each cluster of the realm; add what that gives to a sign-in.

        Raise CallError with Proxmox's words when no cluster accepts it, and TooManyFailures when
        the attempt was not sent.
        """
        userid = _userid(user, choice.realm)
        if not password or len(password) > LONGEST_SECRET:
            raise BadArgument("password", "is empty or too long.")
        _refuse_second(to, choice.clusters)

        async def at(name: str, source: _Source) -> Account | Challenge:
            record, client = await self._clusters.for_user(name)
            async with self._attempt("password", userid, name, source):
                answer = await client.sign_in.with_password(userid, password)
            place = Place.of(record)
            if isinstance(answer, SecondFactor):
                return Challenge(place, answer, choice.realm if choice.is_shared else "")
            return Account(place, answer)

        async with self._counted("password", userid, choice.clusters, origin) as source:
            outcomes = await asyncio.gather(
                *(at(name, source) for name in choice.clusters), return_exceptions=True
            )
            failed = _failures(zip(choice.clusters, outcomes, strict=True), userid)
            if len(failed) == len(outcomes):
                _raise_unsent(outcomes)
                raise CallError(" ".join(failed))
        progress = SignIn(to.person, problems=tuple(failed))  # older challenges are given up
        for outcome in outcomes:
            if isinstance(outcome, Account):
                progress = _signed_in(progress, outcome, choice, self._clock())
            elif isinstance(outcome, Challenge):
                progress = replace(progress, challenges=(*progress.challenges, outcome))
        return progress

    async def answer(
        self,
        to: SignIn,
        method: Method,
        value: str,
        origin: Origin,
        *,
        page_host: str | None = None,
    ) -> SignIn:
        """Answer the first open challenge; raise CallError with Proxmox's words if it is wrong.

        `page_host` is the host of the page on which a security key has signed.
        """
        challenge, *rest = to.challenges
        userid, name = challenge.factor.userid, challenge.place.name
        if not value or len(value) > LONGEST_SECRET:
            raise BadArgument("code", "is empty or too long.")
        record, client = await self._clusters.for_user(name)
        challenge.place.check(record)
        async with self._counted("second factor", userid, (name,), origin) as source:
            try:
                async with self._attempt("second factor", userid, name, source):
                    ticket = await client.sign_in.with_second_factor(
                        challenge.factor, method, value, page_host=page_host
                    )
            except ProxmoxError as error:
                raise CallError(_failure(name, userid, error)) from error
        realm = challenge.shared_realm
        choice = RealmChoice(realm, (name,), is_shared=bool(realm))
        progress = replace(to, challenges=tuple(rest))
        account = Account(challenge.place, ticket)
        return _signed_in(progress, account, choice, self._clock())

    async def begin_openid(
        self, choice: RealmChoice, redirect_url: str, origin: Origin, to: SignIn, query: str = ""
    ) -> SignIn:
        """Begin a sign-in at the realm's OpenID provider; its URL is in the step's request.

        `query` is the authorization request to go on with, which the step keeps.
        """
        _refuse_second(to, choice.clusters)
        if not await self._begun.take(network_of(origin.address), BEGUN_PER_MINUTE):
            raise TooManyFailures("too many sign-ins were begun from this address", seconds=60)
        name = choice.clusters[0]
        record, client = await self._clusters.for_user(name)
        async with self._queue(name, known=False).turn(network_of(origin.address)):
            try:
                with deadline(SIGN_IN_SECONDS):
                    request = await client.sign_in.openid_request(choice.realm, redirect_url)
            except ProxmoxError as error:
                raise CallError(_outage(name, error)) from error
        return replace(to, openid=OpenIdStep(Place.of(record), choice.realm, query, request))

    async def finish_openid(
        self, to: SignIn, code: str, origin: Origin, refusal: str = ""
    ) -> SignIn:
        """Finish the sign-in that waits at an OpenID provider, with its code or refusal.

        Raise CallError with Proxmox's words when it is refused, and TooManyFailures when it was not
        sent. The account is not known before, so failures count for the address only.
        """
        step = to.openid
        if refusal:
            raise CallError(refusal)
        if step is None or not code:
            raise CallError("The provider's answer does not belong to this browser's sign-in.")
        state = step.request.state
        name = step.place.name
        record, client = await self._clusters.for_user(name)
        step.place.check(record)
        async with self._counted(f"OpenID {state}", "", (name,), origin) as source:
            try:
                async with self._attempt(f"OpenID {state}", "", name, source):
                    ticket = await client.sign_in.with_openid(step.request, state, code)
            except ProxmoxError as error:
                raise CallError(_failure(name, f"a user of {step.realm}", error)) from error
        account = Account(step.place, ticket)
        choice = RealmChoice(step.realm, (name,))
        return _signed_in(replace(to, openid=None), account, choice, self._clock())

    async def groups(self, person: Person) -> dict[str, frozenset[str]]:
        """Return the groups of the user's accounts in Proxmox, by cluster, as far as it says so.

        The user's own account is asked, or else the cluster's default identity.
        """

        async def of(account: Account) -> frozenset[str]:
            for read in (self._own_groups, self._seen_groups):
                try:
                    with deadline(GROUP_SECONDS):
                        return frozenset(await read(account))
                except (ProxmoxError, ServerError):
                    continue
            return frozenset()

        found = await asyncio.gather(*map(of, person.accounts.values()))
        return dict(zip(person.accounts, found, strict=True))

    async def _own_groups(self, account: Account) -> list[str]:
        record, client = await self._clusters.for_user(account.place.name, account.ticket)
        account.place.check(record)
        return (await client.access.user(account.userid)).group_list

    async def _seen_groups(self, account: Account) -> list[str]:
        client = (await self._clusters.connection(account.place.name)).client
        if not isinstance(client, Client):
            return []
        return (await client.access.user(account.userid)).group_list

    async def _realms_of(self, name: str) -> list[Realm] | str:
        """Return the realms of a cluster, or why they are not known."""
        until, answer = self._realms.get(name, (0.0, ""))
        if until > self._monotonic():
            return answer
        try:
            _, client = await self._clusters.for_user(name)
            with deadline(REALM_SECONDS):
                answer = await client.access.realms()
        except (ProxmoxError, ServerError) as error:
            answer = _outage(name, error)
        kept = KEPT_PROBLEM_SECONDS if isinstance(answer, str) else KEPT_SECONDS
        self._realms[name] = (self._monotonic() + kept, answer)
        return answer

    def _is_shared(self, realm: Realm) -> bool:
        names = self._values().shared_realms
        return realm.realm in names and realm.realm not in OWN_REALMS and not realm.is_openid

    def _queue(self, cluster: str, *, known: bool) -> SignInQueue:
        return self._queues.setdefault((cluster, known), SignInQueue(AT_ONCE))

    async def count_failure(self, network: str) -> None:
        """Count a failure of an address; raise TooManyFailures beyond the limit."""
        if not await self._failures.take(network, FAILURES_PER_MINUTE):
            seconds = 60 / FAILURES_PER_MINUTE
            raise TooManyFailures("too many failed sign-ins from this address", seconds=seconds)

    @asynccontextmanager
    async def _counted(
        self, step: str, userid: str, clusters: Iterable[str], origin: Origin
    ) -> AsyncIterator[_Source]:
        """Count a sign-in as a failure of its address, or of a known account, unless it succeeds.

        A browser that is locked for the account, or whose account failed too often, is not known.
        """
        network, account = network_of(origin.address), _digest("known", userid)
        device = self.devices.find(userid, origin.device)
        if device is not None and (
            any([await self._locks.is_locked(_digest(step, userid, n), device) for n in clusters])
            or not await self._failures.take(account, FAILURES_PER_MINUTE)
        ):
            device = None
        if device is None:
            await self.count_failure(network)
        counted = network if device is None else account
        yield _Source(device or network, counted, known=device is not None)
        self._failures.give_back(counted)

    @asynccontextmanager
    async def _attempt(
        self, step: str, userid: str, cluster: str, source: _Source
    ) -> AsyncIterator[None]:
        """Send an attempt to a cluster in its turn there; what Proxmox refuses counts for the lock.

        The lock is that of the account at the cluster, whatever realm of the form leads there.
        """
        account = _digest(step, userid, cluster)
        await self._locks.begin(account, source.counted)
        try:
            async with self._queue(cluster, known=source.known).turn(source.waiting):
                with deadline(SIGN_IN_SECONDS):
                    yield
        except pve.Unauthenticated:
            raise
        except BaseException:
            # stays counted if the database does not answer: the first error says more
            with suppress(StateUnavailable), anyio.CancelScope(shield=True):
                await self._locks.undo(account, source.counted)
            raise
        await self._locks.clear(account, source.counted)


def administrator(session: Session) -> Person:
    """Return the user who has signed in as an administrator of this server."""
    admin = session.admin
    return Person(
        f"admin:{admin.id}",
        admin.name,
        session.verified_at,
        admin_id=admin.id,
        generation=admin.generation,
        admin_session=session.id,
    )


def _choice(realm: Realm, clusters: Iterable[str]) -> RealmChoice:
    return RealmChoice(
        realm.realm,
        tuple(clusters),
        realm.comment or "",
        is_openid=realm.is_openid,
        is_default=realm.default,
    )


def _userid(user: str, realm: str) -> str:
    """Return the account of a user in a realm; the realm may be typed too."""
    name = user.strip().removesuffix(f"@{realm}")
    if not name or len(name) > LONGEST_USER or not name.isprintable():
        raise BadArgument("user", "is the name of the account, without @ and its realm.")
    return f"{name}@{realm}"


def _refuse_second(sign_in: SignIn, clusters: Iterable[str]) -> None:
    """Raise BadArgument for a second account on one cluster: which one counts would be unclear."""
    accounts: Mapping[str, Account] = sign_in.person.accounts if sign_in.person else {}
    for name in clusters:
        if name in accounts:
            raise BadArgument("realm", f"you are signed in on {name} as {accounts[name].userid}.")


def _signed_in(sign_in: SignIn, account: Account, choice: RealmChoice, now: datetime) -> SignIn:
    """Return the sign-in with this account; the first one decides who it is."""
    person = sign_in.person
    if person is None:
        subject = f"cluster:{account.place.id}:{account.userid}"
        if choice.is_shared:
            if not account.userid.endswith(f"@{choice.realm}"):
                raise CallError(f"{account.place.name} signed another account in.")
            subject = f"directory:{choice.realm}:{account.userid}"
        person = Person(subject, account.userid, now)
    return replace(sign_in, person=person.with_account(account))


def _failures(outcomes: Iterable[tuple[str, object]], userid: str) -> list[str]:
    """List what the clusters answered that did not sign the user in; raise what is our fault."""
    texts = []
    for name, outcome in outcomes:
        if isinstance(outcome, ProxmoxError | ServerError):
            texts.append(_failure(name, userid, outcome))
        elif isinstance(outcome, BaseException):
            raise outcome
    return texts


def _failure(name: str, userid: str, error: Exception) -> str:
    if isinstance(error, pve.Unauthenticated):
        return f"{name} refused the sign-in of {userid} ({reason_of(error)})."
    if isinstance(error, TooManyFailures):
        return f"{name} was not sent the sign-in of {userid}: {error}."
    return _outage(name, error)


def _outage(name: str, error: Exception) -> str:
    """Return why a cluster gave no answer, for strangers: without its hosts, which the log has."""
    if isinstance(error, pve.ResponseError):
        return f"{name}: {explain(error)}"
    log.warning("No user can sign in to %s: %s", name, error)
    return f"{name} cannot be reached at present."


def _raise_unsent(outcomes: Sequence[object]) -> None:
    """Raise TooManyFailures, the one that lasts longest, if no cluster was sent the attempt."""
    unsent = [each for each in outcomes if isinstance(each, TooManyFailures)]
    if len(unsent) == len(outcomes):
        raise max(unsent, key=lambda each: each.seconds)


def _digest(*parts: str) -> str:
    """Return a name for the limits: the text in the field of the user may be a password."""
    return sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
