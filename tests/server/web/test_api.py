"""The admin REST API offers what the pages offer, and describes itself."""

import asyncio
import json
import re
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import get_ident

import pytest
from pydantic import TypeAdapter

from proxmox_client import Client
from proxmox_client.emulator.certificates import CertificateAuthority
from proxmox_client.hosts import Host
from pvemcp_server.access.limits import MOST_WAITING
from pvemcp_server.admin import queries
from pvemcp_server.admin.clusters import MOST_HOSTS
from pvemcp_server.admin.operation import operations
from pvemcp_server.audit import Event, Forwarder
from pvemcp_server.errors import BadArgument
from pvemcp_server.store.columns import HIGHEST_ID
from pvemcp_server.store.database import DatabaseFailed
from pvemcp_server.web.api.answers import REFUSALS
from pvemcp_server.web.pages import routers
from pvemcp_server.web.pages.forms import read_json

from .conftest import ADMIN, PASSWORD
from .description import description

pytestmark = pytest.mark.anyio


def test_no_number_of_a_row_is_beyond_what_every_database_compares():
    numbers = [
        (path, parameter["schema"]["maximum"])
        for path, methods in description()["paths"].items()
        for operation in methods.values()
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "path" and parameter["schema"].get("type") == "integer"
    ]
    assert len(numbers) > 2
    assert [(path, most) for path, most in numbers if most > HIGHEST_ID] == []


@pytest.mark.parametrize("failing", ["reading", "writing"])
async def test_a_database_that_fails_is_answered_with_503(front, monkeypatch, failing):
    @asynccontextmanager
    async def full():
        raise DatabaseFailed("database or disk is full")
        yield

    monkeypatch.setattr(front.services.store.database, failing, full)
    api = await front.api("POST", "/keys", json={"name": "laptop"})
    page = await front.http.post("/admin/sign-in", data={"name": ADMIN, "password": PASSWORD})
    for answer in (api, page):
        assert answer.status_code == 503
        assert "cannot be written" in answer.text
        assert answer.headers["Retry-After"] == "5"


async def test_no_request_contacts_more_hosts_than_a_cluster_has(front):
    hosts = [f"192.0.2.{number}" for number in range(MOST_HOSTS + 1)]
    cluster = {"name": "lab", "hosts": hosts, "token_id": "a@pam!b", "token_secret": "secret"}
    requests = [
        ("POST", "/clusters/fingerprints", hosts),
        ("POST", "/clusters/try", cluster),
        ("POST", "/clusters", cluster),
        ("PATCH", "/clusters/lab", {"hosts": hosts}),
    ]
    for method, path, body in requests:
        answer = await front.api(method, path, json=body)
        assert (answer.status_code, "hosts: " in answer.json()["error"]) == (422, True), path


@pytest.mark.parametrize("text", ['["\\ud800"]', '{"\\udfff": 1}'])
def test_a_form_takes_no_json_that_cannot_be_written_again(text):
    with pytest.raises(BadArgument, match="query: has a lone surrogate"):
        read_json("query", text)


def test_every_operation_is_described():
    described = description()
    operations = [
        operation for methods in described["paths"].values() for operation in methods.values()
    ]
    assert len(operations) > 45
    assert [row["operationId"] for row in operations if not row.get("description")] == []
    for operation in operations:
        assert set(map(str, REFUSALS)) <= operation["responses"].keys(), operation["operationId"]


async def endless_body():
    yield b"{"
    await asyncio.Event().wait()


BOUNDS = {
    "an ambiguous path": (400, "//settings", {}),
    "an unreadable body": (400, "/settings", {"content": b'{"a": "\xff"}'}),
    "another origin": (403, "/settings", {"headers": {"Origin": "https://evil.example"}}),
    "a slow body": (408, "/settings", {"content": endless_body()}),
    "a large body": (413, "/settings", {"content": b"[" + b" " * 300_000}),
    "another host": (421, "/settings", {"headers": {"Host": "evil.example"}}),
}


