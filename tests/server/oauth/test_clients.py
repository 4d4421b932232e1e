"""Clients: registrations and documents, their limits, and when they are removed."""

from datetime import timedelta

import pytest
from tests.server.clock import Clock

from pvemcp_server.access import Access
from pvemcp_server.errors import OAuthError, OverBudget
from pvemcp_server.oauth import clients as module
from pvemcp_server.oauth.client_names import UNNAMED
from pvemcp_server.oauth.clients import REGISTRATIONS_PER_MINUTE, UNUSED_LIFE, Clients
from pvemcp_server.oauth.documents import Document, Unreachable
from pvemcp_server.store import Store

from .connected import connect

pytestmark = pytest.mark.anyio
URL = "https://client.example/oauth/metadata.json"
DOCUMENT = {
    "client_id": URL,
    "client_name": "Claude",
    "redirect_uris": ["https://client.example/callback"],
    "token_endpoint_auth_method": "none",
}
BUSY = OverBudget("Too many requests wait already.")
NEW = {"client_name": "Claude Code", "redirect_uris": ["http://localhost/callback"]}


class Host:
    """The host of the document: what it serves, and how often it was asked."""

    def __init__(self):
        self.metadata, self.fetched = DOCUMENT, 0

    async def fetch(self, _url, _source):
        self.fetched += 1
        if isinstance(self.metadata, Exception):
            raise self.metadata
        return Document(self.metadata, timedelta(hours=1))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def clients(store: Store, access: Access, clock, host) -> Clients:
    return Clients(store, host, clock=clock.now)


async def test_a_document_is_fetched_once_until_it_expires(clients, clock, host):
    first = await clients.get(URL)
    assert (first.id, first.name, first.is_document) == (URL, "Claude", True)
    await clients.get(URL)
    assert host.fetched == 1
    clock.time += timedelta(hours=2)
    host.metadata = DOCUMENT | {"client_name": "Claude 2"}
    assert (await clients.get(URL)).name == "Claude 2"
    assert (await clients.find(URL)).name == "Claude 2"


async def test_a_refresh_does_not_depend_on_the_documents_host(clients, clock, host):
    await clients.get(URL)
    clock.time += timedelta(hours=2)
    assert await clients.find(URL)
    assert host.fetched == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"client_id": "https://other.example/x"}, "client_id is not its URL"),
        ({"client_id": URL + "/"}, "client_id is not its URL"),
        ({"client_name": None}, "no client_name"),
        ({"redirect_uris": []}, "redirect_uris"),
        ({"redirect_uris": ["javascript:alert(1)"]}, "redirect URI"),
        ({"client_secret": "x"}, "names a secret"),
        ({"token_endpoint_auth_method": "client_secret_post"}, "names a secret"),
        ({"grant_types": ["implicit"]}, "authorization_code"),
    ],
)
async def test_a_wrong_document_is_refused_and_not_fetched_again(clients, host, changes, reason):
    host.metadata = DOCUMENT | changes
    for _ in range(2):
        with pytest.raises(OAuthError, match=reason) as refused:
            await clients.get(URL)
        assert refused.value.error == "invalid_client"
    assert host.fetched == 1
    assert await clients.find(URL) is None


@pytest.mark.parametrize("error", [Unreachable(OSError()), Unreachable(TimeoutError()), BUSY])
async def test_an_expired_document_counts_for_a_day_while_its_host_is_unreachable(
    clients, clock, host, error
):
    known = await clients.get(URL)
    host.metadata = error
    clock.time = known.expires + timedelta(hours=23)
    assert (await clients.get(URL)).id == URL
    clock.time += timedelta(hours=2)
    with pytest.raises((Unreachable, OverBudget)):
        await clients.get(URL)


async def test_an_expired_document_does_not_outlive_one_that_is_refused(clients, clock, host):
    await clients.get(URL)
    host.metadata = DOCUMENT | {"client_id": "https://other.example/x"}
    clock.time += timedelta(hours=2)
    with pytest.raises(OAuthError, match="client_id"):
        await clients.get(URL)


@pytest.mark.parametrize("error", [Unreachable(OSError()), Unreachable(TimeoutError())])
async def test_clients_register_while_no_document_can_be_read(clients, clock, host, error):
    assert clients.promises_documents
    host.metadata = error
    with pytest.raises(Unreachable):
        await clients.get(URL)
    assert not clients.promises_documents
    clock.time += module.REGISTER_LIFE
    assert clients.promises_documents


async def test_a_dead_host_changes_nothing_for_clients_whose_documents_are_read(
    clients, clock, host
):
    await clients.get(URL)
    host.metadata = Unreachable(OSError())
    with pytest.raises(Unreachable):
        await clients.get(f"{URL}?dead")
    assert clients.promises_documents
    clock.time += timedelta(days=1)
    with pytest.raises(Unreachable):
        await clients.get(f"{URL}?other")
    assert not clients.promises_documents


async def test_a_slow_document_is_fetched_again(clients, host):
    host.metadata = Unreachable(TimeoutError())
    with pytest.raises(OAuthError, match="TimeoutError"):
        await clients.get(URL)
    host.metadata = DOCUMENT
    assert (await clients.get(URL)).id == URL


async def test_no_address_makes_the_server_fetch_without_end(clients, host):
    for number in range(module.FETCHES_PER_MINUTE):
        with pytest.raises(OAuthError):
            await clients.get(f"{URL}?{number}", "192.0.2.1")
    with pytest.raises(OverBudget):
        await clients.get(URL, "192.0.2.1")
    assert host.fetched == module.FETCHES_PER_MINUTE
    assert await clients.get(URL, "192.0.2.2")


async def test_an_unknown_client_has_an_error_of_its_own(clients):
    for unknown in ("client-unknown", "x" * 1000, "\0", ""):
        with pytest.raises(OAuthError) as refused:
            await clients.get(unknown)
        assert (refused.value.error, refused.value.status) == ("invalid_client", 401), unknown


async def test_a_registration_flood_keeps_no_other_client_out(clients, store, monkeypatch):
    monkeypatch.setattr(module, "MOST_UNUSED", 5)
    mine = await clients.register(NEW, "192.0.2.99")
    await connect(store, client_id=mine.id)
    for number in range(20):
        last = await clients.register(NEW, f"192.0.2.{number}")
    assert await clients.find(mine.id)  # it has a connection
    assert await clients.find(last.id)
    assert len(await store.oauth_clients.all()) == 6
    for _ in range(REGISTRATIONS_PER_MINUTE):
        await clients.register(NEW, "2001:db8::1")
    with pytest.raises(OverBudget):
        await clients.register(NEW, "2001:db8::2")  # of the same /64


async def test_an_unused_registration_is_removed(clients, store, clock):
    unused, used = [await clients.register(NEW) for _ in range(2)]
    connection = await connect(store, client_id=used.id)
    clock.time += UNUSED_LIFE + timedelta(seconds=1)
    await clients.remove_unused()
    assert await clients.find(unused.id) is None
    assert await clients.find(used.id)
    await store.keys.remove(connection.id)
    await clients.remove_unused()
    assert await clients.find(used.id) is None


async def test_the_name_of_a_client_is_one_printable_line(clients):
    for name, shown in (
        ("  Claude\n Code ", "Claude Code"),
        ("x" * 500, "x" * 100),
        ("\u202egpj.exe", "gpj.exe"),
        ("\ud800", UNNAMED),
        (None, UNNAMED),
        (7, UNNAMED),
    ):
        assert (await clients.register(NEW | {"client_name": name})).name == shown
