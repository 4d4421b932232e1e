"""Tables about the whole cluster: for a scope of everything, and complete as far as they say."""

import json
import sys
from datetime import UTC, datetime

import msgspec
import pytest

from proxmox_client.api import access
from proxmox_client.api.cluster import CephStatus, LogLine
from proxmox_client.emulator.state.user_config import Token
from pvemcp_server.access.model import Resources
from pvemcp_server.tables import accounts, load, tables
from pvemcp_server.tables.ceph import _row as _ceph_row
from pvemcp_server.tables.cluster_log import _line
from pvemcp_server.tables.reach import of_everything
from pvemcp_server.tables.registry import LoadRequest

pytestmark = pytest.mark.anyio

WHOLE = [table.name for table in tables().values() if table.covered is of_everything]
NARROW = {
    "a guest": Resources(vmids=frozenset({101})),
    "all nodes": Resources(nodes=frozenset({"pve01", "pve02", "pve03", "pve04", "pve05"})),
    "a pool": Resources(pools=frozenset({"production"})),
    "both": Resources(pools=frozenset({"production"})) & Resources(nodes=frozenset({"pve01"})),
}
NOW = datetime(2026, 11, 30, tzinfo=UTC)


def rows(name, cluster, request=None):
    return load(tables()[name], cluster, request or LoadRequest())


def test_these_tables_are_about_the_whole_cluster():
    assert sorted(WHOLE) == [
        "acl", "ceph_health", "cluster_log", "firewall_options", "firewall_rules", "tokens",
        "users",
    ]  # fmt: skip


@pytest.mark.parametrize("scope", NARROW)
@pytest.mark.parametrize("name", WHOLE)
async def test_a_role_for_a_part_gets_no_row_note_or_request(open_cluster, pve, name, scope):
    cluster = open_cluster("prod", NARROW[scope])
    fault = pve["prod"].fault("error", path="/", message="asked")
    try:
        assert await rows(name, cluster) == []
    finally:
        pve["prod"].faults.remove(fault)
    assert list(cluster.notes) == []


@pytest.mark.parametrize("name", WHOLE)
async def test_a_role_for_everything_gets_rows(open_cluster, name):
    cluster = open_cluster()
    assert await rows(name, cluster)
    offline = ["Offline on prod, so missing here: pve05."] if "firewall" in name else []
    assert [note for note, kind in cluster.notes.items() if not kind.fact] == offline


async def test_users_have_their_groups_and_state(open_cluster, pve):
    users = {row.userid: row for row in await rows("users", open_cluster())}
    config = pve["prod"].state.user_config
    assert set(users) == set(config.users)
    for userid, row in users.items():
        user = config.users[userid]
        assert (row.realm, row.email) == (user.realm, user.email or None)
        assert row.groups == sorted(user.groups)
        assert row.tokens == len(user.tokens)
        assert (row.enabled, row.active, row.expires) == (True, True, None)
    assert users["alice@pve"].name == "Alice"


async def test_an_expired_or_disabled_user_is_not_active(open_cluster, pve):
    people = pve["prod"].state.user_config.users
    people["bob@pve"].expire, people["carol@pve"].enabled = 1_700_000_000, False
    try:
        users = {row.userid: row for row in await rows("users", open_cluster())}
    finally:
        people["bob@pve"].expire, people["carol@pve"].enabled = 0, True
    bob, carol = users["bob@pve"], users["carol@pve"]
    assert (bob.enabled, bob.active, bob.expires.year) == (True, False, 2023)
    assert (carol.enabled, carol.active, carol.expires) == (False, False, None)


async def test_tokens_of_all_users_have_no_secret(open_cluster, pve):
    ops = pve["prod"].state.user_config.users["ops@pve"]
    ops.tokens["old"] = Token("old", "s3cret-value", expire=1_700_000_000)
    try:
        tokens = {row.token: row for row in await rows("tokens", open_cluster())}
    finally:
        del ops.tokens["old"]
    ansible, old = tokens["ops@pve!ansible"], tokens["ops@pve!old"]
    assert (ansible.userid, ansible.name, ansible.comment) == ("ops@pve", "ansible", "playbooks")
    assert (ansible.privilege_separation, ansible.active) == (False, True)
    assert (old.privilege_separation, old.active, old.expires.year) == (True, False, 2023)
    assert ops.tokens["ansible"].secret not in str(tokens)
    assert "s3cret-value" not in str(tokens)


async def test_the_acl_has_the_privileges_of_its_roles(open_cluster, pve):
    entries = await rows("acl", open_cluster())
    assert {(row.path, row.type, row.holder, row.role, row.propagate) for row in entries} == {
        (entry.path, entry.kind, entry.ugid, entry.role, entry.propagate)
        for entry in pve["prod"].state.user_config.acl
    }
    developers = next(row for row in entries if row.path == "/pool/production")
    assert "VM.Audit" in developers.privileges
    assert "VM.Allocate" not in developers.privileges
    assert developers.members == ["bob@pve", "carol@pve", "dana@corp"]
    assert {row.members is None for row in entries if row.type != "group"} == {True}


async def test_the_acl_without_members_reads_no_users(open_cluster, pve):
    fault = pve["prod"].fault("error", path="/access/users", message="asked")
    try:
        cluster = open_cluster()
        entries = await rows("acl", cluster, LoadRequest(columns=frozenset({"path", "holder"})))
        assert (bool(entries), list(cluster.notes)) == (True, [])
        cluster = open_cluster()
        assert {row.members is None for row in await rows("acl", cluster)} == {True}
        assert "Members of groups of prod are missing" in " ".join(cluster.notes)
    finally:
        pve["prod"].faults.remove(fault)


