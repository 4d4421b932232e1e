"""The endpoints of OAuth over HTTP: metadata, registration, tokens, challenges and CORS."""

from unittest.mock import AsyncMock

import pytest

from pvemcp_server.oauth.addresses import OAUTH, OPEN
from pvemcp_server.oauth.redirects import matches
from pvemcp_server.store.key_format import TOKEN_PREFIXES, new_id, new_secret
from pvemcp_server.store.records import TokenKind

from .connected import CLIENT, REDIRECT, code_for, connect, granted

pytestmark = pytest.mark.anyio
PAGE = {"Origin": "https://inspector.example"}
NEW = {"client_name": "Claude Code", "redirect_uris": ["http://127.0.0.1/callback"]}


@pytest.fixture(scope="module")
async def served(anyio_backend, module_serving):
    """Start a server with limits beyond these tests."""
    async with module_serving(calls_per_minute_per_address=10**6) as server:
        server.app.endpoint.services.oauth.clients._registrations.take = AsyncMock(
            return_value=True
        )
        yield server


@pytest.fixture
def tokens(served):
    return served.app.endpoint.services.oauth.tokens


@pytest.fixture
async def connection(served):
    """Connect a client, until the end of the test."""
    made = await connect(served.state.store, name=f"alice {new_id()}", subject=new_id())
    yield made
    await served.state.store.keys.remove(made.id)


def fields(challenge):
    """Return the parameters of a challenge."""
    assert challenge.startswith("Bearer ")
    pairs = challenge.removeprefix("Bearer ").split(", ")
    return {name: value.strip('"') for name, _, value in (pair.partition("=") for pair in pairs)}


async def send(served, token="", path="/mcp", method="tools/list"):
    modern = served.modern
    modern.path = path
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return await modern.send(method, **headers)


@pytest.mark.parametrize("path", ["/mcp", "/sse"])
async def test_a_request_without_credentials_is_led_to_the_sign_in(served, path):
    answer = await send(served, path=path)
    assert answer.status_code == 401
    challenge = fields(answer.headers["WWW-Authenticate"])
    named = f"{served.url}/.well-known/oauth-protected-resource{path}"
    assert challenge == {"resource_metadata": named, "scope": "pve:read pve:write pve:destroy"}
    metadata = (await served.http.get(named)).json()
    assert metadata["resource"] == f"{served.url}{path}"
    assert metadata["authorization_servers"] == [f"{served.url}/oauth"]
    assert metadata["scopes_supported"] == ["pve:read", "pve:write", "pve:destroy"]
    assert metadata["bearer_methods_supported"] == ["header"]


async def test_the_root_form_names_the_endpoint(served):
    metadata = (await served.http.get("/.well-known/oauth-protected-resource")).json()
    assert metadata["resource"] == f"{served.url}/mcp"


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/oauth-authorization-server/oauth",
        "/.well-known/openid-configuration/oauth",
        "/oauth/.well-known/openid-configuration",
    ],
)
async def test_the_metadata_of_the_authorization_server(served, path):
    metadata = (await served.http.get(path)).json()
    issuer = f"{served.url}/oauth"
    assert metadata["issuer"] == issuer
    assert metadata["authorization_endpoint"] == f"{issuer}/authorize"
    for name in ("token", "registration", "revocation"):
        assert metadata[f"{name}_endpoint"].startswith(f"{issuer}/")
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["token_endpoint_auth_methods_supported"] == ["none"]
    assert metadata["response_types_supported"] == ["code"]
    assert metadata["grant_types_supported"] == ["authorization_code", "refresh_token"]
    assert "offline_access" in metadata["scopes_supported"]
    assert metadata["client_id_metadata_document_supported"] is True
    assert metadata["authorization_response_iss_parameter_supported"] is True


async def test_documents_name_the_host_that_was_asked(served):
    host = f"localhost:{served.url.rpartition(':')[2]}"
    answer = await served.http.get(
        "/.well-known/oauth-protected-resource/mcp", headers={"Host": host}
    )
    assert answer.json()["resource"] == f"http://{host}/mcp"


