"""The admin pages: forms change the state, and pages show it."""

import html
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pvemcp_server.access.grants import grants_from_json
from pvemcp_server.pipeline.pagination import FORMATS, TABLE, estimate
from pvemcp_server.store.records import TlsMode
from pvemcp_server.web import static_files
from pvemcp_server.web.static_files import static_url
from pvemcp_server.web.templates import HERE

REPOSITORY = Path(__file__).parents[3]
pytestmark = pytest.mark.anyio

TEMPLATES = HERE / "templates"


async def last_change(front) -> tuple[str, dict]:
    """Return the newest change in the audit."""
    await front.services.audit.flush()
    (entry,) = await front.services.audit.find(limit=1)
    assert entry.key_name == "ada"
    return entry.tool, dict(entry.arguments)


async def test_every_page_renders_with_clusters_keys_and_calls(equipped):
    await equipped.post("/admin/keys", name="laptop", role="Read-only")
    paths = ["/", "/keys", "/bridge", "/roles", "/roles/new", "/roles/Operator/edit", "/clusters"]
    paths += ["/clusters/new", "/clusters/prod/edit", "/tools", "/query", "/audit", "/settings"]
    paths += [
        "/administrators",
        "/service-tokens",
        "/connections",
        "/connection-rules",
        "/account",
        "/overview/clusters",
        "/overview/clusters/prod",
        "/tools/ListVms",
        "/tools/DeleteBackup",
        "/tools/ListVmRrdData",
    ]
    for path in paths:
        answer = await equipped.get(f"/admin{path}")
        assert answer.status_code == 200, path
        assert "prod" in answer.text or path not in ("/clusters", "/overview/clusters"), path
        assert "Default: ." not in answer.text, path
        assert "`" not in re.sub("<pre.*?</pre>|<[^>]*>", "", answer.text, flags=re.DOTALL), path


async def test_what_strangers_get_opens_no_file(stranger):
    opened, watched = [], [False]

    def note(event, arguments):
        if watched[0] and event == "open":
            opened.append(arguments[0])

    sys.addaudithook(note)  # cannot be removed
    paths = ["/icon.svg", "/version", "/admin/sign-in", *map(static_url, static_files.FILES)]
    for path in paths:  # templates are compiled and modules imported once
        await stranger.get(path)
    watched[0] = True
    answers = [await stranger.get(path) for path in paths]
    watched[0] = False
    assert {answer.status_code for answer in answers} == {200}
    assert opened == []
    types = {
        path: answer.headers["content-type"] for path, answer in zip(paths, answers, strict=True)
    }
    assert types[static_url("style.css")] == "text/css; charset=utf-8"
    assert types[static_url("htmx.min.js")] == "text/javascript; charset=utf-8"


async def test_a_cached_static_file_is_not_sent_again(stranger):
    first = await stranger.get("/admin/static/style.css")
    cached = {"If-None-Match": first.headers["etag"]}
    again = await stranger.get("/admin/static/style.css", headers=cached)
    assert (again.status_code, again.content) == (304, b"")
    assert (await stranger.get("/admin/static/none.css")).status_code == 404


async def test_a_key_is_made_changed_disabled_and_removed(equipped):
    made = await equipped.post(
        "/admin/keys", name="night", role="Operator", **{"clusters[]": "prod"}, expires="2031-01-02"
    )
    secret = re.search(r"pvemcp_\w+", made.text)[0]
    (key,) = await equipped.services.access.keys.all()
    assert key.clusters == ["prod"]
    assert key.expires.isoformat() == "2031-01-02T23:59:59+00:00"
    await equipped.post(
        f"/admin/keys/{key.id}/change",
        name="day",
        role="Read-only",
        tools="ListVms",
        **{"toolsets[]": ["api", "content"]},
    )
    await equipped.post(f"/admin/keys/{key.id}/enabled", enabled="false")
    (changed,) = await equipped.services.access.keys.all()
    assert (changed.name, changed.tools, changed.enabled) == ("day", ["ListVms"], False)
    assert changed.toolsets == ["api", "content"]
    page = await equipped.get("/admin/keys")
    assert "disabled" in page.text
    assert secret not in page.text
    await equipped.post(f"/admin/keys/{key.id}/remove")
    assert await equipped.services.access.keys.all() == []
    assert await last_change(equipped) == ("admin.keys.remove", {"key": key.id, "name": "day"})


