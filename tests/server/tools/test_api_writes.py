"""CallApi with POST, PUT and DELETE: its effect, its plan, its permission, and what it refuses."""

import json
import re
from pathlib import Path
from threading import current_thread
from types import SimpleNamespace

import pytest

from proxmox_client.emulator.state.user_config import AclEntry
from proxmox_client.schema import VERSIONS, load
from pvemcp_server.access.model import ANY, Caller, Effect, Grant, Resources, Role, Toolset
from pvemcp_server.audit.mask import mask
from pvemcp_server.mcp.elicitation import Decision
from pvemcp_server.mcp.tools import visible_tools
from pvemcp_server.pipeline.pipeline import UnknownTool
from pvemcp_server.toolkit.registry import tools
from pvemcp_server.tools.api import effects
from pvemcp_server.tools.api import writes as writes_module
from pvemcp_server.tools.api.call import WRITE
from pvemcp_server.tools.api.writes import labels

from .altered import altered
from .few_guests import few_guests

pytestmark = pytest.mark.anyio

SCENARIO = few_guests

PROD = {"cluster_name": "prod"}
EFFECTS = Path(__file__).parent / "api_effects.txt"
ENDPOINTS = {
    (endpoint.method, endpoint.path): endpoint
    for version in VERSIONS
    for endpoint in load(version).endpoints
    if endpoint.method != "GET"
}
GUESTS_NAMED = {"vms": "101", "vmid": "101"}
DANGEROUS = re.compile(
    r"delete|wipe|destroy|stop|reset|shutdown|reboot|rollback|force|purge|remove|prune|overwrite"
    r"|erase|initgpt|format"
)
# parameters with such a word that lose nothing by themselves
HARMLESS = {
    "force-cpu": "an option of QEMU",
    "format": "of the file of a new disk",
    "reboot": "whether a guest may restart itself",
    "saferemove": "how LVM removes volumes",
    "saferemove-stepsize": "how LVM removes volumes",
    "saferemove_throughput": "how LVM removes volumes",
    "stopwait": "a time",
}
# requests with such a word that lose nothing: none so far
SAFE_REQUESTS: set[str] = set()


def decision(endpoint, parameters):
    if effects.refusal(endpoint, parameters):
        return "refused"
    return effects.effect(endpoint, parameters).value


def sent(client, cluster="prod"):
    return [each for each in client.requests(cluster) if not each.startswith("GET ")]


def writes(client):
    return [each for each in client["prod"].requests if not each.startswith("GET ")]


async def planned(client, method, path, *parameters, **options):
    arguments = {**PROD, "method": method, "path": path, "parameters": list(parameters)}
    return await client("CallApi", **arguments, **options)


def test_every_request_of_every_version_has_a_decided_effect():
    decided = [
        f"{decision(endpoint, GUESTS_NAMED)} {method} {path}"
        for (method, path), endpoint in ENDPOINTS.items()
    ]
    # a new request is looked at by a person, who adds its line
    assert sorted(decided) == EFFECTS.read_text().splitlines()


def test_whatever_sounds_dangerous_is_classed_so():
    for (method, path), endpoint in ENDPOINTS.items():
        if method == "DELETE" or DANGEROUS.search(re.sub(r"\{[^}]*\}", "", path)):
            loses = decision(endpoint, GUESTS_NAMED) in ("destroy", "refused")
            assert loses or path in SAFE_REQUESTS, path


@pytest.mark.parametrize(
    "name",
    sorted(
        {
            name
            for (method, _), endpoint in ENDPOINTS.items()
            for name in endpoint.parameters
            if method != "DELETE" and DANGEROUS.search(name.casefold())
        }
    ),
)
def test_a_parameter_that_sounds_dangerous_makes_any_request_so(name):
    for endpoint in ENDPOINTS.values():
        if name in endpoint.parameters and decision(endpoint, GUESTS_NAMED) != "refused":
            loses = decision(endpoint, {**GUESTS_NAMED, name: "1"}) == "destroy"
            assert loses or name in HARMLESS, endpoint
            before = decision(endpoint, GUESTS_NAMED)
            assert decision(endpoint, {**GUESTS_NAMED, name: "0"}) == before


@pytest.mark.parametrize(
    ("method", "path", "parameters"),
    [
        ("POST", "/nodes/pve01/qemu", {"archive": "x", "force": "1"}),
        ("PUT", "/cluster/ha/resources/vm:101", {"state": "disabled"}),
        ("PUT", "/nodes/pve01/storage/local/content/local:backup/a", {"protected": "0"}),
        ("POST", "/nodes/pve01/lxc/300/migrate", {"target": "pve02", "restart": "1"}),
        ("POST", "/cluster/backup", {"prune-backups": "keep-last=1"}),
        ("PUT", "/pools/production", {"vms": "101", "delete": "1"}),
        ("PUT", "/cluster/metrics/server/a", {"disable": "1"}),
    ],
)
def test_what_parameters_lose_counts(method, path, parameters):
    endpoint, _ = load("9.2").find(method, path)
    assert effects.effect(endpoint, parameters) is Effect.DESTROY
    assert effects.effect(endpoint, {}) is Effect.WRITE


PROTECTING = re.compile(
    r"(?:POST|PUT) (?:/cluster/(?:backup|replication|ha/(?:resources|rules|groups))"
    r"(?:/\{\w+\})?|/nodes/\{node\}/apt/repositories)"
    r"|PUT (?:/pools.*|/cluster/notifications/(?:endpoints|matchers)/.*)"
)
TEXTS = {"comment", "notes-template", "digest", "poolid", "type"}


