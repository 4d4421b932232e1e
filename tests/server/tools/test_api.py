"""FindApi and CallApi: the rest of Proxmox's API, read within limits."""

import json
from threading import current_thread

import pytest

from proxmox_client.schema import VERSIONS, load
from pvemcp_server.access.model import ANY, NAMED_ONLY, READS, Effect, Grant, Resources
from pvemcp_server.access.roles import BUILT_IN
from pvemcp_server.toolkit.registry import tools
from pvemcp_server.tools.api import call as api
from pvemcp_server.tools.api import mask
from pvemcp_server.tools.api.mask import masked

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("vm rrddata", "/nodes/{node}/qemu/{vmid}/rrddata"),
        ("Container status", "/nodes/{node}/lxc/{vmid}/status"),
        ("/nodes/pve1/dns", "/nodes/{node}/dns"),
        ("/cluster/ha", "/cluster/ha"),
        ("node dns", "/nodes/{node}/dns"),
    ],
)
async def test_a_method_is_found_by_words_or_by_its_path(tool_client, words, path):
    answer = await tool_client("FindApi", words=words, method="GET")
    assert path in answer.column("path")[:3]


async def test_a_found_method_has_parameters_and_privilege(tool_client):
    [row] = (await tool_client("FindApi", words="/nodes/{node}/rrddata", method="GET")).data
    assert row["parameters"].startswith("timeframe:hour|day|week|month")
    assert "cf?:AVERAGE|MAX" in row["parameters"]
    assert row["privilege"] == "Sys.Audit on /nodes/{node}"


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_methods_are_those_of_the_version(tool_client, version):
    answer = await tool_client("FindApi", words="ha", version=version, limit=500)
    known = {(e.method, e.path) for e in load(version).endpoints}
    assert answer.data
    assert {(row["method"], row["path"]) for row in answer.data} <= known
    assert ("/cluster/ha/rules" in answer.column("path")) is (version != "8.4")


async def test_nothing_found_says_so(tool_client):
    answer = await tool_client("FindApi", words="warp drive")
    assert answer.data == []
    assert "No method has all of these words" in answer.notes


async def test_a_path_is_read_with_fields_limit_and_pages(tool_client):
    call = {**PROD, "path": "/nodes/pve01/tasks", "parameters": ["limit=9"]}
    first = await tool_client("CallApi", **call, fields=["upid", "type"], limit=5)
    assert [list(row) for row in first.data] == [["upid", "type"]] * 5
    cursor = first.notes.partition("cursor=")[2].split("\n")[0]
    rest = await tool_client("CallApi", **call, fields=["upid", "type"], limit=5, cursor=cursor)
    assert len(rest.data) == 4
    assert tool_client.audit.events[-1][1].tool == "CallApi"


async def test_objects_and_plain_values_are_rows_too(tool_client):
    [row] = (await tool_client("CallApi", **PROD, path="/version")).data
    assert row["release"] == "9.2"
    [value] = (await tool_client("CallApi", **PROD, path="/cluster/nextid")).data
    assert int(value["value"]) >= 100


async def test_a_long_answer_is_cut_and_masked_beside_other_calls(tool_client, monkeypatch):
    threads = []
    monkeypatch.setattr(api, "MOST_ROWS", 3)
    monkeypatch.setattr(mask, "masked", lambda data: threads.append(current_thread()) or data)
    answer = await tool_client("CallApi", **PROD, path="/nodes/pve01/tasks", fields=["upid"])
    assert len(answer.data) == 3
    assert "The first 3 of" in answer.notes
    assert threads != [current_thread()]


@pytest.mark.parametrize(
    ("data", "rows", "more"),
    [
        ([{f"a{row}-{n}": row for n in range(4)} for row in range(3)], 3, 2),
        ({f"a{n}": n for n in range(50)}, 1, 40),
        ([{"a": 1}, {f"a{n}": n for n in range(10)}, {"a": 2, "z": 3}], 3, 2),
    ],
)
async def test_an_answer_has_a_bounded_number_of_columns(
    tool_client, monkeypatch, data, rows, more
):
    monkeypatch.setattr(api, "MOST_COLUMNS", 10)

    async def raw(*_args, **_parameters):
        return data

    monkeypatch.setattr(tool_client["prod"].pve, "raw", raw)
    answer = await tool_client("CallApi", **PROD, path="/nodes/pve01/dns")
    assert len(answer.data) == rows
    assert len({name for row in answer.data for name in row}) <= 10
    assert f"The first 10 columns; {more} more values are left out." in answer.notes


async def test_a_list_in_a_parameter_is_checked_whole_or_not_at_all(tool_client):
    # what a check on the list did not read would reach Proxmox all the same
    path = {"path": "/nodes/pve01/qemu/101/config", "method": "PUT"}
    for parameters in (["delete=" + "a," * 1_001], ["delete=" + "a," * 600] * 2):
        error = await tool_client.refused("CallApi", **PROD, **path, parameters=parameters)
        assert "delete has more than 1,000 entries" in error


@pytest.mark.parametrize(
    ("path", "parameters", "error"),
    [
        ("/nodes/pve01/rrddata", [], "parameters: timeframe: property is missing"),
        ("/nodes/pve01/rrddata", ["timeframe=eon"], "parameters: timeframe: value 'eon'"),
        ("/nodes/pve01/dns", {"x": 1}, "parameters: x: property is not defined"),
        ("/nodes/pve01/dns", ["node=pve02"], "parameters: node is in the path already"),
        ("/nodes/pve01/no-such", [], "path: GET /nodes/pve01/no-such does not exist"),
        ("/nodes/pve01/qemu/101/status/start", [], "path: /nodes/pve01/qemu/101/status/start has"),
        ("/nodes/../dns", [], "parameters: node: "),
        ("/nodes/pve01/dns?x=1", [], "path: it has one of the characters"),
        ("/nodes/pve01/dns", ["limit"], "parameters: write 'limit' as name=value."),
        ("/nodes/%2e%2e/dns", [], "path: it has one of the characters"),
    ],
)
async def test_a_call_is_checked_against_the_schema_first(demo_client, path, parameters, error):
    text = await demo_client.refused("CallApi", **PROD, path=path, parameters=parameters)
    assert text.startswith(error), text
    assert set(demo_client.requests("prod")) <= {"GET /version"}