async def test_errors_of_a_form_appear_at_the_top_of_the_page(front):
    wrong = await front.post("/admin/keys", name="x", role="Unknown")
    missing = await front.post("/admin/keys")
    strange = await front.post("/admin/keys", name="x", role="Operator", output_format="Xml")
    assert "No role" in wrong.text
    assert "name: Field required" in missing.text
    assert "output_format" in strange.text
    for answer in (wrong, missing, strange):
        assert answer.headers["hx-retarget"] == "#errors"
    assert await front.services.access.keys.all() == []


async def test_a_role_of_two_grants_is_read_back_unchanged(equipped):
    fields = {
        "name": "Two",
        "description": "d",
        "0-tool": ["*:read"],
        "0-reach": "everything",
        "1-tool": ["ChangeVmState"],
        "1-cluster": ["prod"],
        "1-reach": "some",
        "1-vmids": "100, 101",
        "1-tags": "web",
    }
    saved = await equipped.post("/admin/roles", **fields)
    assert saved.headers["hx-redirect"] == "/admin/roles?saved=Two"
    role = await equipped.services.access.roles.get("Two")
    assert role.grants[1].resources.vmids == frozenset({100, 101})
    page = (await equipped.get("/admin/roles/Two/edit")).text
    assert 'value="100 101"' in page
    refused = await equipped.post("/admin/roles", **{**fields, "name": "Three", "1-vmids": "web"})
    assert "vmids: numbers" in refused.text
    narrowed = {"name": "Two", "was": "Two", "0-tool": ["ListVms"], "0-reach": "everything"}
    await equipped.post("/admin/roles", **narrowed)
    assert len((await equipped.services.access.roles.get("Two")).grants) == 1


async def test_a_permission_to_write_is_granted_apart_from_its_tool(equipped):
    fields = {"name": "Api", "0-tool": ["CallApi", "CallApi:write"], "0-reach": "everything"}
    await equipped.post("/admin/roles", **fields)
    page = (await equipped.get("/admin/roles/Api/edit")).text
    assert 'value="CallApi:write" checked data-effect="write"' in page
    assert 'value="CallApi" checked data-effect="named"' in page
    refused = await equipped.post("/admin/roles", **{**fields, "0-tool": ["ListVms:write"]})
    assert "ListVms:write" in refused.text


async def test_programs_and_files_of_a_grant_are_edited_by_lines(equipped):
    fields = {
        "name": "Inside",
        "0-tool": ["ExecInGuest", "ReadGuestFile"],
        "0-reach": "everything",
        "0-programs": "uptime\r\nC:\\Program Files\\a, b.exe\r\n",
        "0-files": "/var/log/\n/etc/hostname",
    }
    await equipped.post("/admin/roles", **fields)
    (grant,) = (await equipped.services.access.roles.get("Inside")).grants
    assert grant.programs == {"uptime", "C:\\Program Files\\a, b.exe"}
    assert grant.files == {"/var/log/", "/etc/hostname"}
    page = (await equipped.get("/admin/roles/Inside/edit")).text
    assert ">C:\\Program Files\\a, b.exe\nuptime</textarea>" in page
    assert "<dd>/etc/hostname, /var/log/</dd>" in (await equipped.get("/admin/roles")).text
    wrong = await equipped.post("/admin/roles", **{**fields, "was": "Inside", "0-files": "../a"})
    assert "grants.0.files" in wrong.text