def test_any_change_of_what_protects_is_asked_about_but_that_of_a_text():
    seen = set()
    for (method, path), endpoint in ENDPOINTS.items():
        if PROTECTING.fullmatch(f"{method} {path}"):
            for name in endpoint.parameters:
                if decision(endpoint, {name: "x"}) != "refused" and f"{{{name}}}" not in path:
                    loses = effects.effect(endpoint, {name: "x"}) is Effect.DESTROY
                    assert loses is (name not in TEXTS), (method, path, name)
                    seen.add(name)
    assert {"schedule", "exclude-path", "allow-move", "state", "enabled", "rate", "vms"} <= seen


def test_every_change_of_a_firewall_is_asked_about():
    for (_, path), endpoint in ENDPOINTS.items():
        if "/firewall/" in path:
            assert effects.effect(endpoint, {}) is Effect.DESTROY, path


REFUSED = [
    ("POST", "/access/users", ["userid=a@pve"], "changes who may do what"),
    ("PUT", "/access/acl", ["path=/", "roles=Administrator", "users=a@pve"], "changes who may"),
    ("PUT", "/access/users/root@pam/token/x", ["comment=y"], "changes who may do what"),
    ("DELETE", "/access/tfa/root@pam/x", [], "changes who may do what"),
    ("POST", "/access/domains", ["realm=abc", "type=ldap"], "changes who may do what"),
    ("POST", "/access/roles", ["roleid=All"], "changes who may do what"),
    ("POST", "/cluster/config/join", ["hostname=a"], "changes who may do what"),
    *(
        ("PUT", "/cluster/options", [parameter], "it changes who may do what")
        for parameter in (
            "webauthn=rp=a,origin=https://a,id=a",
            "u2f=appid=a",
            "user-tag-access=user-allow=free",
            "registered-tags=team",
            "tag-style=case-sensitive=1",
            "delete=keyboard,webauthn",
        )
    ),
    ("POST", "/nodes/pve01/qemu/101/agent/exec", ["command=id"], "runs programs or writes files"),
    ("POST", "/nodes/pve01/qemu/101/agent/file-write", ["file=/a", "content=b"], "runs programs"),
    ("POST", "/nodes/pve01/qemu/101/monitor", ["command=info"], "runs programs or writes files"),
    ("POST", "/nodes/pve01/execute", ["commands=[]"], "runs programs or writes files"),
    ("PUT", "/nodes/pve01/qemu/101/sendkey", ["key=a"], "opens a console or a channel"),
    *(
        ("POST", f"/nodes/pve01/{path}", [], "opens a console or a channel")
        for path in ("termproxy", "vncshell", "spiceshell", "qemu/101/vncproxy", "lxc/300/mtunnel")
    ),
    ("POST", "/nodes/pve01/stopall", [], "without vms it is about every guest"),
    ("POST", "/cluster/bulk-action/guest/start", [], "without vms it is about every guest"),
    ("POST", "/nodes/pve01/vzdump", ["all=1"], "without vmid it is about every guest"),
    ("POST", "/nodes/pve01/startall", ["vms=,"], "without vms it is about every guest"),
    ("POST", "/cluster/bulk-action/guest/start", ["vms="], "without vms it is about every guest"),
    ("POST", "/nodes/pve01/storage/local/download-url", ["url=https://a/b"], "reaches other hosts"),
    ("POST", "/nodes/pve01/qemu/101/remote_migrate", [], "reaches other hosts"),
    *(
        (method, path, [option], "names a disk, a folder or a file of a node")
        for method, path, option in (
            ("POST", "/nodes/pve01/lxc", "mp0=/,mp=/host"),
            ("POST", "/nodes/pve01/lxc", "rootfs=volume=/srv"),
            ("POST", "/nodes/pve01/lxc", "ostemplate=/mnt/a.tar"),
            ("PUT", "/nodes/pve02/lxc/300/config", "mp1=backup=1,volume=/etc,mp=/host"),
            ("PUT", "/nodes/pve02/lxc/300/config", "dev0=/dev/sda"),
            ("POST", "/nodes/pve01/qemu", "ide2=/dev/mapper/pve-vm--101--disk--0"),
            ("POST", "/nodes/pve01/qemu", "archive=/mnt/a.vma"),
            ("PUT", "/nodes/pve01/qemu/101/config", "scsi1=file=/dev/sdb"),
            ("POST", "/nodes/pve01/qemu/101/config", "scsi1=local-zfs:0,import-from=/dev/sdb"),
            ("PUT", "/nodes/pve01/qemu/101/config", "rng0=source=/dev/sda"),
            ("PUT", "/nodes/pve01/qemu/101/config", "serial0=/dev/ttyS0"),
        )
    ),
    ("POST", "/cluster/backup", ["script=/x"], "script names programs that a node runs"),
    ("PUT", "/nodes/pve01/qemu/101/config", ["args=-x"], "args names programs that a node runs"),
]


@pytest.mark.parametrize(("method", "path", "parameters", "reason"), REFUSED)
async def test_some_requests_are_never_sent(tool_client, method, path, parameters, reason):
    tool_client.requests("prod")
    answer = await planned(tool_client, method, path, *parameters)
    assert answer.failed
    assert answer.text.startswith("CallApi does not send ")
    assert reason in answer.text
    assert sent(tool_client) == []


async def test_other_options_of_a_cluster_are_sent_with_consent(tool_client):
    for parameter in ("keyboard=de", "delete=keyboard"):
        answer = await planned(tool_client, "PUT", "/cluster/options", parameter, dry_run=True)
        assert not answer.failed, answer.text