async def test_a_code_leads_to_a_call_and_a_refresh(served, tokens, connection):
    resource = f"{served.url}/mcp"
    code, verifier = await code_for(tokens, connection, resource)
    form = {
        "grant_type": "authorization_code",
        "client_id": CLIENT,
        "code": code,
        "code_verifier": verifier,
        "redirect_uri": REDIRECT,
        "resource": f"{resource}/",
    }
    answer = await served.http.post("/oauth/token", data=form, headers=PAGE)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    given = answer.json()
    assert (given["token_type"], given["scope"]) == ("Bearer", "pve:read")
    assert (await send(served, given["access_token"])).status_code == 200
    form = {
        "grant_type": "refresh_token",
        "client_id": CLIENT,
        "refresh_token": given["refresh_token"],
    }
    renewed = (await served.http.post("/oauth/token", data=form)).json()
    assert (await send(served, renewed["access_token"])).status_code == 200


async def test_a_token_counts_in_the_authorization_header_of_its_endpoint(
    served, tokens, connection
):
    token = (await granted(tokens, connection, f"{served.url}/mcp")).access_token
    assert (await send(served, token)).status_code == 200
    modern = served.modern
    for path, headers in (
        ("/sse", {"Authorization": f"Bearer {token}"}),
        (f"/mcp/{token}", {}),
        ("/mcp", {"X-API-Key": token}),
        ("/mcp", {"Authorization": f"Bearer {token}", "Host": "localhost:1"}),
    ):
        modern.path = path
        answer = await modern.send("tools/list", **headers)
        challenge = fields(answer.headers["WWW-Authenticate"])
        assert (answer.status_code, challenge["error"]) == (401, "invalid_token"), (path, headers)
        assert "/.well-known/oauth-protected-resource/" in challenge["resource_metadata"]
        assert token not in answer.text + str(answer.headers)


@pytest.mark.parametrize(
    "token",
    ["header.payload.signature", new_secret("unknown1", TOKEN_PREFIXES[TokenKind.ACCESS])],
    ids=["JWT", "ours"],
)
async def test_a_refused_token_is_invalid_and_leads_to_the_sign_in(served, token):
    answer = await send(served, token)
    challenge = fields(answer.headers["WWW-Authenticate"])
    assert (answer.status_code, challenge["error"]) == (401, "invalid_token")
    assert challenge["resource_metadata"].endswith("/.well-known/oauth-protected-resource/mcp")


async def test_an_expired_token_is_no_attempt_for_the_audit(served, tokens, connection):
    given = await granted(tokens, connection, f"{served.url}/mcp")
    [token] = await served.state.store.tokens.all(connection_id=connection.id, kind="access")
    await served.state.store.tokens.change(token.id, expires=token.created)
    assert (await send(served, given.access_token)).status_code == 401
    forged = new_secret(token.id, TOKEN_PREFIXES[TokenKind.ACCESS])
    assert (await send(served, forged)).status_code == 401
    reasons = [entry.reason for entry in await served.recorded() if entry.tool == "sign in"]
    assert "wrong secret of an access token" in reasons
    assert "expired access token" not in reasons


FORM = {"grant_type": "refresh_token", "client_id": CLIENT, "refresh_token": "x"}


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({}, 400, "invalid_request"),
        (FORM, 400, "invalid_grant"),
        (FORM | {"client_id": "unknown"}, 401, "invalid_client"),
        (FORM | {"client_id": "x" * 1000}, 401, "invalid_client"),
        (FORM | {"client_id": ""}, 400, "invalid_request"),
        (FORM | {"grant_type": "password"}, 400, "unsupported_grant_type"),
        (FORM | {"resource": "https://evil.example/mcp"}, 400, "invalid_target"),
        (FORM | {"grant_type": "authorization_code"}, 400, "invalid_request"),
        ({**FORM, "client_id": [CLIENT, CLIENT]}, 400, "invalid_request"),
        (FORM | {f"x{n}": "1" for n in range(30)}, 400, "invalid_request"),
        (FORM | {"refresh_token": "\0"}, 400, "invalid_grant"),
    ],
)
async def test_the_token_endpoint_refuses_with_the_codes_of_its_rfc(
    served, connection, form, status, error
):
    answer = await served.http.post("/oauth/token", data=form)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.headers["Cache-Control"] == "no-store"


