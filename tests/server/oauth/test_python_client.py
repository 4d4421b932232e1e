"""The Python SDK's OAuth client against the server: from 401 to a call, refresh, end, step-up."""

from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2 as httpx
import pytest
from mcp.client import Client
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

from pvemcp_server.oauth.documents import Document
from pvemcp_server.oauth.scopes import Scope

from .consent import consenting

pytestmark = pytest.mark.anyio
REDIRECT = "http://127.0.0.1:33418/callback"
DOCUMENT = "https://client.example/metadata.json"


class Storage:
    """The tokens and the registration of one client, kept over its runs."""

    def __init__(self):
        self.tokens = self.client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


@pytest.fixture
def consent(served):
    with consenting(served) as consent:
        yield consent


@pytest.fixture
def storage():
    return Storage()


@pytest.fixture
def connect(served, storage):
    """Return how to connect the client, in an era, with the endpoint's path."""

    @asynccontextmanager
    async def connected(mode="auto", path="/mcp", document=None):
        answers = []

        async def open_browser(url):
            answer = await served.http.get(url, follow_redirects=False)
            assert answer.status_code == 303, answer.text
            location = answer.headers["Location"]
            assert location.startswith(f"{REDIRECT}?")
            answers.append({k: v[0] for k, v in parse_qs(urlsplit(location).query).items()})

        async def called_back():
            return AuthorizationCodeResult(**answers.pop())

        provider = OAuthClientProvider(
            f"{served.url}{path}",
            OAuthClientMetadata(redirect_uris=[REDIRECT], client_name="Python SDK"),
            storage,
            open_browser,
            called_back,
            client_metadata_url=document,
        )
        storage.provider = provider
        async with httpx.AsyncClient(auth=provider, timeout=30) as http:
            target = streamable_http_client(f"{served.url}{path}", http_client=http)
            if path == "/sse":
                target, mode = sse_client(f"{served.url}/sse", auth=provider), "legacy"
            with anyio.fail_after(30):
                async with Client(target, mode=mode) as client:
                    yield client

    return connected


async def text_of(client, tool="GetThing"):
    result = await client.call_tool(tool, {"vmid": 101})
    assert not result.is_error, result
    return result.content[0].text


@pytest.mark.parametrize(
    ("mode", "path"), [("auto", "/mcp"), ("legacy", "/mcp"), ("legacy", "/sse")]
)
async def test_from_401_to_a_call(served, consent, storage, connect, fake_tools, mode, path):
    async with connect(mode, path) as client:
        assert '"vmid":101' in await text_of(client)
        assert [tool.name for tool in (await client.list_tools()).tools] == list(fake_tools.tools)
    [asked] = consent.asked
    assert asked["resource"] == f"{served.url}{path}"
    assert asked["code_challenge_method"] == "S256"
    assert set(asked["scope"].split()) == {*Scope, "offline_access"}
    assert storage.client.token_endpoint_auth_method == "none"
    assert storage.tokens.scope == "pve:read"
    entry = [each for each in await served.recorded() if each.tool == "GetThing"][-1]
    assert entry.key_name.startswith("alice via client-")


async def test_a_client_with_a_metadata_document_registers_nothing(
    served, consent, storage, connect
):
    async def fetch(url, _source):
        metadata = {"client_id": url, "client_name": "Claude", "redirect_uris": [REDIRECT]}
        return Document(metadata, timedelta(hours=1))

    served.app.endpoint.services.oauth.clients.fetcher.fetch = fetch
    async with connect(document=DOCUMENT) as client:
        await text_of(client)
    assert storage.client.client_id == DOCUMENT
    [known] = await served.state.store.oauth_clients.all()
    assert (known.id, known.is_document) == (DOCUMENT, True)


async def test_an_expired_token_is_refreshed_without_the_user(served, consent, storage, connect):
    async with connect() as client:
        await text_of(client)
        first, store = storage.tokens, served.state.store
        [token] = await store.tokens.all(kind="access")
        await store.tokens.change(token.id, expires=token.created)
        await served.state.access.authenticator._clear()
        storage.provider.context.token_expiry_time = 1
        await text_of(client)
    assert storage.tokens.refresh_token != first.refresh_token
    assert len(consent.asked) == 1


async def test_an_ended_connection_asks_its_user_again(served, consent, storage, connect):
    async with connect() as client:
        await text_of(client)
        [record] = await served.state.store.connections.all()
        await served.app.endpoint.services.oauth.tokens.end(record.id)
        await served.state.store.watch.poll()
        await text_of(client)
    assert len(consent.asked) == 2


async def test_a_removed_client_registers_again(served, consent, storage, connect):
    async with connect() as client:
        await text_of(client)
    [record] = await served.state.store.connections.all()
    await served.state.store.keys.remove(record.id)
    await served.state.store.oauth_clients.remove(record.client_id)
    await served.state.store.watch.poll()
    storage.client = storage.tokens = None  # as the SDK is used after invalid_client
    async with connect() as client:
        await text_of(client)
    assert storage.client.client_id != record.client_id


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_write_steps_up_to_its_scope(served, consent, storage, connect, fake_tools, mode):
    async with connect(mode) as client:
        await text_of(client)
        assert storage.tokens.scope == "pve:read"
        await text_of(client, "StartThing")
        assert "pve:write" in storage.tokens.scope
        await text_of(client)
    assert fake_tools.done == ["Start thing 101."]
    assert {"pve:read", "pve:write"} <= set(consent.asked[1]["scope"].split())
    assert len(consent.asked) == 2


async def test_an_answer_of_another_issuer_is_no_answer(served, consent, connect):
    consent.forged_issuer = "https://evil.example/oauth"
    with pytest.raises(BaseExceptionGroup) as mixed_up:
        async with connect():
            pass
    errors = mixed_up.value
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    assert isinstance(errors, OAuthFlowError)
    assert await served.state.store.tokens.all(kind="access") == []