async def test_all_that_is_wrong_is_named_at_once(tool_client):
    path, wrong = "/cluster/ha/rules", ["type=none", "nodez=pve01", "disable=maybe", "rule=1"]
    answer = await planned(tool_client, "POST", path, *wrong, dry_run=True)
    facts = ("disable: type check", "nodez: property is not defined", "resources: property is miss")
    assert all(fact in answer.text for fact in (*facts, "rule: invalid format", "type: value 'no"))
    assert "It takes resources:string rule:string type:node-affinity|resource-aff" in answer.text


async def test_an_unknown_method_of_a_path_names_the_others(tool_client):
    answer = await planned(tool_client, "POST", "/pools/production")
    assert answer.text.startswith(
        "path: /pools/production has GET, PUT, DELETE and no POST in Proxmox VE 9.2."
    )


async def test_a_plan_shows_old_and_new_and_what_proxmox_asks_for(tool_client):
    options = ["memory=4096", "delete=onboot", "description=a=b, c"]
    path = "/nodes/pve01/qemu/101/config"
    tool_client.requests("prod")
    would = (await planned(tool_client, "PUT", path, *options, dry_run=True)).data["would"]
    guest = tool_client["prod"].emulated.state.guests[101]
    assert would.startswith(f"Send PUT {path} to prod: memory '{guest.config['memory']}' → '4096'")
    assert "description 'a=b, c'" in would.replace(f"'{guest.config.get('description')}' → ", "")
    assert f" Guest 101 is {guest.name}." in would
    assert "Proxmox asks for VM.Config.Disk or " in would
    assert " on /vms/101." in would
    assert sent(tool_client) == []


async def test_a_plan_names_the_privilege_that_the_account_lacks(
    open_client, new_token, with_token
):
    async with open_client(few_guests()) as client:
        token = new_token(client["prod"].emulated, ("/", "PVEAuditor"), ("/pool", "PVEPoolAdmin"))
        narrow = await with_token(client, "prod", token)
        rule = ["rule=near", "type=node-affinity", "resources=vm:101", "nodes=pve01"]
        answer = await planned(narrow, "POST", "/cluster/ha/rules", *rule, dry_run=True)
        lacks = f"{token[0]} lacks Sys.Console on /, so Proxmox will refuse this."
        assert lacks in answer.data["would"]
        answer = await planned(narrow, "POST", "/pools", "poolid=new", dry_run=True)
        assert "Proxmox asks for Pool.Allocate on /pool/new." in answer.data["would"]
        assert "lacks" not in answer.text
        client["prod"].emulated.state.user_config.acl.append(
            AclEntry("/pool/other", "token", token[0], "NoAccess")
        )
        answer = await planned(narrow, "POST", "/pools", "poolid=other", dry_run=True)
        assert "lacks Pool.Allocate on /pool/other" in answer.text
        path = "/nodes/pve01/disks/wipedisk"
        answer = await planned(narrow, "PUT", path, "disk=/dev/sdb", dry_run=True)
        assert f"{token[0]} is not root@pam, so Proxmox will refuse this." in answer.text


async def test_a_change_in_between_is_refused_by_its_digest(demo_client):
    path = "/cluster/ha/rules/api-apart"
    rule = ["type=resource-affinity", "comment=new"]
    answer = await planned(demo_client, "PUT", path, *rule)
    assert answer.data["success"] is True
    stale = await planned(demo_client, "PUT", path, *rule, "digest=0123456789")
    assert stale.failed
    assert "file changed by other user" in stale.text


async def test_what_is_deleted_is_shown_first(tool_client):
    answer = await planned(tool_client, "DELETE", "/cluster/ha/rules/api-apart", dry_run=True)
    assert "it is now rule 'api-apart', type 'resource-affinity'" in answer.data["would"]
    assert "What is deleted cannot be restored." in answer.data["would"]


@pytest.mark.parametrize(
    ("path", "parameters", "shown"),
    [
        ("/cluster/backup/backup-archive", [], "prune-backups 'keep-last=4'"),
        ("/pools", ["poolid=production"], r"members \(\d+ of them\)"),
        # its GET is an index of what is below the path, and no value of the pool
        ("/nodes/pve01/ceph/pool/vm", [], r"/ceph/pool/vm to prod\. "),
    ],
)
async def test_no_value_of_what_is_deleted_is_left_out(tool_client, path, parameters, shown):
    answer = await planned(tool_client, "DELETE", path, *parameters, dry_run=True)
    assert re.search(shown, answer.data["would"]), answer.data["would"]


@pytest.mark.parametrize("name", ["old to prod: it is unused", "old  to", "'old'"])
async def test_names_and_texts_stand_in_the_question_as_they_are(tool_client, name):
    tool_client.conversation.decision = Decision.NO
    shown = repr(name).replace("  ", " \\x20")
    for method, path, *parameters in (
        ("DELETE", f"/nodes/pve01/ceph/pool/{name}"),
        (
            "PUT",
            "/cluster/ha/rules/api-apart",
            "type=resource-affinity",
            "disable=1",
            f"comment={name}",
        ),
    ):
        tool_client.conversation.questions.clear()
        answer = await planned(tool_client, method, path, *parameters)
        assert answer.text == "The user declined; nothing was changed.", answer.text
        [question] = tool_client.conversation.questions
        assert f"/pool/{shown} to prod" in question or f"→ {shown}" in question


async def test_a_host_to_contact_is_asked_about(tool_client):
    tool_client.conversation.decision = Decision.NO
    path, parameters = (
        "/cluster/metrics/server/graphite",
        ["server=192.0.2.1", "port=8089", "type=graphite"],
    )
    answer = await planned(tool_client, "POST", path, *parameters)
    assert answer.text == "The user declined; nothing was changed."
    [question] = tool_client.conversation.questions
    assert "The cluster contacts what server names." in question