async def test_the_token_endpoint_takes_short_forms_only(served):
    json = await served.http.post("/oauth/token", json=FORM)
    multipart = await served.http.post("/oauth/token", data=FORM, files={"x": b"y"})
    assert [answer.json()["error"] for answer in (json, multipart)] == ["invalid_request"] * 2
    long = await served.http.post("/oauth/token", data={"code": "x" * 20_000})
    assert long.status_code == 413


async def test_a_registration_becomes_a_public_client(served):
    new = NEW | {"token_endpoint_auth_method": "client_secret_basic", "application_type": "native"}
    answer = await served.http.post("/oauth/register", json=new, headers=PAGE)
    assert answer.status_code == 201
    client = answer.json()
    assert client["token_endpoint_auth_method"] == "none"
    assert "client_secret" not in client
    assert client["redirect_uris"] == new["redirect_uris"]
    assert client["application_type"] == "native"
    stored = await served.state.store.oauth_clients.find(id=client["client_id"])
    assert stored.name == "Claude Code"
    assert matches(stored, REDIRECT)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": "https://x.example/"}, "invalid_redirect_uri"),
        ({"redirect_uris": ["http://evil.example/callback"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://x.example/"] * 11}, "invalid_redirect_uri"),
        ({"grant_types": ["client_credentials"]}, "invalid_client_metadata"),
        ({"grant_types": "authorization_code"}, "invalid_client_metadata"),
        ({"response_types": ["token"]}, "invalid_client_metadata"),
    ],
)
async def test_a_registration_is_refused_with_the_codes_of_its_rfc(served, changes, error):
    answer = await served.http.post("/oauth/register", json=NEW | changes)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_revocation_ends_a_token_at_once(served, tokens, connection):
    given = await granted(tokens, connection, f"{served.url}/mcp")
    assert (await send(served, given.access_token)).status_code == 200
    form = {"client_id": CLIENT, "token": given.refresh_token}
    for _ in range(2):  # an ended token is no error
        answer = await served.http.post("/oauth/revoke", data=form)
        assert (answer.status_code, answer.text) == (200, "")
    await served.state.store.watch.poll()
    assert (await send(served, given.access_token)).status_code == 401


async def test_pages_of_any_origin_call_the_open_paths_and_no_other_ones(served):
    for path in sorted(OAUTH):
        preflight = PAGE | {"Access-Control-Request-Method": "POST"}
        answers = [
            await served.http.options(path, headers=preflight),
            await served.http.get(path, headers=PAGE),
        ]
        for answer in answers:
            allowed = answer.headers.get("Access-Control-Allow-Origin")
            assert allowed == ("*" if path in OPEN else None), path
            assert "Access-Control-Allow-Credentials" not in answer.headers
    assert (await send(served)).status_code == 401
    modern = served.modern
    assert (await modern.send("tools/list", **PAGE)).status_code == 403


@pytest.mark.parametrize(
    ("settings", "status"), [({"connections_enabled": False}, 404), ({"enabled": False}, 503)]
)
async def test_nothing_of_oauth_is_served_while_it_is_switched_off(
    served, tokens, connection, settings, status
):
    token = (await granted(tokens, connection, f"{served.url}/mcp")).access_token
    await served.state.settings.change(settings, by="test")
    try:
        answers = [
            (await served.http.request(method, path)).status_code
            for path in OAUTH
            for method in ("GET", "POST")
        ]
        refused = await send(served, token)
    finally:
        await served.state.settings.change(dict.fromkeys(settings, True), by="test")
    assert set(answers) == {status}
    assert refused.status_code == (401 if status == 404 else 503)
    assert "resource_metadata" not in refused.headers.get("WWW-Authenticate", "")


async def test_refused_requests_are_limited_by_their_address(served, tokens, connection):
    limits = served.state.settings
    await limits.change({"calls_per_minute_per_address": 1}, by="test")
    try:
        answers = [await served.http.post("/oauth/token", data=FORM) for _ in range(3)]
        given = await granted(tokens, connection, f"{served.url}/mcp")
        form = FORM | {"refresh_token": given.refresh_token}
        valid = await served.http.post("/oauth/token", data=form)
    finally:
        await limits.change({"calls_per_minute_per_address": 10**6}, by="test")
    assert {answers[-1].status_code, answers[-2].status_code} == {429}
    assert "Retry-After" in answers[-1].headers
    assert valid.status_code == 200