@pytest.mark.parametrize("bound", BOUNDS)
async def test_the_answers_of_the_http_layer_are_described(front, monkeypatch, bound):
    monkeypatch.setattr("pvemcp_server.http.bounded_request.BODY_SECONDS", 0.2)
    status, path, options = BOUNDS[bound]
    headers = {"Content-Type": "application/json", "X-CSRF-Token": front.csrf}
    headers |= options.get("headers", {})
    answer = await front.http.patch(
        f"/admin/api{path}", content=options.get("content", b"{}"), headers=headers
    )
    assert answer.status_code == status
    described = TypeAdapter(REFUSALS[status]["model"])
    assert described.validate_json(answer.content)


ROUTES = [
    (operation.route.method, operation.route.path.replace("{", "").replace("}", ""))
    for operation in operations().values()
    if operation.route
]


async def test_no_operation_runs_without_a_session(stranger):
    for method, path in ROUTES:
        assert (await stranger.api(method, path)).status_code == 401, path


async def test_no_operation_but_a_get_runs_without_the_csrf_token(front):
    for method, path in ROUTES:
        front.csrf = ""
        if method != "GET":
            assert (await front.api(method, path)).status_code == 403, path


async def test_the_description_is_served(front):
    described = (await front.get("/admin/api/openapi.json")).json()
    assert described == description()
    assert described["info"]["title"] == "pvemcp administration"
    assert "/keys/{key}/rights" in described["paths"]


async def test_the_description_needs_a_session(stranger):
    assert (await stranger.get("/admin/api/openapi.json")).status_code == 401


LINK_LOCAL = (
    "[64:ff9b::a9fe:a9fe]",
    *("[64:ff9b:1::a9fe:a9fe]", "[2002:a9fe:a9fe::]"),
    *("169.254.169.254:80", "169.254.1.1", "0xa9fea9fe:80", "2852039166:80", "169.16689662"),
    *("[fe80::1]:80", "[::ffff:169.254.169.254]:80", "[fd00:ec2::254]:80", "100.100.100.200:80"),
    *("192.0.0.192", "168.63.129.16", "[fd20:ce::254]"),
)


