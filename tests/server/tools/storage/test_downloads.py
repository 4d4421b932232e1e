"""DownloadIso."""

import pytest

from proxmox_client.emulator.tasks.content import checksum_of
from pvemcp_server.mcp.elicitation import Decision

pytestmark = pytest.mark.anyio

# an address, because the tests have no name server
URL = "https://151.101.2.132/debian-12.12.0-amd64-netinst.iso"
PLACE = {"cluster_name": "prod", "node": "pve01", "storage": "local"}
ISO = {**PLACE, "url": URL, "filename": "debian-12.12.0-amd64-netinst.iso"}
SHA256 = checksum_of(URL, "sha256")


async def test_an_image_is_downloaded_and_listed_then(demo_client):
    answer = await demo_client("DownloadIso", **ISO, checksum=SHA256, wait=True)
    assert answer.data["ok"] is True
    assert answer.data["volid"] == "local:iso/debian-12.12.0-amd64-netinst.iso"
    assert "Node pve01 downloads it itself" in answer.notes
    listed = await demo_client("ListIsos", **PLACE)
    assert answer.data["volid"] in listed.column("volid")


async def test_a_download_without_a_checksum_or_certificate_check_warns(demo_client):
    answer = await demo_client("DownloadIso", **ISO, verify_certificates=False, dry_run=True)
    assert "Without a checksum the content is not verified." in answer.data["would"]
    assert "The server's certificate is not checked." in answer.data["would"]
    assert URL in answer.data["would"]
    assert not any(one.startswith("POST") for one in demo_client.requests("prod"))


@pytest.mark.parametrize(
    "url",
    [
        "http://cdimage.example.org/x.iso",
        "https://169.254.169.254/x.iso",
        "https://10.20.0.1/x.iso",
        "https://[fe80::1]/x.iso",
        "https://2130706433/x.iso",
        "https://nas.lan/x.iso",
    ],
)
async def test_only_public_https_urls_are_accepted(demo_client, url):
    await demo_client.refused("DownloadIso", **{**ISO, "url": url})
    assert not any(one.startswith("POST") for one in demo_client.requests("prod"))


async def test_settings_open_http_private_addresses_and_narrow_the_hosts(demo_client):
    demo_client.change(allow_http_downloads=True, allow_private_downloads=True)
    inner = {**ISO, "url": "http://10.20.0.1/x.iso", "dry_run": True}
    assert (await demo_client("DownloadIso", **inner)).data["dry_run"] is True
    demo_client.change(download_hosts=("*.debian.org",))
    error = await demo_client.refused("DownloadIso", **inner)
    assert "Allowed are *.debian.org" in error


@pytest.mark.parametrize("name", ["x.exe", "../x.iso", ".iso", "a b.iso", "x.iso/y"])
async def test_a_file_name_that_could_be_anything_else_is_refused(demo_client, name):
    error = await demo_client.refused("DownloadIso", **{**ISO, "filename": name})
    assert error.startswith("filename: ")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"checksum_algorithm": "sha256"}, "give the sha256 checksum too"),
        ({"checksum": "ab" * 20, "checksum_algorithm": "sha256"}, "40 digits are no sha256"),
        ({"checksum": "ab" * 21}, "42 digits are no known checksum"),
        ({"checksum": "not hex"}, "checksum: "),
    ],
)
async def test_a_checksum_has_to_fit_its_algorithm(demo_client, given, says):
    assert says in await demo_client.refused("DownloadIso", **ISO, **given)


async def test_an_existing_file_is_not_downloaded_again(demo_client):
    name = "debian-13.1.0-amd64-netinst.iso"
    error = await demo_client.refused("DownloadIso", **{**ISO, "filename": name})
    assert error.startswith(f"local:iso/{name} exists already.")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"storage": "ceph-vm"}, "Storage ceph-vm does not take iso"),
        ({"storage": "locl"}, "No storage 'locl' on pve01 of prod. Did you mean local"),
        ({"node": "pve05"}, "Node pve05 on prod is offline."),
        ({"node": "pve9"}, "No node 'pve9' on prod."),
    ],
)
async def test_a_place_that_cannot_be_is_refused_by_name(demo_client, change, says):
    assert says in await demo_client.refused("DownloadIso", **{**ISO, **change})


async def test_the_user_is_asked_before_a_host_that_is_not_listed_learns_the_url(demo_client):
    demo_client.conversation.decision = Decision.NO
    assert "The user declined" in await demo_client.refused("DownloadIso", **ISO)
    [question] = demo_client.conversation.questions
    assert "151.101.2.132 is not a listed download host; it learns this URL." in question
    assert not any(one.startswith("POST") for one in demo_client.requests("prod"))
    demo_client.change(download_hosts=("151.101.2.132",))
    assert (await demo_client("DownloadIso", **ISO)).data["success"] is True
    assert len(demo_client.conversation.questions) == 1


async def test_a_host_that_is_not_listed_is_refused_where_no_one_is_asked(demo_client):
    demo_client.change(confirm_destructive="deny")
    assert "are switched off here" in await demo_client.refused("DownloadIso", **ISO)
