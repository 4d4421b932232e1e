"""Clients: known by a Client ID Metadata Document, or by a registration of their own (RFC 7591)."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from pvemcp_server.access.limits import RateLimiter
from pvemcp_server.errors import OAuthError, OverBudget
from pvemcp_server.networks import network_of
from pvemcp_server.oauth.client_names import cleaned_name
from pvemcp_server.oauth.documents import (
    LONGEST_URL,
    DocumentFetcher,
    Unreachable,
    document_url,
    unusable,
)
from pvemcp_server.oauth.redirects import is_allowed
from pvemcp_server.store import Store
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import OAuthClientRecord

UNUSED_LIFE: Final = timedelta(days=1)  # of a registration without a connection
MOST_UNUSED: Final = 1_000  # clients without a connection
REGISTRATIONS_PER_MINUTE: Final = 10  # of an address
FETCHES_PER_MINUTE: Final = 10  # of documents, for an address
STALE_LIFE: Final = timedelta(days=1)  # of an expired document whose host cannot be reached
FAILED_SECONDS: Final = 60.0  # in which a document that was not usable is not fetched again
MOST_FAILED: Final = 1_000
REGISTER_LIFE: Final = timedelta(minutes=15)  # in which clients register instead
MOST_REDIRECTS: Final = 10
GRANTS: Final = ("authorization_code", "refresh_token")
_SECRETS: Final = ("client_secret_post", "client_secret_basic", "client_secret_jwt")


class Clients:
    """The clients of the embedded authorization server; all are public ones with PKCE."""

    def __init__(
        self,
        store: Store,
        fetcher: DocumentFetcher | None = None,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self.fetcher = fetcher or DocumentFetcher()
        self._clock = clock
        self._registrations = RateLimiter("registrations", store.shared_limits)
        self._fetches = RateLimiter("documents", store.shared_limits)
        self._failed: OrderedDict[str, tuple[float, OAuthError]] = OrderedDict()
        self._read: datetime | None = None  # the last document that could be read
        self._unread: datetime | None = None  # and the last one whose host was out of reach

    @property
    def promises_documents(self) -> bool:
        """Whether clients may name a document; else they register, which needs no Internet.

        Not for REGISTER_LIFE after a host was out of reach, unless this process has read another
        document within a day: strangers who name dead hosts change nothing then.
        """
        now = self._clock()
        reads = self._read is not None and now < self._read + STALE_LIFE
        return reads or self._unread is None or now >= self._unread + REGISTER_LIFE

    async def get(self, client_id: str, address: str = "") -> OAuthClientRecord:
        """Return a client that asks for consent; its document is fetched again when it expired.

        An expired document still counts for a day while its host cannot be reached.

        Raise OAuthError (invalid_client) for an unknown client or a document that is not usable,
        and OverBudget when the address of the request has named too many documents.
        """
        record = await self.find(client_id)
        if document_url(client_id) is None:
            if record is None:
                raise unknown_client()
            return record
        if record is not None and record.expires > self._clock():
            return record
        try:
            return await self._fetched(client_id, address)
        except (Unreachable, OverBudget):
            if record is None or record.expires + STALE_LIFE <= self._clock():
                raise
            return record

    async def find(self, client_id: str) -> OAuthClientRecord | None:
        """Return a client that is known, also by an expired document; None for any other.

        For the token endpoint: a refresh does not depend on the host of the document.
        """
        if len(client_id) > LONGEST_URL:
            return None
        return await self._store.oauth_clients.find(id=client_id)

    async def register(self, metadata: Mapping[str, Any], address: str = "") -> OAuthClientRecord:
        """Register a client; raise OAuthError for its metadata, OverBudget beyond the rate.

        Whatever it asks for, it becomes a public client: the answer says so. The oldest unused
        registrations make room for new ones, so that a flood keeps no other client out.
        """
        if not await self._registrations.take(network_of(address), REGISTRATIONS_PER_MINUTE):
            raise _too_many("registrations")
        checked = checked_metadata(metadata)
        now = self._clock()
        await self._store.oauth_clients.make_room(MOST_UNUSED - 1)
        return await self._store.oauth_clients.add(
            id=f"client-{secrets.token_urlsafe(18)}",
            name=cleaned_name(metadata.get("client_name")),
            is_document=False,
            metadata=checked,
            created=now,
            expires=now + UNUSED_LIFE,
        )

    async def remove_unused(self) -> None:
        """Delete expired clients that no connection names."""
        await self._store.oauth_clients.remove_unused(self._clock())

    async def _fetched(self, url: str, address: str) -> OAuthClientRecord:
        failed = self._failed.get(url)
        if failed is not None and time.monotonic() - failed[0] < FAILED_SECONDS:
            raise failed[1]
        if not await self._fetches.take(network_of(address), FETCHES_PER_MINUTE):
            raise _too_many("metadata documents")
        try:
            document = await self.fetcher.fetch(url, network_of(address))
            self._read = self._clock()
            values = _document_values(url, document.metadata)
        except OAuthError as error:
            if isinstance(error, Unreachable):
                self._unread = self._clock()
                if not error.in_time:
                    raise  # perhaps for the slow names of others
            self._failed[url] = (time.monotonic(), error)
            self._failed.move_to_end(url)
            if len(self._failed) > MOST_FAILED:
                self._failed.popitem(last=False)
            raise
        now = self._clock()
        await self._store.oauth_clients.make_room(MOST_UNUSED - 1)
        return await self._store.oauth_clients.put(
            url, **values, is_document=True, created=now, expires=now + document.life
        )


def checked_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a client's metadata (RFC 7591); raise OAuthError for what is wrong."""
    uris = metadata.get("redirect_uris")
    if not isinstance(uris, list) or not 0 < len(uris) <= MOST_REDIRECTS:
        text = f"redirect_uris must be a list of 1 to {MOST_REDIRECTS} URIs."
        raise OAuthError("invalid_redirect_uri", text)
    for uri in uris:
        if not isinstance(uri, str) or not is_allowed(uri):
            text = "A redirect URI is https, http to loopback, or a native app's own, without #."
            raise OAuthError("invalid_redirect_uri", text)
    grants = _words(metadata, "grant_types", GRANTS)
    if "authorization_code" not in grants:
        raise _wrong("grant_types must include authorization_code.")
    if "code" not in _words(metadata, "response_types", ("code",)):
        raise _wrong("response_types must include code.")
    kind = metadata.get("application_type")
    return {
        "redirect_uris": list(dict.fromkeys(uris)),
        "grant_types": [grant for grant in GRANTS if grant in grants],
        **({"application_type": kind} if kind in ("native", "web") else {}),
    }