async def test_a_task_is_followed_and_a_result_without_one_is_shown(demo_client):
    path = "/nodes/pve01/qemu/101/status/suspend"
    answer = await planned(demo_client, "POST", path, wait=True)
    assert answer.data["ok"] is True
    assert answer.data["upid"].startswith("UPID:pve01:")
    task = await demo_client("GetTask", **PROD, upid=answer.data["upid"])
    assert task.data["ok"] is True
    answer = await planned(demo_client, "POST", "/storage", "storage=new", "type=dir", "path=/new")
    assert answer.data["result"] == {"storage": "new", "type": "dir"}
    assert writes(demo_client) == [f"POST {path}", "POST /storage"]


async def test_a_request_that_only_reads_needs_no_permission_to_write(demo_client):
    demo_client.tools = frozenset({"CallApi"})
    answer = await planned(demo_client, "POST", "/nodes/pve01/qemu/101/agent/ping")
    assert not answer.failed, answer.text
    assert isinstance(answer.data, list)


async def test_an_unanswered_request_is_sent_once(demo_client):
    demo_client["prod"].emulated.fault("drop", path="/pools", method="POST")
    answer = await planned(demo_client, "POST", "/pools", "poolid=new")
    assert answer.failed
    assert sent(demo_client) == ["POST /pools"]


async def test_one_row_of_the_audit_has_the_request_without_secrets(demo_client):
    secrets = ["value=x", "key=hush-1", "psk=hush-2", "data=hush-3"]
    given = {"id": "dns", "type": "dns", "api": "cf", "data": "hush-4"}
    await planned(demo_client, "POST", "/cluster/acme/plugins", *secrets)
    arguments = {**PROD, "method": "POST", "path": "/cluster/acme/plugins", "parameters": given}
    dry = await demo_client("CallApi", **arguments, dry_run=True)
    assert "data '***'" in dry.data["would"]
    endpoint = ["name=hook", "url=https://192.0.2.1", "method=post", "body=hush-5"]
    path = "/cluster/notifications/endpoints/webhook"
    hook = await planned(
        demo_client, "POST", path, *endpoint, "secret=name=a,value=hush-6", dry_run=True
    )
    assert "body '***'" in hook.data["would"]
    assert "hush" not in str([event for _, event in demo_client.audit.events])
    assert "hush" not in dry.text + hook.text
    demo_client.audit.events.clear()
    await planned(demo_client, "POST", "/pools", "poolid=new")
    [(kind, intent), (end, outcome)] = demo_client.audit.events
    assert (kind, end, outcome.tool) == ("intent", "outcome", "CallApi")
    assert intent.arguments["parameters"] == ["poolid=new"]


HIDDEN = [
    ("POST", "/storage", ["storage=new", "type=dir", f"path=/etc{'/' * 57}"], "path"),
    (
        "PUT",
        "/nodes/pve02/lxc/300/config",
        ["mp5=mp=/srv/token='x,ceph-ct:subvol-101-disk-0"],
        "mp5",
    ),
    ("PUT", "/nodes/pve01/qemu/101/config", ["description=password: x"], "description"),
    ("PUT", "/nodes/pve02/lxc/300/config", ["env=LD_PRELOAD=/x"], "env"),
    # neither is a secret, but what stands between their quotes looks like one
    ("PUT", "/nodes/pve01/qemu/101/config", ["description=token=", "onboot=0"], "a part"),
    ("POST", "/pools", ["poolid=a", "comment=https://a/b?c=d"], "comment"),
]


@pytest.mark.parametrize(("method", "path", "parameters", "name"), HIDDEN)
async def test_what_masking_would_hide_from_the_user_is_not_sent(
    tool_client, method, path, parameters, name
):
    tool_client.requests("prod")
    answer = await planned(tool_client, method, path, *parameters)
    assert answer.text.startswith(f"parameters: {name} looks like a secret"), answer.text
    assert tool_client.conversation.questions == []
    assert sent(tool_client) == []


@pytest.mark.parametrize("parameters", [["key=hush"], {"key": "hush"}, [{"key": "hush"}]])
def test_parameters_are_masked_by_their_names_in_every_form(parameters):
    masked = mask({"parameters": parameters, "key": "of another argument"})
    assert "hush" not in str(masked)
    assert masked["key"] == "of another argument"
    assert mask(masked) == masked


UPID = "UPID:pve01:00001234:0000ABCD:65F00000:qmstart:101:root@pam:"


async def test_no_other_name_of_a_node_hides_its_guests(demo_client):
    for method, path, *parameters in (
        ("POST", "/nodes/localhost/status", "command=reboot"),  # a name that Proxmox accepts
        ("POST", "/nodes/localhost/stopall", "vms=101"),
    ):
        answer = await planned(demo_client, method, path, *parameters)
        assert answer.text.startswith("No node 'localhost'"), answer.text
    assert sent(demo_client) == []


async def test_each_guest_of_a_request_counts_as_a_write_that_loses_data(demo_client):
    demo_client.budgets.limit = 2
    for path in ("/nodes/pve01/stopall", "/cluster/bulk-action/guest/shutdown"):
        answer = await planned(demo_client, "POST", path, "vms=101", "vms=103", "vms=105")
        assert "this needs 3." in answer.text, answer.text
    answer = await planned(demo_client, "POST", "/nodes/pve01/status", "command=reboot")
    assert "this needs " in answer.text, answer.text
    assert (sent(demo_client), demo_client.budgets.used) == ([], 0)
    await planned(demo_client, "POST", "/nodes/pve01/stopall", "vms=101", "vms=103")
    assert demo_client.budgets.used == 2