async def test_a_call_that_asks_can_be_confirmed_on_its_page(equipped):
    for tool, asks in (("ListVms", False), ("ReadGuestFile", True), ("DeleteVm", True)):
        page = (await equipped.get(f"/admin/tools/{tool}")).text
        assert ('name="confirmed"' in page) == asks, tool
        assert ("it changes the cluster" in page) == (tool == "DeleteVm")


async def test_editing_keeps_grants_of_a_removed_cluster(equipped):
    access = equipped.services.access
    key, _ = await access.keys.create("night", clusters=["prod"])
    grant = {"tools": ["*:read"], "clusters": ["prod"], "resources": {"everything": True}}
    await access.roles.create("Prod", grants_from_json([grant]))
    await access.clusters.remove("prod")
    kept = 'value="prod" checked>prod <span class="muted small">(not configured)</span>'
    assert kept in (await equipped.get("/admin/roles/Prod/edit")).text
    assert kept in (await equipped.get(f"/admin/keys/{key.id}/edit")).text


async def test_a_role_of_many_grants_is_saved_completely(equipped):
    fields = {"name": "Many"}
    for index in range(30):
        fields |= {f"{index}-tool": "ListVms", f"{index}-reach": "some", f"{index}-vmids": "100"}
    await equipped.post("/admin/roles", **fields)
    assert len((await equipped.services.access.roles.get("Many")).grants) == 30
    more = await equipped.get("/admin/roles/grant?index=30")
    assert 'name="30-reach"' in more.text