async def test_link_local_and_metadata_addresses_are_not_contacted(equipped, monkeypatch):
    async def connect(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(asyncio, "open_connection", connect)
    for host in LINK_LOCAL:
        await check_not_contacted(equipped, host)


async def check_not_contacted(equipped, host):
    token = {"token_id": "a@pve!x", "token_secret": "s"}
    fields = {"name": "x", "hosts": [host], "tls_mode": "insecure", **token}
    change = {"hosts": [host], "token_secrets": {"default": "s"}}
    for method, path, body in (
        ("POST", "/clusters/try", fields),
        ("POST", "/clusters", fields),
        ("PATCH", "/clusters/prod", change),
    ):
        refused = await equipped.api(method, path, json=body)
        assert refused.status_code == 422
        assert "link-local or metadata address" in refused.json()["error"]
    for begin in (
        "tcp",
        "\u00a0tcp",
        "\u2003udp",
        "\t tls",
    ):  # blanks are stripped before it is stored
        syslog = f"{begin}://{Host.parse(host)}"
        refused = await equipped.api("PATCH", "/settings", json={"audit_syslog": syslog})
        assert refused.status_code == 422
        assert "link-local or metadata address" in refused.json()["error"]
    (shown,) = (await equipped.api("POST", "/clusters/fingerprints", json=[host])).json()
    assert "link-local or metadata address" in shown["trouble"]


NO_JSON = [
    rb'{"x": "\ud800"}',
    rb'{"\udfff": 1}',
    rb'{"x": ["a\ud83d"]}',
    b'{"x": NaN}',
    b"[" * 9_999,
]


@pytest.mark.parametrize("body", NO_JSON)
async def test_a_body_that_cannot_be_written_again_is_refused(front, body):
    # Python reads a lone surrogate, and fails later: in the database, an answer or an export
    for path, methods in description()["paths"].items():
        for method in (name for name, route in methods.items() if "requestBody" in route):
            answer = await front.http.request(
                method,
                f"/admin/api{re.sub(r'{.*?}', 'x', path)}",
                content=body,
                headers={"X-CSRF-Token": front.csrf, "Content-Type": "application/json"},
            )
            assert answer.status_code in (400, 422), path
            assert answer.json().keys() == {"error"}
    await front.services.audit.flush()
    assert [entry.tool for entry in await front.services.audit.find()] == ["admin.sign_in"]


async def test_the_own_password_is_not_reset_without_the_present_one(front):
    # a session that was stolen must not become an account that was taken over
    own = await front.api("POST", "/admins/ada/reset-password")
    assert own.status_code == 422
    assert "on the page Password" in own.json()["error"]
    await front.api("POST", "/admins", json={"name": "grace"})
    assert (await front.api("POST", "/admins/grace/reset-password")).status_code == 200


async def test_an_answer_that_breaks_off_does_not_look_complete(front, monkeypatch):
    async def broken(_audit, _which, _turn):
        yield "the first line"
        raise OSError("the database has gone")

    monkeypatch.setattr("pvemcp_server.audit.reader.AuditReader.export_json", broken)
    cookies = "; ".join(f"{name}={value}" for name, value in front.http.cookies.items())
    headers = [(b"host", b"localhost"), (b"cookie", cookies.encode())]
    scope = {"type": "http", "method": "GET", "path": "/admin/api/audit/export.json"}
    scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": ""}
    sent = []

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    with pytest.raises(Exception, match=r"database has gone|unhandled errors"):
        await front.app.asgi({**scope, "headers": headers}, receive, send)
    assert [message.get("more_body") for message in sent] == [None, True]
    names = {name for name, _ in sent[0]["headers"]}
    assert {b"content-security-policy", b"cache-control"} <= names


async def test_a_program_signs_in_creates_a_key_and_signs_out(stranger):
    wrong = await stranger.sign_in(password="wrong")
    assert (wrong.status_code, wrong.json()) == (401, {"error": "Sign in first."})
    assert (await stranger.sign_in()).status_code == 201
    assert (await stranger.api("GET", "/session")).json()["csrf"] == stranger.csrf
    created = await stranger.api("POST", "/keys", json={"name": "backup robot"})
    assert created.status_code == 201
    secret = created.json()["secret"]
    listed = await stranger.api("GET", "/keys")
    assert secret not in listed.text
    assert [key["name"] for key in listed.json()] == ["backup robot"]
    assert (await stranger.api("DELETE", "/session")).status_code == 204
    assert (await stranger.api("GET", "/keys")).status_code == 401


async def test_sessions_are_listed_and_all_others_ended(front):
    first = dict(front.http.cookies)
    await front.sign_in()
    shown = (await front.api("GET", "/admins/ada/sessions")).json()
    assert [session["current"] for session in shown] == [True, False]
    assert shown[0]["agent"].startswith("python-httpx")
    page = (await front.get("/admin/account")).text
    assert "this one" in page
    assert page.count("python-httpx") == 2
    ended = await front.api("POST", "/admins/ada/end-sessions")
    assert ended.json() == {"ended": 1}
    assert len((await front.api("GET", "/admins/ada/sessions")).json()) == 1
    await front.services.audit.flush()
    (entry,) = await front.services.audit.find(limit=1)
    assert (entry.tool, entry.arguments["ended"]) == ("admin.admins.end_sessions", 1)
    front.http.cookies = first
    assert (await front.api("GET", "/admins")).status_code == 401


async def test_a_role_narrows_a_key_and_the_rights_show_it(equipped):
    grants = [{"tools": ["ListVms"], "clusters": ["prod"], "resources": {"tags": ["web"]}}]
    await equipped.api("POST", "/roles", json={"name": "web", "grants": grants})
    await equipped.api("POST", "/keys", json={"name": "k", "role": "web"})
    rights = (await equipped.api("GET", "/keys/k/rights")).json()
    assert [(row["tool"], row["clusters"]) for row in rights] == [
        ("ListVms", {"prod": {"tags": ["web"]}})
    ]
    seen = (await equipped.api("GET", "/tools?key=k")).json()
    assert [tool["name"] for tool in seen] == ["ListVms"]
    still_held = await equipped.api("DELETE", "/roles/web")
    assert (still_held.status_code, "role of k" in still_held.json()["error"]) == (422, True)


async def test_a_role_lists_programs_and_files(equipped):
    grant = {"tools": ["ExecInGuest"], "clusters": ["*"], "resources": {"vmids": [100]}}
    grant |= {"programs": ["df", "uptime"], "files": ["/etc/"]}
    made = await equipped.api("POST", "/roles", json={"name": "inside", "grants": [grant]})
    assert made.json()["grants"] == [grant]
    wrong = {"name": "x", "grants": [{**grant, "programs": [" sh"]}]}
    refused = await equipped.api("POST", "/roles", json=wrong)
    assert (refused.status_code, "grants.0.programs" in refused.text) == (422, True)


@pytest.mark.parametrize("path", ["/clusters", "/clusters/try"])
@pytest.mark.parametrize(
    "wrong",
    [
        {"tls_mode": "pinned", "fingerprints": [":".join(["AB"] * 20)]},
        {"tls_mode": "pinned", "fingerprints": ["no fingerprint"]},
        {"tls_mode": "ca", "ca_pem": "hello"},
    ],
    ids=["SHA-1", "words", "CA"],
)
async def test_a_certificate_that_cannot_be_read_is_named(front, path, wrong):
    fields = {"name": "lab", "hosts": ["127.0.0.1:1"], "token_id": "a@pve!b", "token_secret": "s"}
    refused = await front.api("POST", path, json=fields | wrong)
    assert refused.status_code == 422
    assert list(wrong)[1] in refused.json()["error"]


async def test_a_cluster_is_tried_added_and_examined(front, emulator):
    emulated = emulator["home-lab"]
    token_id, secret = emulated.token
    fields = {"name": "lab", "hosts": emulated.hosts, "token_id": token_id}
    fields |= {
        "token_secret": secret,
        "tls_mode": "pinned",
        "fingerprints": [":".join(["AB"] * 32)],
    }
    refused = await front.api("POST", "/clusters", json=fields)
    assert refused.status_code == 422
    assert secret not in refused.text
    shown = (await front.api("POST", "/clusters/fingerprints", json=emulated.hosts)).json()
    # as `openssl x509 -fingerprint -sha256` prints it
    fields["fingerprints"] = [f"sha256 Fingerprint={row['fingerprint']}" for row in shown]
    tried = await front.api("POST", "/clusters/try", json=fields)
    assert tried.json()["version"].startswith("8.4")
    added = await front.api("POST", "/clusters", json=fields)
    assert added.status_code == 201
    assert secret not in added.text
    (report,) = (await front.api("POST", "/doctor?cluster=lab")).json()
    assert report["account"] == token_id
    assert {"tls", "version", "nodes", "clock", "rights"} == {
        row["topic"] for row in report["findings"]
    }


async def test_the_doctor_reports_lost_quorum(equipped, emulator):
    emulator["prod"].lose_quorum()
    try:
        (report,) = (await equipped.api("POST", "/doctor?cluster=prod")).json()
    finally:
        emulator["prod"].restore_quorum()
    [finding] = [row for row in report["findings"] if row["topic"] == "quorum"]
    assert (finding["level"], finding["fix"]) == ("bad", ["pvecm status"])


async def test_the_doctor_names_missing_privileges_and_the_command_that_adds_them(
    equipped, emulator, new_token
):
    token_id, secret = new_token(
        emulator["prod"], ("/access", "PVEAuditor"), ("/vms", "PVEAuditor")
    )
    user = token_id.partition("!")[0]
    identity = {"name": "narrow", "token_id": token_id, "token_secret": secret}
    await equipped.api("POST", "/clusters/prod/identities", json=identity)
    await equipped.api("POST", "/keys", json={"name": "k"})
    bound = await equipped.api(
        "POST", "/clusters/prod/identities/narrow/bindings", json={"key": "k"}
    )
    assert bound.json()["identities"][1]["bound"] == [{"key": "k", "role": None}]
    (report,) = (await equipped.api("POST", "/doctor?cluster=prod&key=k")).json()
    lacks = {row["text"].split(":")[0]: row["fix"] for row in report["findings"] if row["fix"]}
    assert report["account"] == token_id
    (line,) = lacks["It lacks Sys.Audit on /nodes"]
    assert line == (
        f"pveum acl modify /nodes --users '{user}' --roles PVEAuditor"
        f" && pveum acl modify /nodes --tokens '{token_id}' --roles PVEAuditor"
    )


async def test_the_doctor_asks_for_no_privilege_of_what_is_switched_off(
    equipped, emulator, new_token
):
    token_id, secret = new_token(emulator["prod"], ("/access", "PVEAuditor"))
    identity = {"name": "narrow", "token_id": token_id, "token_secret": secret}
    await equipped.api("POST", "/clusters/prod/identities", json=identity)
    await equipped.api("POST", "/keys", json={"name": "k", "role": "Administrator"})
    bindings = "/clusters/prod/identities/narrow/bindings"
    await equipped.api("POST", bindings, json={"key": "k"})
    for is_on in (False, True):
        await equipped.api("PATCH", "/settings", json={"inside_guests": is_on})
        (report,) = (await equipped.api("POST", "/doctor?cluster=prod&key=k")).json()
        texts = " ".join(row["text"] for row in report["findings"])
        assert ("VM.GuestAgent.Unrestricted on /vms" in texts) == is_on


@pytest.mark.parametrize(
    ("wrong", "topic", "text", "fix"),
    [
        (
            {"fingerprints": [":".join(["AB"] * 32)]},
            "tls",
            "shows another certificate than the pinned one",
            ["pvenode cert info"],
        ),
        ({"hosts": ["127.0.0.2:9"]}, "answer", "Proxmox does not answer", []),
        (None, "answer", "its token is wrong", ["pveum user token list mcp@pve"]),
    ],
    ids=["certificate", "hosts", "token"],
)
async def test_the_doctor_says_why_a_cluster_does_not_answer(
    equipped, emulator, wrong, topic, text, fix
):
    if wrong:
        _, secret = emulator["home-lab"].token
        changes = {**wrong, "token_secrets": {"default": secret}}
        changed = await equipped.api("PATCH", "/clusters/home-lab", json=changes)
        assert changed.status_code == 200
    else:
        token_id, _ = emulator["home-lab"].token
        fields = {"name": "default", "token_id": token_id, "token_secret": "another"}
        await equipped.api("PUT", "/clusters/home-lab/identities", json=fields)
    (report,) = (await equipped.api("POST", "/doctor?cluster=home-lab")).json()
    found = next(row for row in report["findings"] if row["topic"] == topic)
    assert (found["level"], found["fix"]) == ("bad", fix)
    assert text in found["text"]


def count_lines(path: str) -> int:
    return len(Path(path).read_text().splitlines())


async def test_pages_and_doctor_show_how_far_the_audit_is_forwarded(front):
    assert (await front.api("POST", "/doctor")).json() == []
    values = {"audit_file": True, "audit_syslog": "tcp://127.0.0.1:1"}
    await front.api("PATCH", "/settings", json=values)
    forwarder = Forwarder(front.services.store, front.services.audit_receivers)
    assert await forwarder.forward("file")
    assert not await forwarder.forward("syslog")
    syslog, file = (await front.api("GET", "/audit/forwarding")).json()
    assert (syslog["address"], file["waiting"]) == ("tcp://127.0.0.1:1", 0)
    assert "refused" in syslog["error"]
    assert file["address"].endswith("audit.jsonl")
    assert count_lines(file["address"]) == syslog["waiting"]
    (report,) = (await front.api("POST", "/doctor")).json()
    assert report["cluster"] == ""
    assert [finding["level"] for finding in report["findings"]] == ["warn", "ok"]
    page = (await front.get("/admin/audit")).text
    assert "Nothing is waiting." in page
    assert "Last error: Connection refused" in page


async def test_a_stored_secret_is_not_sent_to_other_hosts(equipped, emulator):
    """Replay finding S5: hosts of an attacker, with a listener that records what it is sent."""
    _, secret = emulator["home-lab"].token
    received: list[bytes] = []

    async def listen(reader, writer):
        with suppress(ConnectionError):  # closed after the handshake, to see the certificate only
            received.append(await reader.read(65_536))
        writer.close()

    context = CertificateAuthority("evil").issue("pve1", "127.0.0.1").context
    async with await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context) as listener:
        port = listener.sockets[0].getsockname()[1]
        evil = {"hosts": [f"127.0.0.1:{port}"], "tls_mode": "insecure"}
        tried = {"name": "x", **evil, "token_id": "a@pve!own", "token_secret": "own"}
        await equipped.api("POST", "/clusters/try", json=tried)
        assert b"Authorization: PVEAPIToken=a@pve!own=own" in received[0]
        received.clear()
        refused = await equipped.api("PATCH", "/clusters/home-lab", json=evil)
        assert refused.status_code == 422
        assert "stored secret is sent only where it was given for" in refused.json()["error"]
        store = equipped.services.store
        [lab] = await store.clusters.all(name="home-lab")
        await store.clusters.change(lab.id, **evil)  # as a database writer could
        tested = await equipped.api("POST", "/clusters/home-lab/test")
        assert (tested.status_code, received) == (422, [])
        assert "it is not sent to them" in tested.json()["error"]
        await equipped.api("POST", "/doctor?cluster=home-lab")
    assert b"".join(received) == b""
    assert secret not in tested.text