REACHING = [
    *("/nodes/pve01/query-url-metadata", "/nodes/pve01/scan/cifs", "/cluster/acme/tos"),
    *("/nodes/pve01/vncwebsocket", "/nodes/pve01/qemu/101/agent/file-read"),
    *("/nodes/pve01/qemu/101/agent/exec-status", "/nodes/pve01/apt/changelog"),
    *("/nodes/pve01/storage/local/file-restore/download", "/access/ticket"),
]


@pytest.mark.parametrize("path", REACHING)
async def test_what_reaches_further_is_refused(demo_client, path):
    text = await demo_client.refused("CallApi", **PROD, path=path)
    assert text.startswith("CallApi does not read "), text
    assert demo_client.requests("prod") == ["GET /version"]


async def test_a_file_is_not_streamed(demo_client):
    upid = next(iter(demo_client["prod"].emulated.state.tasks))
    path = f"/nodes/pve01/tasks/{upid}/log"
    text = await demo_client.refused("CallApi", **PROD, path=path, parameters=["download=true"])
    assert text.startswith("CallApi does not read ")


@pytest.mark.parametrize("parameters", [{"limit": 2}, ["limit=2"], "limit=2", '{"limit": 2}'])
async def test_parameters_are_read_in_every_form(tool_client, parameters):
    path = "/nodes/pve01/tasks"
    answer = await tool_client("CallApi", **PROD, path=path, parameters=parameters, fields=["upid"])
    assert len(answer.data) == 2


async def test_a_password_is_not_recorded(tool_client):
    given = ["server=a", "password=hush"]
    await tool_client.refused("CallApi", **PROD, path="/nodes/pve01/scan/cifs", parameters=given)
    recorded = tool_client.audit.events[-1][1]
    assert recorded.arguments["parameters"] == ["server=a", "password=***"]


async def test_a_path_parameter_stays_one_segment(demo_client):
    await demo_client(
        "CallApi", **PROD, path="/nodes/pve01/storage/local/content/local:iso/a b.iso"
    )
    asked = demo_client.requests("prod")[-1]
    assert asked == "GET /nodes/pve01/storage/local/content/local%3Aiso%2Fa%20b.iso"


@pytest.mark.parametrize(
    "resources",
    [Resources(vmids=frozenset({101})), Resources(nodes=frozenset({"pve01"}))],
    ids=["guest", "node"],
)
async def test_a_role_for_a_part_of_a_cluster_may_not_call_it(demo_client, resources):
    text = await demo_client.scoped(resources).refused("CallApi", **PROD, path="/version")
    assert text.startswith("CallApi needs the whole of prod, and the role of this key covers a")
    assert demo_client.requests("prod") == []


def test_no_role_gets_it_without_naming_it():
    assert tools().keys() >= NAMED_ONLY
    assert all(tools()[name].reading.reads for name in NAMED_ONLY)
    for name in NAMED_ONLY:
        assert not Grant(frozenset({READS})).gives(name, Effect.READ)
        assert Grant(frozenset({READS, name})).gives(name, Effect.READ)
        assert Grant(frozenset({ANY})).gives(name, Effect.READ)
    roles = {name: grant for name, _, grant in BUILT_IN}
    assert not roles["Read-only"].gives("CallApi", Effect.READ)
    assert not roles["Operator"].gives("CallApi", Effect.READ)


def test_secrets_are_masked_by_name_and_by_form():
    answer = {
        "password": "hush1",
        "subscription": {"key": "pve4p-1234", "status": "active"},
        "pending": [
            {"key": "cipassword", "value": "hush2", "pending": "hush3"},
            {"key": "net0", "value": "virtio=AA:BB"},
        ],
        "env": "A=hush4\0B=hush5",
        "lxc": [["lxc.environment", "C=hush6"]],
        "comment": "api_key=hush7",
        "keys": "x!hush9",
        "webhook": {
            "url": "https://h",
            "header": ["name=A,value=hush10"],
            "body": "hush11",
        },
        "dns": {"plugin": "p", "api": "cf", "data": "CF_Key=hush12"},
        "ceph": [{"name": "mgr/dashboard/password", "value": "hush13"}],
        "mgr/dashboard/key": "hush14",
        "peer": {"preshared-key": "hush15", "wg-psk": "hush16"},
        "tfa": {"totp": ["hush17"], "yubico": ["hush18"]},
        "args": "-object secret,id=a,data=hush19 -smp 2",
        "backup": "env: A=hush20\nlxc.environment: B=hush21\nmemory: 512\n"
        "args: -object secret,id=a,data=hush25 -smp 4\ncipassword: hush26",
        "raw": "[client]\n\tkey = AQBhush22==\nadmin_secret=hush23\nfsid = 0815\n  psk =  hush24",
        "tokenid": "root@pam!x",
        "ticket": None,
        "secret": [{"name": "a", "value": "hush8"}],
    }
    text = json.dumps(masked(answer))
    assert "hush" not in text
    assert "pve4p" not in text
    assert "virtio=AA:BB" in text
    assert "root@pam!x" in text
    assert "-smp 2" in text
    assert "-smp 4" in text
    assert "fsid = 0815" in text
    assert "memory: 512" in text