async def test_saving_a_key_keeps_the_hour_of_its_expiry(equipped):
    access, expires = equipped.services.access, datetime(2031, 1, 2, 8, tzinfo=UTC)
    key, _ = await access.keys.create("night", expires=expires)
    same = {"name": "night", "role": "Read-only", "expires": "2031-01-02"}
    await equipped.post(f"/admin/keys/{key.id}/change", **same)
    assert (await access.keys.get("night")).expires == expires
    await equipped.post(f"/admin/keys/{key.id}/change", **{**same, "expires": "2031-01-03"})
    assert (await access.keys.get("night")).expires == datetime(2031, 1, 3, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("vmid", ["--5", "9" * 5_000, "²"])
async def test_an_invalid_number_is_refused_with_its_field(equipped, vmid):
    tried = {"argument-cluster_name": "prod", "argument-vmid": vmid}
    answer = await equipped.post("/admin/tools/GetVmStatus/call", **tried)
    assert "vmid: " in answer.text
    role = {"name": "R", "0-tool": "ListVms", "0-reach": "some", "0-vmids": vmid}
    assert "vmids: numbers" in (await equipped.post("/admin/roles", **role)).text


async def test_a_cluster_is_added_only_when_it_answers(front, emulator):
    emulated = emulator["prod"]
    token_id, secret = emulated.token
    fields = {
        "name": "prod",
        "hosts": emulated.hosts[0],
        "tls_mode": "pinned",
        "token_id": token_id,
        "token_secret": secret,
        "fingerprint": ":".join(["AB"] * 32),
    }
    refused = await front.post("/admin/clusters", **fields)
    assert "Compare it with" in refused.text
    shown = await front.post("/admin/clusters/fingerprints", hosts=emulated.hosts[0])
    fields["fingerprint"] = re.search(r"(?:[0-9A-F]{2}:){31}[0-9A-F]{2}", shown.text)[0]
    assert "The cluster answers" in (await front.post("/admin/clusters/try", **fields)).text
    assert await front.services.access.clusters.all() == []
    added = await front.post("/admin/clusters", **fields)
    assert added.headers["hx-redirect"] == "/admin/clusters"
    assert (await front.services.access.clusters.get("prod")).tls_mode is TlsMode.PINNED
    assert secret not in (await front.get("/admin/clusters/prod/edit")).text


async def test_other_hosts_of_a_cluster_need_its_token_secrets(equipped, emulator):
    emulated = emulator["prod"]
    _, secret = emulated.token
    page = (await equipped.get("/admin/clusters/prod/edit")).text
    assert 'name="token_secret:default"' in page
    fields = {"name": "prod", "hosts": emulated.hosts[0], "tls_mode": "insecure"}
    refused = await equipped.post("/admin/clusters/prod/change", **fields)
    assert "need the secret of each token again" in refused.text
    fields["token_secret:default"] = secret
    changed = await equipped.post("/admin/clusters/prod/change", **fields)
    assert changed.headers["hx-redirect"] == "/admin/clusters"
    assert "prod answers:" in (await equipped.post("/admin/clusters/prod/test")).text


async def test_identities_are_added_bound_and_made_the_default(equipped, emulator):
    token_id, secret = emulator["prod"].token
    fields = {"name": "reader", "token_id": token_id, "token_secret": secret}
    path = "/admin/clusters/prod"
    await equipped.post("/admin/keys", name="laptop", role="Read-only")
    await equipped.post(f"{path}/identities", **fields)
    await equipped.post(f"{path}/bind", identity="reader", holder="key:laptop")
    assert "key laptop" in (await equipped.get("/admin/clusters")).text
    assert "answers" in (await equipped.post(f"{path}/test?identity=reader")).text
    still_bound = await equipped.post(f"{path}/identities/reader/remove")
    assert "bound" in still_bound.text
    await equipped.post(f"{path}/unbind", holder="key:laptop")
    await equipped.post(f"{path}/identities/reader/default")
    found = await equipped.services.access.clusters.identities("prod")
    assert [one.is_default for one in found] == [False, True]


async def test_the_doctor_reports_an_offline_node(equipped):
    page = await equipped.post("/admin/clusters/prod/doctor")
    assert "1 of 5 nodes offline: pve05." in page.text
    assert "Proxmox VE 9.2" in page.text
    rights = re.search(r"The account has (.+)\.\n", page.text)[1].split(", ")
    assert len(rights) == len(set(rights)) > 5


async def test_only_the_sandbox_of_a_view_runs_inline_script(equipped):
    policies = {}
    for path in ("/tools/ListVms", "/tools/ListClusters", "/tools/ListVms/view"):
        answer = await equipped.get(f"/admin{path}")
        assert answer.status_code == 200
        policies[path] = answer.headers["Content-Security-Policy"].split("; ")
    shows, plain, view = policies.values()
    assert set(shows) - set(plain) == {"frame-src 'self'"}
    assert "script-src 'self'" in plain
    assert {"sandbox allow-scripts", "default-src 'none'", "frame-ancestors 'self'"} <= set(view)
    assert not {"connect-src 'self'", "form-action 'self'"} & set(view)
    assert (await equipped.get("/admin/tools/ListClusters/view")).status_code == 404


async def test_a_tried_call_gives_its_view_the_data_of_the_answer(equipped):
    arguments = '{"cluster_name": "prod", "fields": ["name"], "limit": 1}'
    tried = await equipped.post("/admin/tools/ListVms/call", call=arguments)
    assert "<iframe" not in tried.text  # the call of a view is shown by the view itself
    result = json.loads(html.unescape(re.search(r'data-result="([^"]+)"', tried.text)[1]))
    shown = result["structuredContent"]
    assert shown["rows"][0]["name"] == "web-01"
    assert "ChangeVmState" in shown["tools"]
    form = await equipped.post("/admin/tools/ListVms/call", **{"argument-cluster_name": "prod"})
    assert '<iframe sandbox="allow-scripts"' in form.text
    for wrong in ("[]", "{"):
        refused = await equipped.post("/admin/tools/ListVms/call", call=wrong)
        assert "call: " in refused.text


async def test_a_tool_tried_as_a_key_has_the_keys_rights(equipped):
    await equipped.post("/admin/keys", name="prod only", role="Read-only", **{"clusters[]": "prod"})
    (key,) = await equipped.services.access.keys.all()
    tried = await equipped.post("/admin/tools/ListClusters/call", key=key.id)
    assert "prod" in tried.text
    assert "home-lab" not in tried.text
    refused = await equipped.post("/admin/tools/ChangeVmState/call", key=key.id)
    assert "No tool" in refused.text
    await equipped.services.audit.flush()
    (entry,) = [one for one in await equipped.services.audit.find() if one.tool == "ListClusters"]
    assert (entry.key_id, entry.acting) == (key.id, "ada")
    assert "by administrator ada" in (await equipped.get("/admin/audit")).text


async def test_a_destructive_call_asks_for_confirmation_first(equipped):
    guest = {"argument-cluster_name": "home-lab", "argument-vmids": "101"}
    snapshot = {**guest, "argument-snapshot_name": "gone"}
    made = await equipped.post(
        "/admin/tools/CreateVmSnapshot/call", **snapshot, **{"argument-wait": "true"}
    )
    assert "isError" not in made.text
    asked = await equipped.post("/admin/tools/DeleteVmSnapshot/call", **snapshot)
    assert "It needs confirmation" in asked.text
    agreed = await equipped.post("/admin/tools/DeleteVmSnapshot/call", **snapshot, confirmed="yes")
    assert "&#34;success&#34;:true" in agreed.text


async def test_a_confirmation_is_for_the_question_and_configuration_that_were_shown(
    equipped, emulator
):
    def question(page):
        return re.search(r'form="try" name="question" value="(\w+)"', page.text)[1]

    url, changed = "/admin/tools/UpdateVmConfig/call", emulator["home-lab"].state.guests[101]
    call = {f"argument-{k}": v for k, v in {"cluster_name": "home-lab", "vmids": "101"}.items()}
    call |= {"argument-vlan": "7"}
    first = question(await equipped.post(url, **call))
    changed.config["description"] = "changed since"
    changed.touch()
    stale = await equipped.post(url, **call, confirmed="yes", question=first)
    assert "The plan has changed since. It needs confirmation" in stale.text
    assert "tag=7" not in changed.config["net0"]
    agreed = await equipped.post(url, **call, confirmed="yes", question=question(stale))
    assert "&#34;success&#34;:true" in agreed.text
    assert 'name="question"' not in agreed.text


async def test_a_query_shows_rows_formats_and_their_tokens(equipped):
    query = json.dumps({"from": "nodes", "select": ["node", "status"]})
    answer = (await equipped.post("/admin/query/run", query=query, cluster="prod")).text
    assert "5 rows" in answer
    assert answer.count("tokens</span></button>") == 4
    assert "tokens are an estimate" in answer
    assert "node,status" in answer
    wrong = await equipped.post("/admin/query/run", query='{"from": ')
    assert "is not JSON at line 1" in wrong.text


async def test_queries_are_saved_replaced_and_removed(equipped):
    for query in ('{"from": "nodes"}', '{"from": "guests"}'):
        await equipped.post("/admin/query/save", name="All of it", query=query, description="all")
    (saved,) = await equipped.services.store.saved_queries.all()
    assert saved.query == {"from": "guests"}
    assert "All of it" in (await equipped.get("/admin/query?saved=All%20of%20it")).text
    await equipped.post("/admin/query/remove", name="All of it")
    assert await equipped.services.store.saved_queries.all() == []


async def test_an_invalid_query_is_not_saved(equipped):
    query = '{"from": "guests", "select": ["snapshot.name"]}'
    wrong = await equipped.post("/admin/query/save", name="Wrong", query=query)
    assert "Ask from snapshots, each of which leads here by guest; or " in wrong.text
    assert await equipped.services.store.saved_queries.all() == []


async def test_settings_are_changed_together_within_their_bounds(front):
    saved = await front.post("/admin/settings", **await limits(front, row_cap="50"))
    assert "Saved: Row cap" in saved.text
    assert saved.headers["hx-trigger"] == "saved"  # nothing is unsaved any more
    assert (await front.services.settings.current()).row_cap == 50
    assert await last_change(front) == ("admin.settings.change", {"row_cap": 50})
    refused = await front.post("/admin/settings", **await limits(front, row_cap="many"))
    assert "row_cap" in refused.text
    assert (await front.services.settings.current()).row_cap == 50


async def limits(front, **changed: str) -> dict[str, str]:
    """Return the fields of the group Limits, as a browser sends them."""
    page = (await front.get("/admin/settings")).text
    form = page[page.index('id="group-2"') :]
    form = form[: form.index("</section>")]
    return dict(re.findall(r'name="(\w+)"[^>]*? value="([^"]*)"', form)) | changed


async def test_the_doctor_examines_as_the_chosen_key(equipped):
    await equipped.post("/admin/keys", name="laptop", role="Read-only")
    (key,) = await equipped.services.access.keys.all()
    page = (await equipped.post("/admin/clusters/prod/doctor")).text
    assert f'<option value="{key.id}">laptop · Read-only</option>' in page
    assert "of key laptop" not in page
    page = (await equipped.post("/admin/clusters/prod/doctor", key=key.id)).text
    assert "Role Read-only of key laptop grants" in page
    assert f'<option value="{key.id}" selected>' in page


async def test_keys_are_listed_by_name(front):
    for name in ("zoe", "Ada", "ben"):
        await front.post("/admin/keys", name=name, role="Read-only")
    page = (await front.get("/admin/keys")).text
    assert re.findall(r"<strong>(\w+)</strong>", page) == ["Ada", "ben", "zoe"]


async def test_an_unknown_page_is_answered_with_a_page(front):
    answer = await front.get("/admin/nothing")
    assert answer.status_code == 404
    assert "This page does not exist." in answer.text


async def test_times_of_the_audit_are_utc_unless_they_name_a_zone(front):
    await front.post("/admin/keys", name="x", role="Read-only")
    await front.services.audit.flush()
    (entry,) = await front.services.audit.find(limit=1)
    hour = entry.at.replace(second=0, microsecond=0)
    local = f"{hour:%Y-%m-%dT%H:%M}"
    found = (await front.get(f"/admin/audit?since={local}")).text
    assert "admin.keys.create" in found
    assert f'id="since" name="since" type="datetime-local" data-zoned value="{local}"' in found
    assert "admin.keys.create" not in (await front.get(f"/admin/audit?until={local}")).text
    east = (hour + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:00%%2B02:00")
    eastern = (await front.get(f"/admin/audit?since={east}")).text
    assert "admin.keys.create" in eastern
    assert f'data-zoned value="{local}"' in eastern
    answer = await front.api("GET", f"/audit?since={local}:00&tool=admin.keys.create")
    assert len(answer.json()) == 1


async def test_the_audit_filters_and_pages(front):
    for number in range(60):
        await front.services.settings.change({"row_cap": 100 + number}, by="ada")
        await front.post("/admin/query/save", name=f"q{number}", query='{"from": "nodes"}')
    page = (await front.get("/admin/audit?kind=admin&text=queries")).text
    assert page.count("Details of entry") == 50
    older = re.search(r'/admin/audit\?([^"]*before=\d+[^"]*)"', page)[1].replace("&amp;", "&")
    assert (await front.get(f"/admin/audit?{older}")).text.count("Details of entry") == 10
    exported = await front.get("/admin/api/audit/export.csv?tool=admin.queries.save")
    assert exported.text.count("\r\n") == 61
    lines = (
        await front.get("/admin/api/audit/export.json?tool=admin.queries.save")
    ).text.splitlines()
    assert {json.loads(line)["tool"] for line in lines} == {"admin.queries.save"}
    assert "The chain is whole" in (await front.post("/admin/audit/verify")).text


async def test_binaries_are_listed_with_size_and_digest(front):
    folder = front.services.config.state_dir / "downloads"
    folder.mkdir()
    (folder / "pvemcp-bridge-osx-arm64").write_bytes(b"binary")
    page = (await front.get("/admin/bridge")).text
    assert "9a3a45d01531a20e89ac6ae10b0b0beb0492acd7216a368aa062d1a5fecaf9cd" in page
    found = await front.get("/admin/bridge/download/pvemcp-bridge-osx-arm64")
    assert found.content == b"binary"
    assert "attachment" in found.headers["content-disposition"]
    stranger = await front.get("/admin/bridge/download/..%2Fmaster.key")
    assert stranger.status_code == 400  # the gate refuses encoded slashes
    assert (await front.get("/admin/bridge/download/master.key")).status_code == 404


async def test_a_binary_of_the_working_directory_is_not_offered(front, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "dist", tmp_path / "downloads"):
        folder.mkdir(exist_ok=True)
        (folder / "pvemcp-bridge-linux-x64").write_bytes(b"another program")
    download = await front.get("/admin/bridge/download/pvemcp-bridge-linux-x64")
    assert download.status_code == 404
    files = (await front.api("GET", "/bridge")).json()
    offered = [each["name"] for each in files if each["size"] is not None]
    assert offered == ["pvemcp-bridge.mcpb", "pvemcp-bridge.pyz"]


async def test_an_administrator_gets_a_password_to_be_changed_once(front):
    shown = await front.post("/admin/administrators", name="grace")
    password = re.search(r'id="shown-password">([^<]+)<', shown.text)[1]
    assert (await front.services.access.admins.sign_in("grace", password)).must_change
    last = await front.post("/admin/administrators/ada/remove")
    assert "hx-refresh" in last.headers
    assert (await front.get("/admin/")).status_code == 303


def test_the_token_table_of_the_settings_equals_the_docs():
    text = (REPOSITORY / "docs" / "users" / "formats.md").read_text()
    assert f"| VMs × fields | {' | '.join(FORMATS)} |" in text
    for title, *counts in TABLE:
        assert f"| {title} | {' | '.join(f'{one:,}' for one in counts)} |" in text


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("one", 1), ("vmid,name\n100,web", 7), ("1234567", 3), ("internationalisation", 4)],
)
def test_tokens_are_estimated_from_words_digits_and_punctuation(text, tokens):
    assert estimate(text) == tokens