async def test_a_change_of_hosts_with_the_secret_is_audited_without_it(equipped, emulator):
    emulated = emulator["prod"]
    _, secret = emulated.token
    changes = {"hosts": emulated.hosts[:1], "token_secrets": {"default": secret}}
    changed = await equipped.api("PATCH", "/clusters/prod", json=changes)
    assert (changed.status_code, secret in changed.text) == (200, False)
    assert (await equipped.api("POST", "/clusters/prod/test")).status_code == 200
    await equipped.services.audit.flush()
    (entry,) = await equipped.services.audit.find(limit=1)
    assert entry.arguments == {"hosts": emulated.hosts[:1]}


async def test_the_doctor_without_a_visible_node_checks_the_rest(equipped, monkeypatch):
    async def none(_client):
        return []

    monkeypatch.setattr(Client, "nodes", none)
    (report,) = (await equipped.api("POST", "/doctor?cluster=home-lab")).json()
    topics = {row["topic"]: row["level"] for row in report["findings"]}
    assert topics["nodes"] == "bad"
    assert "rights" in topics


async def test_a_query_is_answered_in_all_formats(equipped):
    asked = {"query": {"from": "nodes", "select": ["node"]}, "cluster": "prod"}
    answer = (await equipped.api("POST", "/queries/run", json=asked)).json()
    assert (answer["columns"][-1], len(answer["rows"])) == ("node", 5)
    assert {row["format"] for row in answer["formats"]} == {
        *("JsonCompact", "JsonNormal", "Toon", "Csv")
    }
    assert answer["tool_call"]["name"] == "ExecuteQuery"
    wrong = await equipped.api("POST", "/queries/run", json={"query": {"from": "gests"}})
    assert "guests" in wrong.json()["error"]