NUMBERS = [str(vmid) for vmid in range(10_000, 10_500)]
CONFIG = "/nodes/pve01/qemu/101/config"
# Requests with what stands at the end of a long parameter
LONG = [
    ("POST", "/nodes/pve01/stopall", ["vms=" + ",".join([*NUMBERS[:70], "103"])], "103"),
    (
        "POST",
        "/cluster/bulk-action/guest/shutdown",
        [f"vms={vmid}" for vmid in (*NUMBERS[:110], "103")],
        "103",
    ),
    (
        "PUT",
        "/cluster/backup/backup-nightly",
        ["exclude=" + ",".join([*NUMBERS[:70], "103"])],
        "103",
    ),
    (
        "POST",
        "/cluster/firewall/rules",
        [
            *("type=in", "action=ACCEPT"),
            "source=" + ",".join([*(f"10.0.0.{n}" for n in range(30)), "0.0.0.0/1"]),
        ],
        "0.0.0.0/1",
    ),
    (
        "POST",
        "/nodes/pve01/hosts",
        ["data=" + "".join(f"10.0.0.{n} host-{n}\n" for n in range(60)) + "6.6.6.6 pbs"],
        "6.6.6.6 pbs",
    ),
    ("PUT", CONFIG, [f"description={'a ' * 1_000}b", "name=a", "delete=scsi0"], "delete 'scsi0'"),
    (
        "PUT",
        CONFIG,
        ["delete=" + ",".join([*(f"unused{n}" for n in range(50)), "scsi0"])],
        "unused49,scsi0",
    ),
]
TOO_LONG = [
    ("POST", "/cluster/bulk-action/guest/start", [f"vms={n}" for n in range(10_000, 10_900)]),
    ("POST", "/nodes/pve01/stopall", ["vms=" + ",".join(NUMBERS)]),
    ("POST", "/nodes/pve01/hosts", ["data=" + "10.0.0.1 a\n" * 1_000]),
    ("PUT", CONFIG, [f"description={'a' * 1_000}"]),
    ("PUT", CONFIG, [f"description={'a ' * 3_000}"]),
    ("DELETE", f"/nodes/pve01/ceph/pool/{'a' * 700}", []),
]
TWICE = [
    ("POST", "/cluster/bulk-action/guest/shutdown", ["vms=101", "vms=103", "vms=101"]),
    ("POST", "/nodes/pve01/stopall", ["vms=101,103,101"]),
    ("PUT", "/cluster/backup/backup-nightly", ["exclude=101,103,101"]),
    ("PUT", "/pools/production", ["vms=101", "vms=101"]),
    ("PUT", CONFIG, ["delete=net9,net9,scsi0"]),
]


async def test_a_question_shows_all_that_is_done(tool_client):
    tool_client.conversation.decision = Decision.NO
    names = {guest.vmid: guest.name for guest in tool_client["prod"].emulated.state.guests.values()}
    for method, path, parameters, shown in LONG:
        tool_client.conversation.questions.clear()
        answer = await planned(tool_client, method, path, *parameters)
        assert answer.text == "The user declined; nothing was changed.", (path, answer.text)
        [question] = tool_client.conversation.questions
        assert shown in question, path
        if shown == "103":
            assert f"103 is {names[103]}" in question, path


async def test_what_is_too_long_to_be_shown_is_not_sent(tool_client):
    tool_client.requests("prod")
    tool_client.conversation.questions.clear()
    for method, path, parameters in TOO_LONG:
        for options in ({}, {"dry_run": True}):
            answer = await planned(tool_client, method, path, *parameters, **options)
            assert "it is too long to be shown to the user as a whole" in answer.text, path
    assert (sent(tool_client), tool_client.conversation.questions) == ([], [])


async def test_no_member_of_a_list_is_repeated(tool_client):
    tool_client.requests("prod")
    for method, path, parameters in TWICE:
        answer = await planned(tool_client, method, path, *parameters)
        assert re.match(r"parameters: \w+: it has \w+ twice\.", answer.text), answer.text
    assert sent(tool_client) == []


def test_nearly_all_guests_are_named_by_those_that_are_not_among_them():
    every = [SimpleNamespace(vmid=vmid, name=f"guest-{vmid}") for vmid in range(100, 400)]
    cluster = SimpleNamespace(name="prod")
    assert labels(cluster, every, every) == " Every guest of prod (300)."
    but = labels(cluster, every[1:], every)
    assert but == " Every guest of prod (299) but 100 is guest-100."
    some = labels(cluster, every[20:], every)
    assert some.count(" is guest-") == 280


@pytest.mark.parametrize(
    ("method", "path", "parameters", "opened"),
    [
        ("POST", "/storage", {"storage": "a", "type": "dir", "path": "/etc"}, "path"),
        ("POST", "/cluster/mapping/dir", {"id": "a", "map": "node=pve01,path=/"}, "map"),
        ("PUT", "/cluster/mapping/dir/a", {"map": "node=pve01,path=/"}, "map"),
    ],
)
def test_a_folder_of_a_node_is_opened_to_guests_with_consent_only(method, path, parameters, opened):
    endpoint, _ = load("9.2").find(method, path)
    assert f"those in the folders of {opened}." in effects.disclosure(endpoint, parameters)


OWN_RIGHTS = (
    ("PUT", "/nodes/pve01/qemu/101/config", "tags=db;team"),
    ("PUT", "/pools/production", "vms=9000"),
    ("POST", "/nodes/pve01/qemu/101/migrate", "target=pve02", "online=1"),
    ("POST", "/nodes/pve01/qemu/101/clone", "newid=901", "pool=production"),
    ("POST", "/nodes/pve01/qemu", "vmid=904", "tags=team"),
    ("PUT", "/cluster/options", "keyboard=de"),
)