def test_no_form_can_put_what_it_holds_into_a_url():
    """Look at every form: a browser sends one without a method as a query, before htmx has it."""
    folder = Path(static_files.__file__).parent / "templates"
    forms = [
        (file.name, form)
        for file in folder.glob("*.html")
        for form in re.findall(r"<form\b.*?</form>", file.read_text("utf-8"), re.DOTALL)
    ]
    assert len(forms) > 30
    for name, form in forms:
        tag = form[: form.index(">")]
        asks = 'method="get" action=' in tag and "hx-" not in tag and "password" not in form
        assert 'method="post"' in tag or asks, (name, tag)


async def test_htmx_takes_over_what_it_has_swapped_in_at_once(equipped):
    # for the default of 20 ms, Enter sends the form without htmx
    page = (await equipped.get("/admin/keys")).text
    assert '"defaultSettleDelay": 0' in page


def test_no_page_repeats_an_id_of_its_layout():
    identified = re.compile(r'\bid="([\w-]+)"')
    own = set(identified.findall((TEMPLATES / "layout.html").read_text("utf-8")))
    assert {"dialog", "main"} < own
    repeated = {
        path.name: sorted(found)
        for path in TEMPLATES.glob("*.html")
        for text in [path.read_text("utf-8")]
        if "{% block body %}" not in text  # which replaces what the layout shows
        and (found := own & set(identified.findall(text)))
    }
    assert repeated == {}