async def test_the_formats_of_a_query_are_written_outside_of_the_event_loop(equipped, monkeypatch):
    # 1,000 rows of 40 columns take half a second
    threads = set()

    def noted(_text):
        threads.add(get_ident())
        return 1

    monkeypatch.setattr(queries, "estimate", noted)
    asked = {"query": {"from": "nodes", "select": ["node"]}, "cluster": "prod"}
    assert (await equipped.api("POST", "/queries/run", json=asked)).status_code == 200
    assert threads
    assert get_ident() not in threads


async def test_settings_are_changed_audited_and_notices_dismissed(front):
    assert (await front.api("PATCH", "/settings", json={"row_cap": 3})).status_code == 422
    assert (await front.api("PATCH", "/settings", json={"row_cap": 30})).status_code == 200
    found = (await front.api("GET", "/audit?tool=admin.settings.change")).json()
    assert found[0]["arguments"] == {"row_cap": 30}
    assert (await front.api("POST", "/audit/verify")).json()["whole"]
    await front.services.store.notices.record("test", "subject", "Look here.")
    (notice,) = (await front.api("GET", "/notices")).json()
    assert (await front.api("DELETE", f"/notices/{notice['id']}")).status_code == 204
    assert (await front.api("GET", "/notices")).json() == []
    (dismissed,) = (await front.api("GET", "/audit?tool=admin.notices.dismiss")).json()
    assert dismissed["arguments"]["message"] == "Look here."


