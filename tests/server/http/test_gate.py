"""The gate: admission, refusals, and that nothing behind it sees the key."""

import logging
import math
from dataclasses import replace

import anyio
import httpx2 as httpx
import pytest

from pvemcp_server.http.exchange import BODY_BYTES
from pvemcp_server.store.key_format import new_secret

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/mcp/{key}", {}),
        ("/mcp/{key}/", {}),
        ("/mcp", {"X-API-Key": "{key}"}),
        ("/mcp", {"Authorization": "Bearer {key}"}),
        ("/mcp", {"Authorization": "bearer   {key}"}),
    ],
    ids=["path", "path with slash", "X-API-Key", "Bearer", "Bearer with blanks"],
)
async def test_the_key_is_taken_from_path_or_headers(served, modern, path, headers):
    modern.path = path.format(key=served.key)
    exchange = {name: value.format(key=served.key) for name, value in headers.items()}
    answer = await modern.send("tools/list", **exchange)
    assert answer.status_code == 200
    assert "ListThings" in answer.text


WRONG_KEYS = [
    ("/mcp/wrong", {}),
    ("/mcp/pvemcp_00000000_x", {}),
    ("/sse/wrong", {}),
    ("/mcp", {"X-API-Key": "wrong"}),
    ("/mcp", {"X-API-Key": "a.b.c"}),
    ("/mcp", {"Authorization": "Bearer wrong"}),
    ("/mcp", {"Authorization": "Bearer pvemcp_00000000_x"}),
]


@pytest.mark.parametrize(("path", "headers"), WRONG_KEYS)
async def test_a_wrong_key_gets_401_that_leads_to_no_sign_in(served, modern, path, headers):
    modern.path = path
    answer = await modern.send("tools/list", **headers)
    nowhere = f"{served.url}/.well-known/oauth-protected-resource/api-key"
    challenge = f'Bearer realm="pvemcp", resource_metadata="{nowhere}"'
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, challenge)
    assert answer.json()["id"] is None
    assert "No valid API key" in answer.json()["error"]["message"]
    led = await served.http.get(nowhere)
    assert led.status_code == 404
    assert "The API key is wrong" in led.json()["error_description"]


@pytest.mark.parametrize(("path", "headers"), [("/mcp", {}), ("/mcp/", {}), *WRONG_KEYS])
async def test_without_connections_no_401_names_oauth_metadata(serving, path, headers):
    async with serving(connections_enabled=False) as served:
        modern = served.modern
        modern.path = path
        answer = await modern.send("tools/list", **headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="pvemcp"'
        assert "resource_metadata" not in str(answer.headers) + answer.text
        assert "No valid API key" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/oauth-protected-resource/mcp/{key}",
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration/mcp/{key}",
        "/mcp/{key}/.well-known/openid-configuration",
    ],
)
async def test_oauth_discovery_gets_404_and_logs_no_key(served, http, path, caplog):
    with caplog.at_level(logging.INFO, "uvicorn.access"):
        answer = await http.get(path.format(key=served.key))
    assert answer.status_code == 404
    assert "API key" in answer.json()["error_description"]
    assert served.key not in caplog.text


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/register"), ("POST", "/token"), ("GET", "/authorize")]
)
async def test_the_oauth_error_that_clients_print_names_the_api_key(http, method, path):
    answer = await http.request(method, path, json={"client_name": "Claude Code"})
    assert answer.status_code == 404
    assert answer.json()["error"] == "invalid_request"
    assert answer.json()["error_description"].startswith("The API key is wrong, expired")


async def test_the_access_log_shows_the_path_without_the_key(served, modern, caplog):
    logging.getLogger("uvicorn.access").setLevel(logging.INFO)  # as a server sets it at its start
    with caplog.at_level(logging.DEBUG):
        await modern.send("tools/list")
        await modern.http.get(f"/admin?key={served.key}")
    paths = [record.args[2] for record in caplog.records if record.name == "uvicorn.access"]
    assert paths == ["/mcp", "/admin?key=***"]
    ours = [record for record in caplog.records if not record.name.startswith("http")]
    assert served.key not in "\n".join(record.getMessage() for record in ours)