@pytest.mark.parametrize(
    "part", [{"pools": {"production"}}, {"tags": {"team"}}, {"nodes": {"pve02"}}, {"vmids": {901}}]
)
async def test_a_key_whose_role_covers_parts_too_changes_nothing(demo_client, part):
    parts = {name: frozenset(values) for name, values in part.items()}
    inside = Grant(frozenset({"ExecInGuest"}), resources=Resources(**parts))
    demo_client.more_grants = (inside,)
    for method, path, *parameters in OWN_RIGHTS:
        answer = await planned(demo_client, method, path, *parameters)
        assert answer.text.startswith("The role of this key grants other tools on a part of prod")
    assert not (await planned(demo_client, "GET", "/pools")).failed
    assert sent(demo_client) == []
    demo_client.more_grants = (Grant(frozenset({"ExecInGuest"}), frozenset({"home-lab"}), part_of),)
    assert not (await planned(demo_client, "PUT", "/pools/production", "vms=9000")).failed


async def test_paths_that_are_of_no_node_are_sent(tool_client):
    for path, option in (
        (CONFIG, "description=/dev/sda"),
        (CONFIG, "rng0=source=/dev/urandom"),
        ("/nodes/pve02/lxc/300/config", "mp1=ceph-ct:4,mp=/srv"),
        ("/nodes/pve02/lxc/300/config", "net0=name=eth0,bridge=vmbr0,ip=192.0.2.1/24"),
    ):
        answer = await planned(tool_client, "PUT", path, option, dry_run=True)
        assert not answer.failed, answer.text


part_of = Resources(vmids=frozenset({101}))
VOLUMES = (
    ("qemu", "scsi0=ceph-vm:vm-101-disk-0"),
    ("qemu", "scsi0=ceph-vm:0,import-from=ceph-vm:base-101-disk-0"),
    ("qemu", "scsi0=nfs-iso:101/custom.qcow2"),
    ("qemu", "scsi0=local-zfs:0,import-from=nfs-iso:101/custom.qcow2"),
    ("qemu", "scsi0=nfs-iso:100/base-100-disk-0.qcow2/101/custom.qcow2"),
    ("qemu", "archive=pbs-main:backup/vm/101/2026-01-01T00:00:00Z"),
    ("qemu", "ide2=nfs-iso:101/vm-101-cloudinit.qcow2,media=cdrom"),
    ("lxc", "ostemplate=nfs-archive:backup/vzdump-lxc-101-2026_01_01-00_00_00.tar.zst"),
    ("lxc", "ostemplate=pbs-main:backup/ct/101/2026-01-01T00:00:00Z"),
    ("lxc", "mp0=ceph-ct:subvol-101-disk-0,mp=/srv"),
)


async def test_volumes_of_other_guests_are_named_asked_about_or_protected(demo_client):
    conversation = demo_client.conversation
    conversation.decision = Decision.NO
    more = {"qemu": [], "lxc": ["ostemplate=nfs-iso:vztmpl/a.tar.zst"]}
    calls = [
        (
            "POST",
            f"/nodes/pve01/{kind}",
            "vmid=904",
            volume,
            *([] if "ostemplate" in volume else more[kind]),
        )
        for kind, volume in VOLUMES
    ]
    for call in calls:
        conversation.questions.clear()
        answer = await planned(demo_client, *call)
        assert answer.text == "The user declined; nothing was changed.", (call, answer.text)
        [question] = conversation.questions
        assert "101 is db-primary." in question, question
        assert "101, which that guest may use too." in question, question
    guest = demo_client["prod"].emulated.state.guests[101]
    guest.config["tags"] = "protected"
    guest.touch()
    demo_client.refresh()
    for call in calls:
        assert "is protected by its tag protected" in (await planned(demo_client, *call)).text
    assert sent(demo_client) == []


MOVES = (
    ("POST", "/cluster/bulk-action/guest/migrate", "vms=300", "target=pve01"),
    ("POST", "/nodes/pve02/migrateall", "vms=300", "target=pve01"),
    ("POST", "/cluster/ha/resources/ct:300/migrate", "node=pve01"),
    ("POST", "/cluster/ha/resources/ct:300/relocate", "node=pve01"),
    ("POST", "/nodes/pve02/lxc/300/migrate", "target=pve01"),
)


async def test_a_running_container_is_moved_with_consent_and_within_the_budget(tool_client):
    tool_client.conversation.decision = Decision.NO
    for call in MOVES:
        tool_client.conversation.questions.clear()
        answer = await planned(tool_client, *call)
        assert answer.text == "The user declined; nothing was changed.", (call, answer.text)
        [question] = tool_client.conversation.questions
        assert "A running container is restarted by its move: 300." in question


async def test_a_list_within_an_object_of_parameters_is_bounded(tool_client):
    many = {"exclude-path": [1] * 120_000}
    call = {"method": "POST", "path": "/nodes/pve01/vzdump", "parameters": [many]}
    error = await tool_client.refused("CallApi", cluster_name="prod", **call)
    assert "it has more than 1,000 entries" in error


async def test_no_volume_leads_to_another_path(tool_client):
    path = "/nodes/pve01/storage/local/content/../../../../../access/users/a@pve"
    answer = await planned(tool_client, "DELETE", path)
    assert answer.text == "path: the volume has . or .. in it."


READER = frozenset({"CallApi", "FindApi"})
WRITER = READER | {WRITE}


async def test_writing_takes_a_permission_of_its_own(demo_client):
    demo_client.tools = READER
    answer = await planned(demo_client, "POST", "/pools", "poolid=new")
    assert answer.text.startswith(
        "POST /pools changes something, and this key has CallApi on prod for reading only."
    )
    assert not (await planned(demo_client, "GET", "/pools")).failed
    demo_client.tools = frozenset({WRITE})
    with pytest.raises(UnknownTool):
        await planned(demo_client, "POST", "/pools", "poolid=new")
    demo_client.tools = WRITER
    assert (await planned(demo_client, "POST", "/pools", "poolid=new")).data["success"] is True