def registration_answer(client: OAuthClientRecord) -> dict[str, Any]:
    """Return the response to a registration (RFC 7591, 3.2.1)."""
    return {
        "client_id": client.id,
        "client_id_issued_at": int(client.created.timestamp()),
        "client_name": client.name,
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        **client.metadata,
    }


def unknown_client() -> OAuthError:
    """Return the error after which clients register again (RFC 6749, 5.2)."""
    return OAuthError("invalid_client", "This client is not known (any more): connect again.", 401)


def _document_values(url: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a document's client; raise OAuthError for a document of another."""
    if metadata.get("client_id") != url:
        raise unusable("its client_id is not its URL")
    if not isinstance(metadata.get("client_name"), str):
        raise unusable("it has no client_name")
    method = metadata.get("token_endpoint_auth_method")
    if "client_secret" in metadata or method in _SECRETS:
        raise unusable("it names a secret, which a public document cannot have")
    try:
        checked = checked_metadata(metadata)
    except OAuthError as error:
        raise unusable(error.description.removesuffix(".")) from error
    return {"name": cleaned_name(metadata["client_name"]), "metadata": checked}


def _words(metadata: Mapping[str, Any], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    value = metadata.get(name)
    if value is None:
        return default
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _wrong(f"{name} must be a list of strings.")
    return tuple(value)


def _wrong(text: str) -> OAuthError:
    return OAuthError("invalid_client_metadata", text)


def _too_many(what: str) -> OverBudget:
    return OverBudget(f"Too many {what} from this address.", hint="Wait a minute.", seconds=60)
