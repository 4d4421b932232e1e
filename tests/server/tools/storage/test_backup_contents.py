"""GetBackupContents."""

import pytest

from proxmox_client.emulator.state.storage import Volume
from pvemcp_server.access.model import Resources

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}


def put(client, config, vmid=105, kind="qemu", node="pve01", storage="local"):
    """Add a backup with this configuration to a storage of a node; return its volid."""
    volid = f"{storage}:backup/vzdump-{kind}-{vmid}-2026_01_01-00_00_00.zst"
    volume = Volume(volid, "backup", "vma.zst", 1 << 20, 1, vmid, subtype=kind, config=config)
    client["prod"].emulated.state.storages[storage].put(node, volume)
    return volid


async def test_the_newest_backup_of_a_guest_has_its_configuration(tool_client):
    newest = (await tool_client("ListBackups", **PROD, vmid=101)).data[0]
    shown = (await tool_client("GetBackupContents", **PROD, backup=101)).data
    assert (shown["volid"], shown["creation"]) == (newest["volid"], newest["creation"])
    config = (await tool_client("GetVmConfig", **PROD, vmid=101)).data
    same = ("name", "type", "tags", "cores", "memory_mb", "os_type")
    assert [shown[key] for key in same] == [config[key] for key in same]
    assert [disk["volume"] for disk in shown["disks"]] == [d["volume"] for d in config["disks"]]
    assert await tool_client("GetBackupContents", **PROD, backup=newest["volid"])


async def test_secrets_in_a_backup_are_hidden(demo_client):
    vm = put(demo_client, "name: a\ncipassword: $5$geheim\nargs: -object secret,data=geheim\n")
    container = put(
        demo_client, "rootfs: local:8\nenv: TOKEN=geheim\n", 300, "lxc", storage="nfs-archive"
    )
    for volid in (vm, container):
        answer = await demo_client("GetBackupContents", **PROD, backup=volid)
        assert not answer.failed, answer.text
        assert "geheim" not in answer.text


async def test_a_backup_of_several_clusters_or_nodes_is_not_guessed(demo_client):
    assert "say which cluster; home-lab has" in await demo_client.refused(
        "GetBackupContents", backup=101
    )
    volid = put(demo_client, "name: a\n")
    put(demo_client, "name: b\n", node="pve02")
    assert await demo_client.refused("GetBackupContents", **PROD, backup=volid) == (
        f"node: say which node's; {volid} is on pve01, pve02."
    )
    for node, name in (("pve01", "a"), ("pve02", "b")):
        answer = await demo_client("GetBackupContents", **PROD, backup=volid, node=node)
        assert answer.data["name"] == name


@pytest.mark.parametrize(
    ("backup", "says"),
    [
        ("web", "backup: 'web' is neither a volume id nor a VMID."),
        (999, "No backup of guest 999 on prod."),
        ("local:iso/x.iso", "No backup 'local:iso/x.iso' on prod."),
    ],
)
async def test_an_unknown_backup_is_an_error(tool_client, backup, says):
    assert (await tool_client.refused("GetBackupContents", **PROD, backup=backup)).startswith(says)


@pytest.mark.parametrize(
    "resources", [Resources(vmids=frozenset({101})), Resources(storages=frozenset({"pbs-main"}))]
)
async def test_a_backup_is_readable_with_its_guest_or_its_storage(tool_client, resources):
    scoped = tool_client.scoped(resources)
    assert (await scoped("GetBackupContents", **PROD, backup=101)).data["name"] == "db-primary"
    answer = await scoped("GetBackupContents", **PROD, backup=101, folder="/")
    assert answer.data["files"]
    assert "File Restore" in answer.notes


async def test_a_hidden_backup_is_answered_like_a_missing_one(tool_client):
    [hidden, *_] = (await tool_client("ListBackups", **PROD, vmid=101)).data
    scoped = tool_client.scoped(Resources(vmids=frozenset({105})))
    missing = hidden["volid"].replace("/101/", "/999/")
    answers = [
        (await scoped.refused("GetBackupContents", **PROD, backup=volid)).replace(volid, "…")
        for volid in (hidden["volid"], missing)
    ]
    assert answers[0] == answers[1]


async def test_the_files_of_a_folder_on_a_backup_server_are_listed(tool_client):
    async def folder(backup, path):
        answer = await tool_client("GetBackupContents", **PROD, backup=backup, folder=path)
        assert not answer.failed, answer.text
        assert answer.data["folder"] == path
        return {row["name"]: row for row in answer.data["files"]}

    disks = [name for name in await folder(101, "/") if name.startswith("drive-")]
    assert disks
    root = f"/{disks[0]}/part/1"
    assert (await folder(101, root))["etc"]["type"] == "folder"
    files = await folder(101, f"{root}/etc")
    assert (files["hosts"]["type"], files["hosts"]["size"]) == ("file", 220)
    assert files["hosts"]["modified"]
    containers = await tool_client("ListBackups", **PROD, vmid=300)
    volid = next(row["volid"] for row in containers.data if "/ct/300/" in row["volid"])
    assert list(await folder(volid, "/")) == ["root.pxar.didx"]


async def test_where_proxmox_lists_no_files_the_answer_says_so(demo_client):
    volid = put(demo_client, "name: a\n")
    call = {**PROD, "backup": volid, "folder": "/"}
    error = await demo_client.refused("GetBackupContents", **call)
    assert error.startswith("Proxmox lists files only in backups on a Proxmox Backup Server,")
    error = await demo_client.refused("GetBackupContents", **PROD, backup=101, folder="/nowhere")
    assert "no such file or directory" in error


async def test_a_long_folder_is_cut_with_a_note(tool_client, monkeypatch):
    monkeypatch.setattr("pvemcp_server.tools.storage.backup_contents.MOST_FILES", 1)
    path = "/root.pxar.didx"
    answer = await tool_client("GetBackupContents", **PROD, backup=300, folder=path)
    assert len(answer.data["files"]) == 1
    assert "The first 1 of 4 entries of the folder." in answer.notes