async def test_an_unwritable_audit_can_still_be_read(front, monkeypatch):
    await front.api("PATCH", "/settings", json={"row_cap": 30})
    audit = front.services.audit

    async def fail(_rows):
        raise OSError("disk full")

    monkeypatch.setattr(front.services.store.audit_log, "append", fail)
    await audit.refused(Event(tool="sign in"))
    found = (await front.api("GET", "/audit")).json()
    assert found[0]["tool"] == "admin.settings.change"
    assert (await front.api("POST", "/audit/verify")).json()["whole"]


async def test_every_read_of_the_audit_waits_for_the_turn_of_its_actor(front, monkeypatch):
    # six searches of 10,000 long entries stopped the server for half a minute
    access = front.services.access
    reads = {
        *("/admin/api/audit", "/admin/api/audit/export.json", "/admin/api/audit/export.csv"),
        *("/admin/api/overview/calls", "/admin/api/overview/tools", "/admin/audit/chart"),
        *("/admin/audit", "/admin/audit/entries"),
        *("/admin/audit/entries/1", "/admin/", "/admin/connections", "/admin/api/connections"),
    }
    searching = await _searching(front, monkeypatch)
    assert {"/admin/api/audit", "/admin/connections"} <= searching <= reads
    waits = [("GET", path, access.audit_reads) for path in sorted(reads)]
    for method, path, turns in [*waits, ("POST", "/admin/api/audit/verify", access.verifications)]:
        async with asyncio.TaskGroup() as group, turns.turn(ADMIN):
            waiting = [group.create_task(_take(turns)) for _ in range(MOST_WAITING)]
            await asyncio.sleep(0)
            answer = await front.http.request(method, path, headers={"X-CSRF-Token": front.csrf})
            assert (answer.status_code, answer.headers.get("Retry-After")) == (429, "2"), path
            for task in waiting:
                task.cancel()
    assert (await front.api("GET", "/audit?limit=1001")).status_code == 422