async def test_the_log_has_the_newest_lines_with_their_severity(open_cluster, pve):
    lines = await rows("cluster_log", open_cluster())
    written = pve["prod"].state.log
    assert len(lines) == len(written) > 20
    newest, last = lines[0], written[-1]
    assert (newest.time, newest.message) == (datetime.fromtimestamp(last.time, UTC), last.text)
    assert {row.severity for row in lines} == {"info", "err"}
    failures = [row for row in lines if "authentication failure" in row.message]
    assert [(row.user, row.severity) for row in failures] == [("root@pam", "err")]


async def test_a_log_that_is_cut_is_noted(open_cluster, monkeypatch):
    monkeypatch.setattr(sys.modules["pvemcp_server.tables.cluster_log"], "MOST", 5)
    cluster = open_cluster()
    assert len(await rows("cluster_log", cluster)) == 5
    assert list(cluster.notes) == ["The log of prod is read as far as its newest 5 lines."]


async def test_the_health_of_ceph_is_in_its_own_words(open_cluster, pve):
    [row] = await rows("ceph_health", open_cluster())
    assert (row.status, row.checks, row.muted) == (
        "HEALTH_WARN", ["OSD_DOWN: 4 osds down on pve05"], [],
    )  # fmt: skip
    assert (row.osds, row.osds_up, row.osds_in, row.pools) == (20, 16, 16, 1)
    assert row.monitors == ["pve01", "pve02", "pve03"]
    storage = pve["prod"].state.storages["ceph-vm"]
    used = storage.used("pve01")
    assert (row.used, row.total, row.available) == (used, storage.total, storage.total - used)


def test_a_muted_check_of_ceph_is_set_apart():
    check = {"severity": "HEALTH_WARN", "muted": True, "summary": {"message": "slow", "count": 2}}
    status = {"health": {"status": "HEALTH_OK", "checks": {"BLUESTORE_SLOW_OP_ALERT": check}}}
    row = _ceph_row(msgspec.convert(status, CephStatus))
    assert (row.status, row.checks, row.muted, row.osds) == (
        "HEALTH_OK", [], ["BLUESTORE_SLOW_OP_ALERT: slow"], None,
    )  # fmt: skip


async def test_a_cluster_without_ceph_says_so(open_cluster):
    cluster = open_cluster("home-lab")
    assert await rows("ceph_health", cluster) == []
    assert list(cluster.notes) == ["Ceph is not installed on home-lab."]


PRIVILEGES = {
    "users": ("/access/groups", "Sys.Audit"),
    "tokens": ("/access/groups", "Sys.Audit"),
    "acl": ("/access", "Sys.Audit"),
    "cluster_log": ("/", "Sys.Syslog"),
}


@pytest.mark.parametrize("name", PRIVILEGES)
async def test_a_list_that_proxmox_filters_names_the_missing_privilege(open_cluster, pve, name):
    config = pve["prod"].state.user_config
    cluster, before = open_cluster(), config.acl
    user = cluster.account.partition("!")[0]
    config.acl = [entry for entry in before if user not in entry.ugid]
    try:
        await rows(name, cluster)
    finally:
        config.acl = before
    path, privilege = PRIVILEGES[name]
    [note] = cluster.notes
    assert f"lacks {privilege} on {path} of prod, so Proxmox lists" in note


@pytest.mark.parametrize("version", ["8.4", "9.1", "9.2", "9.2-more"])
def test_recorded_answers_are_rows(pve_recordings, version):
    made = {"users": [], "tokens": [], "acl": [], "log": []}
    for line in (pve_recordings / f"exchanges-{version}.jsonl").read_text().splitlines():
        exchange = json.loads(line)
        if exchange["method"] != "GET" or exchange["status"] != 200:
            continue
        data = exchange["body"]["data"] if isinstance(exchange["body"], dict) else None
        match exchange["path"]:
            case "/access/users":
                users = msgspec.convert(data, list[access.User], strict=False)
                made["users"] += [accounts._user(user, NOW) for user in users]
                made["tokens"] += [
                    accounts._token(user, token, NOW)
                    for user in users
                    for token in accounts._tokens_of(user)
                ]
            case "/access/acl":
                entries = msgspec.convert(data, list[access.AclEntry], strict=False)
                made["acl"] += [accounts._entry(entry, {}, {}) for entry in entries]
            case "/cluster/log":
                lines = msgspec.convert(data, list[LogLine], strict=False)
                made["log"] += [_line(line) for line in lines]
    assert {row.userid for row in made["users"]} >= {"alice@pve", "mcp@pve", "root@pam"}
    assert all(row.holder and row.role for row in made["acl"])
    assert made["acl"]
    assert {row.severity for row in made["log"]} <= {"info", "err", "warning", "notice"}
    assert all(row.time and row.message for row in made["log"])
    if version == "9.2-more":  # with full=1
        carl = next(row for row in made["users"] if row.userid == "carl@pve")
        assert (carl.enabled, carl.active) == (True, False)
        tokens = {row.token: row for row in made["tokens"]}
        assert tokens["alice@pve!sep"].privilege_separation
        assert not tokens["alice@pve!full"].privilege_separation
        assert not tokens["bob@pve!tt"].active  # a disabled user's