async def test_application_code_never_sees_the_secret(served, modern):
    seen = []

    async def spy(scope, receive, send):
        seen.append((scope["path"], scope["raw_path"], scope["headers"], scope["user"].username))
        raise RuntimeError("seen enough")

    gate = replace(served.app.asgi, transports={"/mcp": spy})
    transport = httpx.ASGITransport(gate, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        await client.post("/mcp", headers={"X-API-Key": served.key}, content=b"{}")
    assert seen[0][0] == "/mcp"
    assert seen[0][3] == served.key_id
    assert served.key not in repr(seen)


async def test_blanks_around_header_values_do_not_matter(served, modern):
    head = modern.headers("tools/list")
    body = modern.http.build_request("POST", "/", json=modern.message("tools/list")).content
    lines = [f"POST /mcp/{served.key} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += ["Content-Type: application/json"] + [f"{k}: \t {v} \t " for k, v in head.items()]
    host, port = served.url.removeprefix("http://").split(":")
    with anyio.fail_after(20):
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send("\r\n".join([*lines, "", ""]).encode() + body)
            assert b" 200 OK" in await stream.receive()


async def test_a_body_beyond_256_kib_is_refused(modern):
    answer = await modern.send("tools/call", {"name": "GetThing", "arguments": {"x": "y" * 262144}})
    assert answer.status_code == 413
    assert answer.json()["error"]["message"] == "The body is larger than 256 KiB."


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:8811"}, 421),
        ({"Host": "192.0.2.1:65536"}, 421),
        ({"Host": "[::1]:99999"}, 421),
        ({"Host": "localhost"}, 200),
        ({"Host": "192.0.2.1:8811"}, 200),
        ({"Host": "[::1]:8811"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, 200),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, 403),
        ({"Host": "localhost:1", "Origin": "https://localhost:1"}, 403),
    ],
)
async def test_foreign_hosts_and_origins_are_refused(modern, headers, status):
    assert (await modern.send("tools/list", **headers)).status_code == status


@pytest.fixture
async def cors_served(serving):
    """Start a server that pages of one foreign origin may use."""
    async with serving(origins=("https://chat.example",)) as server:
        yield server


PAGE = {"Origin": "https://chat.example"}


async def test_a_preflight_of_a_configured_origin_needs_no_key(cors_served):
    preflight = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-api-key,mcp-protocol-version",
    }
    answer = await cors_served.http.options("/mcp", headers=PAGE | preflight)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://chat.example"
    allowed = answer.headers["access-control-allow-headers"]
    assert {"x-api-key", "mcp-protocol-version"} <= {
        header.strip() for header in allowed.split(",")
    }
    foreign = await cors_served.http.options(
        "/mcp", headers=preflight | {"Origin": "https://evil.example"}
    )
    assert foreign.status_code == 403
    assert "access-control-allow-origin" not in foreign.headers


async def test_a_configured_origin_can_read_all_responses(cors_served):
    answer = await cors_served.modern.send("tools/list", **PAGE)
    refused = await cors_served.http.post("/mcp", json={}, headers=PAGE)
    assert (answer.status_code, refused.status_code) == (200, 401)
    for response in (answer, refused):
        assert response.headers["access-control-allow-origin"] == "https://chat.example"
        assert "Mcp-Session-Id" in response.headers["access-control-expose-headers"]
    admin = await cors_served.http.get("/admin/sign-in", headers=PAGE)
    assert "access-control-allow-origin" not in admin.headers


async def test_the_website_of_the_server_is_the_admin_site(served, modern):
    discovered = (await modern.send("server/discover")).json()["result"]
    named = discovered["_meta"]["io.modelcontextprotocol/serverInfo"]["websiteUrl"]
    assert named.startswith("http://127.0.0.1")
    answer = await served.http.get("/", follow_redirects=True)
    assert (answer.status_code, answer.url.path) == (200, "/admin/sign-in")


async def test_a_probe_may_use_any_host(http):
    answer = await http.get("/healthz", headers={"Host": "pod-17.cluster.local"})
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_without_its_database_the_endpoint_answers_503(served, modern, monkeypatch):
    def away():
        raise ConnectionError("the database is away")

    watch = served.state.store.watch
    async with watch._lock:  # a poll that is in flight would count as a fresh one
        monkeypatch.setattr(served.state.store.database, "reading", away)
        monkeypatch.setattr(watch, "_polled", -math.inf)
    answer = await modern.send("tools/list")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "database does not answer" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/mcp", "/admin/static/style.css"])
async def test_no_request_without_a_key_polls_the_database_within_half_a_second(
    served, monkeypatch, path
):
    polls = []
    monkeypatch.setattr(served.state.store.watch, "_polled", math.inf)
    monkeypatch.setattr(served.state.store.watch, "_versions", polls.append)
    assert (await served.http.get(path)).status_code in (200, 401)
    assert polls == []


async def test_a_disabled_endpoint_answers_503(served, modern):
    await served.state.settings.change({"enabled": False}, by="test")
    for path in (modern.path, "/mcp/wrong"):
        modern.path = path
        answer = await modern.send("tools/list")
        assert answer.status_code == 503
        assert answer.json()["error"]["message"].startswith("The endpoint is switched off")


async def test_a_refused_attempt_is_recorded_with_its_reason(served, modern):
    await modern.http.post("/mcp/wrong")
    [entry] = await served.recorded()
    assert (entry.kind, entry.tool, entry.reason) == ("refused", "sign in", "malformed key")


async def test_calls_beyond_the_keys_rate_get_429(serving):
    async with serving(calls_per_minute_per_key=2) as served:
        key = {"X-API-Key": served.key}
        answers = [await served.http.post("/mcp", headers=key) for _ in range(3)]
    assert [answer.status_code == 429 for answer in answers] == [False, False, True]
    assert answers[2].headers["Retry-After"] == "30"
    assert answers[2].json()["error"]["message"].startswith("More than 2 calls a minute.")


