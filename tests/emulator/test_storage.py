"""Storages: downloads, uploads, deletion and configuration."""

import pytest

from proxmox_client.emulator.state.appliance import Appliance
from proxmox_client.emulator.tasks.content import checksum_of

pytestmark = pytest.mark.anyio
LOCAL = "/nodes/pve1/storage/local"
URL = "https://cdimage.test/debian-12-netinst.iso"
DOWNLOAD = {"url": URL, "content": "iso", "filename": "debian.iso"}


async def download(admin, **params):
    return await admin.task("POST", f"{LOCAL}/download-url", **(DOWNLOAD | params))


async def names(admin, node="pve1"):
    rows = await admin.get(f"/nodes/{node}/storage/local/content", content="iso")
    return [row["volid"] for row in rows]


async def test_a_download_uses_space_on_its_node_only(admin, lab):
    lab.state.downloads[URL] = 700_000
    before = (await admin.get(f"{LOCAL}/status"))["used"]
    assert (await download(admin))["exitstatus"] == "OK"
    assert await names(admin) == ["local:iso/debian.iso"]
    assert await names(admin, "pve2") == []
    assert (await admin.get(f"{LOCAL}/status"))["used"] - before == 700_000


async def test_a_file_is_not_overwritten(admin):
    await download(admin)
    assert (await download(admin))["exitstatus"].startswith("refusing to override existing file")


async def test_a_missing_url_fails_the_task(admin, lab):
    lab.state.downloads[URL] = None
    assert (await download(admin))["exitstatus"] == "download failed: exit code 8"
    assert await names(admin) == []


@pytest.mark.parametrize("right", [True, False])
async def test_a_checksum_is_verified(admin, right):
    checksum = checksum_of(URL, "sha256") if right else "0" * 64
    status = await download(admin, checksum=checksum, **{"checksum-algorithm": "sha256"})
    assert (status["exitstatus"] == "OK") is right
    assert (await names(admin) == ["local:iso/debian.iso"]) is right


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"url": "ftp://x/y.iso"}, "url"),
        ({"filename": "noext"}, "filename"),
        ({"filename": "evil.sh"}, "filename"),
        ({"checksum": "00"}, "checksum-algorithm"),
        ({"checksum-algorithm": "sha256"}, "checksum"),
    ],
)
async def test_an_invalid_download_is_refused_by_parameter(admin, params, field):
    response = await admin.request("POST", f"{LOCAL}/download-url", **(DOWNLOAD | params))
    assert (response.status_code, list(response.json()["errors"])) == (400, [field])


async def test_a_filename_cannot_escape_its_folder(admin):
    await download(admin, filename="../../etc/x.iso")
    assert await names(admin) == ["local:iso/x.iso"]


async def test_deleting_a_missing_volume_succeeds(admin):
    status = await admin.task("DELETE", f"{LOCAL}/content/local:iso/nope.iso")
    assert status["exitstatus"] == "OK"


async def test_a_block_storage_refuses_to_delete_a_disk_in_use(admin, lab, reason_of):
    lab.state.storages["shared"].type = "rbd"
    path = "/nodes/pve1/storage/shared/content/shared:100/vm-100-disk-0.qcow2"
    response = await admin.request("DELETE", path)
    assert "a guest with VMID '100' exists" in reason_of(response)


async def test_a_directory_storage_deletes_a_disk_in_use(admin):
    """Delete as Proxmox does: without a check whether the disk is in use."""
    path = "/nodes/pve1/storage/shared/content/shared:100/vm-100-disk-0.qcow2"
    assert (await admin.task("DELETE", path))["exitstatus"] == "OK"


async def test_an_upload_task_runs_on_the_receiving_node(admin):
    files = {"filename": ("tiny.iso", b"x" * 2048)}
    path = "/api2/json/nodes/pve2/storage/local/upload"
    response = await admin.http.post(path, data={"content": "iso"}, files=files)
    assert response.json()["data"].startswith("UPID:pve1:")
    await admin.cluster.tasks.settle()
    (row,) = await admin.get("/nodes/pve2/storage/local/content", content="iso")
    assert (row["volid"], row["size"]) == ("local:iso/tiny.iso", 2048)


async def test_a_storage_can_be_created_limited_and_deleted(admin, reason_of):
    await admin.data("POST", "/storage", storage="nas", type="dir", path="/mnt/nas", nodes="pve2")
    assert (await admin.get("/storage/nas"))["path"] == "/mnt/nas"
    response = await admin.request("GET", "/nodes/pve1/storage/nas/content")
    assert reason_of(response) == "storage 'nas' is not available on node 'pve1'"
    assert await admin.get("/nodes/pve2/storage/nas/content") == []
    await admin.data("DELETE", "/storage/nas")
    assert reason_of(await admin.request("GET", "/storage/nas")) == "storage 'nas' does not exist"


async def test_a_shared_storage_has_the_same_content_on_all_nodes(admin):
    first, second = [
        await admin.get(f"/nodes/{node}/storage/shared/content") for node in ("pve1", "pve2")
    ]
    assert first == second
    assert first


ALPINE = Appliance("alpine", "alpine-3.23-default", "20260116", "tar.xz")
APLINFO, PULL = "/nodes/pve1/aplinfo", f"{LOCAL}/oci-registry-pull"


async def templates(admin):
    rows = await admin.get(f"{LOCAL}/content", content="vztmpl")
    return [row["volid"] for row in rows]


async def test_a_template_of_the_index_is_fetched_once(admin, lab):
    assert await admin.get(APLINFO) == []
    lab.state.appliances[ALPINE.template] = ALPINE
    [row] = await admin.get(APLINFO)
    assert row["template"] == "alpine-3.23-default_20260116_amd64.tar.xz"
    assert row["sha512sum"] == checksum_of(row["location"], "sha512")
    file = {"template": row["template"], "storage": "local"}
    for _ in range(2):
        assert (await admin.task("POST", APLINFO, **file))["exitstatus"] == "OK"
    assert await templates(admin) == [f"local:vztmpl/{row['template']}"]
    response = await admin.request("POST", APLINFO, **(file | {"template": "none.tar.xz"}))
    assert (response.status_code, response.json()["errors"]) == (
        400,
        {"template": "no such template"},
    )


async def test_an_image_of_a_registry_becomes_a_template(admin, lab, reason_of):
    lab.state.oci_images["docker.io/library/nginx"] = ("1.29", "latest")
    tags = await admin.get("/nodes/pve1/query-oci-repo-tags", reference="docker.io/library/nginx")
    assert tags == ["1.29", "latest"]
    assert (await admin.task("POST", PULL, reference="nginx:1.29"))["exitstatus"] == "OK"
    assert await templates(admin) == ["local:vztmpl/nginx_1.29.tar"]
    twice = await admin.request("POST", PULL, reference="nginx:1.29")
    assert reason_of(twice) == "refusing to override existing file 'nginx_1.29.tar'"
    missing = await admin.task("POST", PULL, reference="nginx:9", filename="web")
    assert missing["exitstatus"].startswith("command 'skopeo copy docker://nginx:9 ")
    untagged = await admin.request("POST", PULL, reference="nginx")
    assert list(untagged.json()["errors"]) == ["reference"]
