"""Users of an external authorization server: their connections, and the roles that claims give."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit

from pvemcp_server.access.authentication import Admission
from pvemcp_server.access.model import ANY, EXTERNAL
from pvemcp_server.errors import AccessDenied, IssuerIncomplete
from pvemcp_server.oauth.connections import ClientName, Connections
from pvemcp_server.oauth.issuer import KEPT_SECONDS, TokenVerifier, moment_of
from pvemcp_server.oauth.person import Person
from pvemcp_server.oauth.scopes import Scope, scopes_in
from pvemcp_server.settings import Values
from pvemcp_server.store import Store, Topic
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import ConnectionRecord, KeyRecord, PersonKind
from pvemcp_server.store.watch import VersionedCache

MOST_TOKENS: Final = 10_000  # that are remembered; a forgotten one is verified again
LONGEST_SUBJECT: Final = 512
LONGEST_NAME: Final = 100
MOST_VALUES: Final = 1_000  # of the claim with the roles


@dataclass(frozen=True, slots=True)
class _Token:
    """What is remembered of a verified token, and the settings that it was verified with."""

    settings: tuple[str, ...]
    audience: str
    person: Person
    client: ClientName
    values: frozenset[str]
    scopes: tuple[Scope, ...]
    expires: datetime
    verified: datetime


@dataclass(frozen=True, slots=True)
class _Rights:
    """What the rules give to a user: one role, on the clusters of the rules that give it."""

    role_id: int
    clusters: tuple[str, ...]


class IssuerUsers:
    """Admits users with tokens of the external authorization server that the settings name.

    A user's first token makes a connection for its client. Rules about claims decide the role; a
    user whom no rule names is refused, and one whose connection an administrator has ended, until
    it is allowed again. The rules are looked at with every token, so a changed one counts at once.
    """

    def __init__(
        self,
        store: Store,
        connections: Connections,
        values: Callable[[], Values],
        public_url: str | None,
        *,
        verifier: TokenVerifier | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._connections = connections
        self._values = values
        self._public_url = public_url
        self._clock = clock
        self.verifier = verifier or TokenVerifier()
        self._tokens: OrderedDict[str, _Token] = OrderedDict()
        self._admitted: VersionedCache[str, Admission] = VersionedCache()
        store.watch.on_change(Topic.ACCESS, self._clear)
        store.watch.on_change(Topic.CLUSTERS, self._clear)

    @property
    def is_configured(self) -> bool:
        """Whether the settings name an external authorization server."""
        return bool(self._values().external_issuer)

    async def admit(self, token: str, resource: str) -> Admission:
        """Return what a token is admitted to; raise AccessDenied if it is not accepted.

        Raise IssuerIncomplete where only the Host of the request would say what it has to be for:
        with it a token for another server could be used here.
        """
        values, now = self._values(), self._clock()
        if values.lacks_audience(self._public_url):
            raise IssuerIncomplete("neither external_audience nor PVEMCP_PUBLIC_URL is set")
        token_id = _id_of(token)
        audience = values.external_audience or resource
        known = self._tokens.get(token_id)
        if known is None or not self._is_current(known, now) or known.audience != audience:
            claims = await self.verifier.verify(
                token, issuer=values.external_issuer, audience={audience}
            )
            known = _token(claims, values, audience, now)
            self._tokens[token_id] = known
            if len(self._tokens) > MOST_TOKENS:
                self._tokens.popitem(last=False)
                self._admitted.clear()
        return await self._admission(token_id, known)

    async def renewed(self, token_id: str, *, expired: bool = False) -> Admission | None:
        """Return what a token that was admitted before is admitted to now; None if to nothing.

        With `expired`, one counts that has run out since.
        """
        known = self._tokens.get(token_id)
        if known is None or known.settings != _settings(self._values()):
            return None
        if known.expires <= self._clock() and not expired:
            return None
        try:
            return await self._admission(token_id, known)
        except AccessDenied:
            return None

    def knows(self, token: str) -> Admission | None:
        """Return the admission of a token that is in use; it is no authentication."""
        token_id = _id_of(token)
        known = self._tokens.get(token_id)
        is_known = known is not None and self._is_current(known, self._clock())
        return self._admitted.get(token_id) if is_known else None

    def _is_current(self, token: _Token, now: datetime) -> bool:
        """Return whether a verified token needs not be verified again."""
        kept = timedelta(seconds=KEPT_SECONDS)
        is_new = token.verified <= now < min(token.verified + kept, token.expires)
        return is_new and token.settings == _settings(self._values())

    async def _admission(self, token_id: str, token: _Token) -> Admission:
        admission = self._admitted.get(token_id)
        if admission is not None:
            return admission
        version = self._admitted.version
        record = await self._connection(token)
        admission = Admission(token_id, record.id, frozenset(token.scopes), token.expires)
        self._admitted.put(token_id, admission, version)
        return admission

    async def _connection(self, token: _Token) -> ConnectionRecord:
        """Return the user's connection with the role that the rules give now."""
        rights = await self._rights(token.values)
        if rights is None:
            raise AccessDenied("no connection rule is for this user of the issuer")
        store, client, subject = self._store, token.client, token.person.subject
        days = timedelta(days=self._values().connection_days)
        now = self._clock()
        record = await store.connections.find(subject=subject, client_id=client.id)
        key = await store.keys.find(id=record.id) if record else None
        if record is None or key is None or _differs(record, key, rights, token, now + days / 2):
            record = await self._connections.follow_issuer(
                token.person,
                client,
                role_id=rights.role_id,
                clusters=rights.clusters,
                scopes=token.scopes,
                expires=now.replace(microsecond=0) + days,
            )
            await store.watch.poll()  # this process forgets the rights that it has cached
        return record

    async def _rights(self, values: Collection[str]) -> _Rights | None:
        """Return what the rules about claims give; the oldest rule that matches names the role."""
        rules = await self._store.person_rules.all(kind=PersonKind.CLAIM)
        matching = [rule for rule in rules if rule.name in values]
        if not matching:
            return None
        role_id = matching[0].role_id
        places = {rule.cluster_id for rule in matching if rule.role_id == role_id}
        if None in places:
            return _Rights(role_id, (ANY,))
        clusters = await self._store.clusters.all()
        return _Rights(role_id, tuple(sorted(each.name for each in clusters if each.id in places)))

    async def _clear(self) -> None:
        self._admitted.clear()