@pytest.mark.parametrize("path", ["/mcp", "/mcp/wrong", "/sse", "/sse/wrong/messages"])
async def test_refused_calls_beyond_the_addresss_rate_get_429_and_no_record(serving, path):
    async with serving(calls_per_minute_per_address=2) as served:
        answers = [await served.http.post(path) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [401, 401, 429]
        assert answers[2].headers["Retry-After"] == "60"
        assert len(await served.recorded()) == 2


async def test_calls_without_a_key_are_no_failures_of_a_key(serving):
    async with serving(calls_per_minute_per_address=1) as served:
        paths = ("/mcp", "/mcp", "/mcp/wrong", "/mcp/wrong")
        answers = [await served.http.post(path) for path in paths]
    assert [answer.status_code for answer in answers] == [401, 429, 401, 429]


async def test_refusals_at_its_address_hide_no_use_of_a_known_key(serving):
    async with serving(calls_per_minute_per_address=1) as served:
        await served.state.access.keys.change(served.key_id, enabled=False)
        await served.state.store.watch.poll()
        forged = new_secret(served.key_id)
        keys = ("", "wrong", "wrong", forged, forged, served.key, served.key)
        answers = [await served.http.post(f"/mcp/{key}") for key in keys]
        statuses = [401, 401, 429, 401, 429, 401, 429]
        assert [answer.status_code for answer in answers] == statuses
        entry = (await served.recorded())[-1]
        assert (entry.key_id, entry.reason) == (served.key_id, "disabled key")


async def test_strangers_at_its_address_never_refuse_a_valid_key(served, modern):
    """Send 30 keyless and wrong calls for each valid one, beside changes by administrators."""
    other = await served.new_key("other")
    for round_ in range(10):
        for path in ("/mcp", "/sse", "/mcp/wrong") * 10:
            assert (await served.http.post(path)).status_code in (401, 429)
        await served.state.access.keys.create(f"key {round_}")  # empties the cache of keys
        await served.state.store.watch.poll()
        for key in (served.key, other):
            modern.path = f"/mcp/{key}"
            assert (await modern.send("tools/list")).status_code == 200


async def test_concurrent_calls_beyond_the_keys_limit_get_429(serving, fake_tools):
    async with serving(concurrent_calls_per_key=1) as served, anyio.create_task_group() as tasks:
        tasks.start_soon(served.modern.call, "Wait")
        with anyio.fail_after(20):
            await fake_tools.started.wait()
        answer = await served.modern.send("tools/list")
        fake_tools.release.set()
    assert answer.status_code == 429
    assert answer.json()["error"]["message"].startswith("This key has 1 call running already.")


LISTEN = ("Mcp-Method", "subscriptions/listen")
REVISION = "MCP-Protocol-Version"
NO_STREAMS = {
    "in a session": [LISTEN, (REVISION, "2025-11-25")],
    "without a revision": [LISTEN],
    "the second of two methods": [("Mcp-Method", "tools/list"), LISTEN, (REVISION, "2026-07-28")],
    "the second of two revisions": [LISTEN, (REVISION, "2025-11-25"), (REVISION, "2026-07-28")],
}


async def test_no_header_gives_a_call_the_place_of_a_stream(serving, fake_tools):
    async with serving(concurrent_calls_per_key=1) as served, anyio.create_task_group() as tasks:
        tasks.start_soon(served.modern.call, "Wait")
        with anyio.fail_after(20):
            await fake_tools.started.wait()
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        statuses = {
            case: (
                await served.http.post(f"/mcp/{served.key}", json=message, headers=headers)
            ).status_code
            for case, headers in NO_STREAMS.items()
        }
        fake_tools.release.set()
    assert statuses == dict.fromkeys(NO_STREAMS, 429)


async def test_requests_of_a_key_that_a_limit_refuses_are_counted_in_the_audit(serving):
    async with serving(calls_per_minute_per_key=2) as served:
        key = {"X-API-Key": served.key}
        large = {"content": b" " * (BODY_BYTES + 1), "headers": key}
        sent = [await served.http.post("/mcp", **each) for each in (large, large)]
        sent += [await served.http.post("/mcp", headers=key) for _ in range(50)]
        assert [answer.status_code for answer in sent] == [413] * 2 + [429] * 50
        await served.app.endpoint.services.audit.end_minute()
        entries = [(each.key_id, each.tool, each.rows) for each in await served.recorded()]
    assert entries == [(served.key_id, "request", 2), (served.key_id, "request", 50)]


async def test_probes_answer_head_requests(http):
    for path in ("/healthz", "/readyz"):
        answer = await http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


async def test_a_transport_refuses_every_method_that_it_is_not_for(http, served):
    methods = {
        f"/mcp/{served.key}": ("GET", "PUT"),
        f"/sse/{served.key}": ("POST",),
        f"/sse/{served.key}/messages": ("GET",),
    }
    for path, own in methods.items():
        for method in (*own, "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            answer = await http.request(method, path)
            assert (answer.status_code, "Allow" in answer.headers) == (405, True), (method, path)
    assert served.app.endpoint.active_requests.calls == 0
