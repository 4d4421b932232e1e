"""The recipes of docs/users/api-recipes.md: FindApi names the request, CallApi sends it."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[3] / "docs" / "users" / "api-recipes.md"
BACKUP = "pbs-main:backup/vm/101/2026-01-01T00:00:00Z"
# the cluster, words for FindApi, the requests, what a GET shows after the change, and its error
# after the removal
HA_RESOURCE = "/cluster/ha/resources/vm:105"
RULE = "/cluster/ha/rules/together"
GROUP = "/cluster/ha/groups/first"
JOB = "/cluster/backup/nightly"
REPLICATION = "/cluster/replication/{replicated}-0"
POOL = "/pools/test"
RECIPES = {
    "HA resource": (
        "prod",
        "ha resources",
        ("POST", "/cluster/ha/resources", ["sid=vm:105", "max_restart=2", "comment=web"]),
        ("PUT", HA_RESOURCE, ["max_relocate=2", "delete=comment"]),
        ("DELETE", HA_RESOURCE, []),
        {"max_restart": 2, "max_relocate": 2},
        "no such resource 'vm:105'",
    ),
    "HA rule": (
        "prod",
        "ha rules",
        (
            "POST",
            "/cluster/ha/rules",
            [
                *("rule=together", "type=resource-affinity", "affinity=positive"),
                "resources=vm:103,vm:112",
            ],
        ),
        ("PUT", RULE, ["type=resource-affinity", "affinity=negative", "comment=apart"]),
        ("DELETE", RULE, []),
        {"affinity": "negative", "comment": "apart", "resources": "vm:103,vm:112"},
        "no such ha rule 'together'",
    ),
    "HA group": (
        "home-lab",
        "ha groups",
        ("POST", "/cluster/ha/groups", ["group=first", "nodes=pve:2", "restricted=1"]),
        ("PUT", GROUP, ["delete=restricted", "comment=old"]),
        ("DELETE", GROUP, []),
        {"nodes": "pve:2", "comment": "old"},
        "no such ha group 'first'",
    ),
    "Backup job": (
        "prod",
        "cluster backup",
        (
            "POST",
            "/cluster/backup",
            [
                *("id=nightly", "schedule=sat 02:30", "vmid=101,105", "storage=pbs-main"),
                *("mode=snapshot", "prune-backups=keep-daily=7,keep-weekly=4"),
            ],
        ),
        ("PUT", JOB, ["enabled=0", "vmid=101"]),
        ("DELETE", JOB, []),
        {"enabled": 0, "vmid": "101", "schedule": "sat 02:30"},
        "No such job 'nightly'",
    ),
    "Replication job": (
        "prod",
        "cluster replication",
        (
            "POST",
            "/cluster/replication",
            ["id={replicated}-0", "type=local", "target={target}", "schedule=*/15"],
        ),
        ("PUT", REPLICATION, ["rate=10", "comment=to the other room"]),
        ("DELETE", REPLICATION, ["force=1"]),
        {"schedule": "*/15", "comment": "to the other room"},
        "no such replication job",
    ),
    "Pool": (
        "prod",
        "pools",
        ("POST", "/pools", ["poolid=test", "comment=try things"]),
        ("PUT", POOL, ["comment=empty"]),
        ("DELETE", POOL, []),
        {"comment": "empty"},
        "pool 'test' does not exist",
    ),
}


def _replicated(state):
    """Return a guest that can be replicated, and a node for it."""
    guest = next(
        guest
        for guest in state.guests.values()
        if {disk.storage for disk in guest.disks()} == {"local-zfs"}
        and f"{guest.vmid}-0" not in state.replications
        and state.nodes[guest.node].online
    )
    target = next(n.name for n in state.nodes.values() if n.online and n.name != guest.node)
    return {"replicated": guest.vmid, "target": target}


@pytest.mark.parametrize("name", RECIPES)
async def test_a_recipe_creates_changes_and_removes(demo_client, name):
    cluster, words, create, change, remove, expected, gone = RECIPES[name]
    names = _replicated(demo_client["prod"].emulated.state)
    version = {"home-lab": "8.4", "prod": "9.2"}[cluster]
    for method, path, parameters in (create, change, remove):
        found = await demo_client("FindApi", words=words, method=method, version=version)
        template = re.compile(
            "|".join(re.sub(r"\{\w+\}", r"[^/]+", p) for p in found.column("path"))
        )
        path = path.format(**names)
        assert template.fullmatch(path), (path, found.column("path"))
        parameters = [text.format(**names) for text in parameters]
        call = {"cluster_name": cluster, "method": method, "path": path, "parameters": parameters}
        rehearsed = await demo_client("CallApi", **call, dry_run=True)
        assert rehearsed.data["would"].startswith(f"Send {method} {path} to {cluster}"), rehearsed
        answer = await demo_client("CallApi", **call)
        assert not answer.failed, answer.text
        assert answer.data["success"] is True
        read = {"cluster_name": cluster, "path": change[1].format(**names)}
        if method == "PUT":
            [row] = (await demo_client("CallApi", **read)).data
            assert expected.items() <= row.items()
    assert gone in (await demo_client.refused("CallApi", **read))


async def test_members_of_a_pool_and_notes_of_a_backup_are_changed(demo_client):
    state = demo_client["prod"].emulated.state
    call = {"cluster_name": "prod", "method": "PUT"}
    state.pools["test"] = type(state.pools["production"])("test")
    vmid = next(vmid for vmid in state.guests if not state.pool_of(vmid))
    for extra, members in (([], {vmid}), (["delete=1"], set())):
        parameters = [f"vms={vmid}", *extra]
        answer = await demo_client("CallApi", **call, path="/pools/test", parameters=parameters)
        assert answer.data["success"] is True
        assert state.pools["test"].vmids == members
    backup = (await demo_client("ListBackups", cluster_name="prod", limit=1)).data[0]
    path = f"/nodes/pve01/storage/{backup['storage']}/content/{backup['volid']}"
    answer = await demo_client(
        "CallApi", **call, path=path, parameters={"notes": "before the update", "protected": True}
    )
    assert answer.data["success"] is True, answer.text
    [row] = (await demo_client("CallApi", cluster_name="prod", path=path)).data
    assert (row["notes"], row["protected"]) == ("before the update", 1)
    iso = next(v for v in state.storages["nfs-iso"].volumes("pve01").values())
    path = f"/nodes/pve01/storage/nfs-iso/content/{iso.volid}"
    refused = await demo_client.refused("CallApi", **call, path=path, parameters=["notes=x"])
    assert "only backups can have notes" in refused


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        (["resources=vm:101"], "cannot use unmanaged resource(s) vm:101."),
        (["resources=vm:103", "nodes=pve99"], "cannot use non-existent node(s) pve99."),
    ],
)
async def test_what_proxmox_refuses_is_said_in_its_words(demo_client, parameters, error):
    given = ["rule=new", "type=node-affinity", "nodes=pve01"][: 3 - (len(parameters) - 1)]
    call = {"cluster_name": "prod", "method": "POST", "path": "/cluster/ha/rules"}
    text = await demo_client.refused("CallApi", **call, parameters=[*given, *parameters])
    assert error in text


@pytest.mark.parametrize("name", RECIPES)
def test_the_page_has_every_recipe(name):
    page = PAGE.read_text()
    _, _, *requests, _, _ = RECIPES[name]
    assert f"## {name}" in page
    for method, path, _ in requests:
        shown = re.sub(r"\{\w+\}-0", "101-0", path)
        assert f"{method} {shown}" in page, f"{method} {shown}"