async def test_explain_access_names_the_missing_permission(tool_client):
    tool_client.tools = READER | {"ExplainAccess"}
    access = (await tool_client("ExplainAccess", **PROD)).data
    assert "CallApi" in access["tools"]
    assert WRITE in access["not_granted"]
    tool_client.tools = WRITER | {"ExplainAccess"}
    access = (await tool_client("ExplainAccess", **PROD)).data
    assert WRITE not in access["not_granted"]


async def test_a_narrow_role_writes_nothing(demo_client):
    for resources in (
        Resources(vmids=frozenset({101})),
        Resources(pools=frozenset({"production"})),
    ):
        answer = await planned(
            demo_client.scoped(resources), "PUT", "/pools/production", "comment=x"
        )
        assert answer.text.startswith("CallApi needs the whole of prod")
    assert sent(demo_client) == []


def test_a_narrow_permission_to_write_is_none():
    narrow = Resources(vmids=frozenset({101}))
    role = Role(1, "r", "", (Grant(READER), Grant(frozenset({WRITE}), resources=narrow)))
    caller = Caller("k", "k", role)
    assert caller.resources("CallApi", Effect.WRITE, "prod").everything
    assert not caller.resources(WRITE, Effect.WRITE, "prod").everything


@pytest.mark.parametrize(
    ("granted", "reads"), [(READER, True), (WRITER, False), (frozenset({ANY}), False)]
)
def test_the_list_of_tools_shows_what_the_key_may_do(granted, reads):
    caller = Caller(
        "k", "k", Role(1, "r", "", (Grant(granted),)), toolsets=frozenset({Toolset.API})
    )
    [listed] = [tool for tool in visible_tools(tools(), caller) if tool.name == "CallApi"]
    assert listed.annotations.read_only_hint is reads
    assert listed.annotations.destructive_hint is not reads
    assert ("dry_run" in listed.input_schema["properties"]) is not reads


async def test_what_is_protected_is_not_written_to(demo_client):
    rules = demo_client["prod"].emulated.state.ha_rules
    rules["together"] = {**rules["api-apart"], "rule": "together", "resources": "vm:101,vm:105"}
    tag = demo_client["prod"].emulated.state.guests[101].config["tags"].split(";")[0]
    demo_client.change(protected_tags=[tag])
    for method, path, *parameters in (
        ("POST", "/nodes/pve01/qemu/101/status/suspend"),
        ("PUT", "/pools/production", "vms=105,101"),
        ("POST", "/cluster/ha/resources", "sid=vm:101"),
        ("POST", "/cluster/replication", "id=101-0", "type=local", "target=pve02"),
        ("POST", "/nodes/pve01/status", "command=reboot"),
        ("DELETE", "/nodes/pve01/storage/local-zfs/content/local-zfs:vm-101-disk-0"),
        ("DELETE", f"/nodes/pve01/tasks/{UPID}"),
        # of their objects, which the request does not name
        ("DELETE", "/cluster/ha/rules/together"),
        ("PUT", "/cluster/ha/rules/together", "type=resource-affinity", "comment=x"),
        ("DELETE", "/storage/ceph-vm"),
        ("PUT", "/storage/ceph-vm", "disable=1"),
        ("PUT", "/nodes/pve01/disks/wipedisk", "disk=/dev/sdb"),
        ("POST", "/nodes/pve01/disks/initgpt", "disk=/dev/sdb"),
        ("DELETE", "/nodes/pve01/disks/zfs/rpool"),
        ("DELETE", "/nodes/pve02/ceph/pool/vm", "force=1"),
        ("DELETE", "/nodes/pve02/ceph/osd/3"),
        *(
            ("DELETE", f"/nodes/pve01/tasks/{UPID.replace('qmstart:101', f'{kind}:')}")
            for kind in ("vzdump", "stopall", "migrateall", "bulkshutdown")
        ),
    ):
        answer = await planned(demo_client, method, path, *parameters)
        assert "is protected" in answer.text, (path, answer.text)
    demo_client["prod"].protected = True
    answer = await planned(demo_client, "POST", "/pools", "poolid=new")
    assert answer.text.startswith("Cluster prod is protected")
    assert sent(demo_client) == []


JOBS = (
    ("POST", "/cluster/backup", "schedule=01:00", "storage=nfs-archive", "all=1"),
    ("POST", "/cluster/backup", "schedule=01:00", "storage=nfs-archive", "pool=production"),
    ("POST", "/cluster/backup", "schedule=01:00", "storage=nfs-archive", "vmid=101,105"),
    ("PUT", "/cluster/backup/backup-nightly", "comment=x"),
    ("PUT", "/cluster/backup/backup-nightly", "vmid=105"),
    ("PUT", "/cluster/backup/backup-archive", "all=1"),
    ("DELETE", "/cluster/backup/backup-nightly"),
)


@pytest.mark.parametrize("job", JOBS)
async def test_a_backup_job_of_a_protected_guest_is_not_written(demo_client, job):
    method, path, *parameters = job
    assert not (await planned(demo_client, method, path, *parameters, dry_run=True)).failed
    tag = demo_client["prod"].emulated.state.guests[101].config["tags"].split(";")[0]
    demo_client.change(protected_tags=[tag])
    answer = await planned(demo_client, method, path, *parameters)
    assert "is protected by its tag" in answer.text, answer.text
    assert sent(demo_client) == []