async def _take(turns):
    async with turns.turn(ADMIN):
        pass


async def _searching(front, monkeypatch):
    """Return the paths of pages and of the API whose GET searches the audit."""
    search, searches, found = front.services.store.audit_search, [], set()

    def noted(method):
        def note(*arguments):
            searches.append(method)
            return method(*arguments)

        return note

    for name in ("find", "counts", "calls_of_keys"):
        monkeypatch.setattr(search, name, noted(getattr(search, name)))
    pages = (route.path for router in routers(has_issuer=False) for route in router.routes)
    paths = [*(f"/admin{path}" for path in pages)]
    paths += [f"/admin/api{path}" for path in description()["paths"]]
    for path in (each.replace("{kind}", "json").replace("{seq}", "1") for each in paths):
        searches.clear()
        await front.http.get(path)
        if searches:
            found.add(path)
    monkeypatch.undo()
    return found


async def test_the_error_for_a_wrong_body_does_not_repeat_it(front):
    fields = {"name": "x", "hosts": "h", "token_id": "t", "token_secret": ["very secret"]}
    answer = await front.api("POST", "/clusters", json=fields)
    assert answer.status_code == 422
    assert "token_secret" in answer.json()["error"]
    assert "very secret" not in answer.text


async def test_null_does_not_change_a_field_that_cannot_be_empty(equipped):
    await equipped.api("POST", "/keys", json={"name": "k", "expires": "2031-01-02T00:00:00Z"})
    await equipped.api("PATCH", "/clusters/prod", json={"protected": True})
    before = (await equipped.api("GET", "/keys/k")).json()
    nothing = dict.fromkeys(("name", "role", "clusters", "tools", "allow_from", "enabled"))
    assert (await equipped.api("PATCH", "/keys/k", json=nothing)).json() == before
    cleared = await equipped.api("PATCH", "/keys/k", json={"expires": None})
    assert cleared.json() == {**before, "expires": None}
    cluster = (await equipped.api("GET", "/clusters/prod")).json()
    nothing = dict.fromkeys(cluster.keys() - {"created", "identities", "kind"})
    changed = await equipped.api("PATCH", "/clusters/prod", json=nothing)
    assert changed.json() == cluster
    assert cluster["protected"] is True