def _differs(
    record: ConnectionRecord, key: KeyRecord, rights: _Rights, token: _Token, until: datetime
) -> bool:
    """Return whether the stored connection has to follow the token or the rules."""
    return (
        (key.role_id, tuple(key.clusters)) != (rights.role_id, rights.clusters)
        or not set(token.scopes) <= set(record.scopes)
        or (key.enabled and key.expires is not None and key.expires < until)
    )


def _token(claims: Mapping[str, Any], values: Values, audience: str, now: datetime) -> _Token:
    """Return what is remembered of a token with these verified claims."""
    issuer, subject = values.external_issuer, str(claims["sub"])
    whole = f"issuer:{issuer}:{subject}"
    if len(whole) > LONGEST_SUBJECT:
        raise AccessDenied("token without a usable sub")
    name = next(iter(claim_values(claims, values.external_user_claim)), "") or subject
    ids = (claim_values(claims, claim) for claim in ("azp", "client_id", "appid"))
    client = _printable(next((values[0] for values in ids if values), ""))
    host = urlsplit(issuer).hostname or issuer
    return _Token(
        settings=_settings(values),
        audience=audience,
        person=Person(whole, _printable(name), utc_now()),
        client=ClientName(client, client, f"{client} ({host})"),
        values=frozenset(claim_values(claims, values.external_role_claim)),
        scopes=tuple(_scopes(claims)),
        expires=datetime.fromtimestamp(moment_of(claims, "exp") or 0, UTC),
        verified=now,
    )


def claim_values(claims: Mapping[str, Any], path: str) -> list[str]:
    """Return the texts of a claim; a dot leads into objects, as in realm_access.roles."""
    value: Any = claims.get(path)
    if value is None:
        value = claims
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
    values = value if isinstance(value, list) else [value]
    return [each for each in values[:MOST_VALUES] if isinstance(each, str) and each]


def _scopes(claims: Mapping[str, Any]) -> list[Scope]:
    """Return the scopes of a token; one that names none of ours may read."""
    texts = [*claim_values(claims, "scope"), *claim_values(claims, "scp")]
    return scopes_in(" ".join(texts)) or [Scope.READ]


def _printable(text: str) -> str:
    return "".join(each for each in text if each.isprintable())[:LONGEST_NAME] or "unnamed"


def _settings(values: Values) -> tuple[str, ...]:
    return (
        values.external_issuer,
        values.external_audience,
        values.external_user_claim,
        values.external_role_claim,
    )


def _id_of(token: str) -> str:
    """Return the id by which a token is remembered; it does not reveal the token."""
    return f"{EXTERNAL}{sha256(token.encode('utf-8', 'surrogatepass')).hexdigest()[:40]}"