NARROWED = (
    ("vmid=101", "The job no longer backs up guest "),
    ("node=pve01", "The job no longer backs up guest "),
    ("exclude=101,105", "The job no longer backs up guest 101, 105."),
    ("comment=x", ""),
    ("all=1", "Guests may be protected less"),
)


@pytest.mark.parametrize(("parameter", "question"), NARROWED)
async def test_a_narrower_backup_job_is_asked_about(demo_client, parameter, question):
    demo_client["prod"].emulated.state.backup_jobs["backup-nightly"].options.pop("exclude", None)
    demo_client.conversation.decision = Decision.NO
    await planned(demo_client, "PUT", "/cluster/backup/backup-nightly", parameter)
    assert [question in each for each in demo_client.conversation.questions] == [True] * bool(
        question
    )


async def test_a_job_or_rule_that_cannot_be_read_is_not_written(demo_client):
    answer = await planned(demo_client, "DELETE", "/cluster/backup/none")
    assert answer.text.startswith("Which guests /cluster/backup/none covers is not known")
    answer = await planned(demo_client, "DELETE", "/cluster/ha/rules/none")
    assert answer.text.startswith("Which guests /cluster/ha/rules/none names is not known")
    assert sent(demo_client) == []


async def test_lists_of_parameters_are_read_in_every_form(tool_client):
    path = "/cluster/bulk-action/guest/start"
    for parameters in ({"vms": [101, 105]}, ["vms=101", "vms=105"], '{"vms": [101, 105]}'):
        arguments = {**PROD, "method": "POST", "path": path, "parameters": parameters}
        answer = await tool_client("CallApi", **arguments, dry_run=True)
        assert "vms '101, 105'" in answer.data["would"]
    arguments = {**PROD, "method": "PUT", "path": "/pools/production"}
    answer = await tool_client(
        "CallApi", **arguments, parameters={"vms": [101, 105], "comment": None}, dry_run=True
    )
    assert "vms '101,105'" in answer.data["would"]
    twice = await tool_client.refused("CallApi", **arguments, parameters=["comment=a", "comment=b"])
    assert twice.startswith("parameters: comment is there twice.")


async def test_a_request_needs_the_scope_of_its_effect(tool_client):
    delete = {"method": "DELETE", "path": "/pools", "parameters": ["poolid=production"]}
    create = {"method": "POST", "path": "/pools", "parameters": ["poolid=scoped"]}
    tool_client.scopes = frozenset({"pve:read"})
    await tool_client("CallApi", **PROD, path="/version")
    assert "needs the scope pve:write" in await tool_client.refused("CallApi", **PROD, **create)
    tool_client.scopes = frozenset({"pve:write"})
    assert "needs the scope pve:destroy" in await tool_client.refused("CallApi", **PROD, **delete)
    assert sent(tool_client) == []


async def test_present_values_are_masked_beside_other_calls(tool_client, monkeypatch):
    threads, masked = set(), writes_module.masked

    def noted(data):
        threads.add(current_thread())
        return masked(data)

    monkeypatch.setattr(writes_module, "masked", noted)
    path = "/nodes/pve01/qemu/101/config"
    answer = await planned(tool_client, "PUT", path, "cores=3", dry_run=True)
    assert "cores" in answer.data["would"]
    assert threads
    assert current_thread() not in threads


@pytest.mark.parametrize(
    "more", [{f"a{number}": 1 for number in range(1_000)}, {"a": "x" * 3_000_000}]
)
async def test_what_is_larger_than_a_configuration_is_not_compared(tool_client, more):
    def larger(response):
        return response._replace(body=json.dumps({"data": {"cores": 2, **more}}).encode())

    path = "/nodes/pve01/qemu/101/config"
    with altered(tool_client["prod"], path, larger):
        answer = await planned(tool_client, "PUT", path, "cores=3", dry_run=True)
    assert "cores '3'" in answer.data["would"]
    assert "too large to be compared" in answer.notes


@pytest.mark.parametrize(
    ("path", "parameters", "question"),
    [
        ("/cluster/mapping/pci", {"map": "node=pve01,path=0000:01:00.0"}, "devices of nodes"),
        ("/cluster/mapping/usb", {"map": "node=pve01,path=1-2"}, "devices of nodes"),
        ("/storage", {"type": "lvm", "base": "iscsi:0.0.0.scsi-1", "vgname": "a"}, "is erased"),
    ],
)
def test_devices_and_disks_that_a_node_loses_are_asked_about(path, parameters, question):
    endpoint = ENDPOINTS["POST", path]
    asked = f"{effects.loss(endpoint, parameters)} {effects.disclosure(endpoint, parameters)}"
    assert question in asked


LUN = "san:0.0.1.scsi-36001405"
OWN = ["san:32", "san:0.5,format=raw", "san:cloudinit", "local:iso/a.iso,media=cdrom", "none"]
OWN += ["local-lvm:vm-300-disk-0", "san:0,import-from=local:import/a.qcow2"]


def test_a_new_guest_on_what_exists_is_asked_about():
    paths = {"qemu": ["scsi0", "virtio1", "efidisk0", "unused0"], "lxc": ["rootfs", "mp0"]}
    for kind, drives in paths.items():
        endpoint = ENDPOINTS["POST", f"/nodes/{{node}}/{kind}"]
        for drive in drives:
            for value in (LUN, f"{LUN},size=8G", f"size=8G,file={LUN}", f"volume={LUN},mp=/srv"):
                assert f"the volume of {drive}." in effects.loss(endpoint, {drive: value}), value
            for value in OWN:
                assert not effects.loss(endpoint, {drive: value}), value
        for device in ("host=1-2", "mapping=stick"):
            assert "those of usb0." in effects.disclosure(endpoint, {"usb0": device})
        assert not effects.disclosure(endpoint, {"usb0": "spice", "serial0": "socket"})