@pytest.mark.parametrize("expires", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_an_expiry_out_of_range_names_the_field(front, expires):
    refused = await front.api("POST", "/keys", json={"name": "k", "expires": expires})
    assert (refused.status_code, refused.json()["error"][:9]) == (422, "expires: ")


async def test_an_export_has_the_entries_of_the_search_and_its_page(front):
    for rows in (30, 40):
        await front.api("PATCH", "/settings", json={"row_cap": rows})
    search = "tool=admin.settings.change"
    newest, _ = (await front.api("GET", f"/audit?{search}")).json()
    export = await front.api("GET", f"/audit/export.json?{search}&before={newest['seq']}")
    lines = [json.loads(line) for line in export.text.splitlines()]
    assert [line["arguments"] for line in lines] == [{"row_cap": 30}]


@pytest.fixture
def unwritable_audit(front, monkeypatch):
    async def fail(_rows):
        raise ConnectionError("the database is away")

    monkeypatch.setattr(front.services.audit._log, "append", fail)


@pytest.mark.usefixtures("unwritable_audit")
@pytest.mark.parametrize("kind", ["csv", "json"])
async def test_an_unrecorded_export_is_refused_before_its_first_line(front, kind):
    answer = await front.api("GET", f"/audit/export.{kind}")
    assert answer.status_code == 422
    assert "cannot be recorded" in answer.json()["error"]


@pytest.mark.usefixtures("unwritable_audit")
async def test_an_unrecorded_change_says_that_it_was_made(front):
    answer = await front.api("PATCH", "/settings", json={"enabled": True})
    assert answer.status_code == 422
    assert answer.json()["error"] == (
        "settings.change was done, but it cannot be recorded in the audit. "
        "The server's log says why."
    )
    assert (await front.services.settings.current()).enabled is True
