"""DownloadIso."""

import pytest

from proxmox_client.emulator.tasks.content import checksum_of
from pvemcp_server.mcp.elicitation import Decision

pytestmark = pytest.mark.anyio

# an address, because the tests have no name server
URL = "https://93.184.216.34/debian-12.12.0-amd64-netinst.iso"
PLACE = {"cluster_name": "prod", "node": "pve01", "storage": "local"}
ISO = {**PLACE, "source": URL, "filename": "debian-12.12.0-amd64-netinst.iso"}
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
    assert "Not verified: no checksum is given." in answer.data["would"]
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
    await demo_client.refused("DownloadIso", **{**ISO, "source": url})
    assert not any(one.startswith("POST") for one in demo_client.requests("prod"))


async def test_settings_open_http_private_addresses_and_narrow_the_hosts(demo_client):
    demo_client.change(allow_http_downloads=True, allow_private_downloads=True)
    inner = {**ISO, "source": "http://10.20.0.1/x.iso", "dry_run": True}
    assert (await demo_client("DownloadIso", **inner)).data["dry_run"] is True
    demo_client.change(download_hosts=("*.debian.org",))
    error = await demo_client.refused("DownloadIso", **inner)
    assert "Allowed are *.debian.org" in error


async def test_a_file_name_that_could_be_anything_else_is_refused(demo_client):
    for name in ("x.exe", "../x.iso", ".iso", "a b.iso", "x.iso/y", "x.tar"):
        error = await demo_client.refused("DownloadIso", **{**ISO, "filename": name})
        assert error.startswith("filename: "), name
    for url in (f"{URL}/", "https://93.184.216.34", "https://[::1/a%20b.iso"):
        error = await demo_client.refused("DownloadIso", **PLACE, source=url)
        assert error.startswith("filename: "), url


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"checksum": "ab" * 21}, "42 digits are no known checksum"),
        ({"checksum": "not hex"}, "checksum: "),
    ],
)
async def test_a_checksum_has_the_length_of_an_algorithm(demo_client, given, says):
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


async def test_the_end_of_the_name_decides_what_is_stored_and_what_undoes_it(demo_client):
    demo_client["prod"].emulated.state.storages["local"].content += ("import",)
    for ending, kind, tool in (
        ("iso", "iso", "DeleteIso"),
        ("qcow2", "import", "DeleteStorageContent"),
        ("tar.xz", "vztmpl", "DeleteStorageContent"),
    ):
        answer = await demo_client(
            "DownloadIso", **PLACE, source=f"https://93.184.216.34/a.{ending}?x=1", wait=True
        )
        volid = f"local:{kind}/a.{ending}"
        assert (answer.data["ok"], answer.data["volid"]) == (True, volid)
        assert answer.data["undo"].startswith(f"{tool} {{")
        assert volid in answer.data["undo"]


TEMPLATE = "debian-12-standard_12.12-1_amd64.tar.zst"


async def test_a_template_of_the_index_is_downloaded_and_checked_with_its_checksum(demo_client):
    demo_client.change(confirm_destructive="deny")  # nothing is disclosed
    arguments = {**PLACE, "source": TEMPLATE}
    preview = (await demo_client("DownloadIso", **arguments, dry_run=True)).data
    assert preview["would"] == (
        f"Let node pve01 of prod download template {TEMPLATE}, checked with the checksum of its "
        f"index, to local:vztmpl/{TEMPLATE}."
    )
    answer = await demo_client("DownloadIso", **arguments, wait=True)
    assert (answer.data["ok"], answer.data["volid"]) == (True, f"local:vztmpl/{TEMPLATE}")
    listed = await demo_client("ListTemplates", **PLACE)
    assert answer.data["volid"] in listed.column("volid")
    assert "exists already" in await demo_client.refused("DownloadIso", **arguments)


async def test_every_template_of_the_table_can_be_downloaded(demo_client):
    where = {"field": "node", "operator": "=", "value": "pve01"}
    query = {"from": "available_templates", "select": ["template"], "where": where}
    rows = await demo_client("ExecuteQuery", query=query)
    there = set((await demo_client("ListTemplates", **PLACE)).column("name"))
    names = set(rows.column("template"))
    assert TEMPLATE in names - there
    for name in sorted(names - there):
        assert (await demo_client("DownloadIso", **PLACE, source=name, dry_run=True)).data["would"]


IMAGE = "docker.io/library/nginx:1.29"


async def test_an_image_is_pulled_from_a_listed_registry(demo_client):
    demo_client.change(download_hosts=("docker.io",))
    answer = await demo_client("DownloadIso", **PLACE, source="nginx:1.29", wait=True)
    assert (answer.data["ok"], answer.data["volid"]) == (True, "local:vztmpl/nginx_1.29.tar")
    assert "Not verified: a tag can be moved" in answer.notes
    named = await demo_client("DownloadIso", **PLACE, source=IMAGE, filename="web.tar", wait=True)
    assert named.data["volid"] == "local:vztmpl/web.tar"
    assert demo_client.conversation.questions == []


async def test_tags_are_read_of_listed_registries_only(demo_client):
    host = "93.184.216.34:5000"
    demo_client["prod"].emulated.state.oci_images[f"{host}/web"] = ("1.0", "1.1")
    arguments = {**PLACE, "source": f"{host}/web:2.0", "dry_run": True}
    preview = (await demo_client("DownloadIso", **arguments)).data["would"]
    assert f"{host.partition(':')[0]} is not a listed download host" in preview
    untagged = {**arguments, "source": f"{host}/web"}
    assert "/web, as latest." in await demo_client.refused("DownloadIso", **untagged)
    assert not any("query-oci-repo-tags" in request for request in demo_client.requests("prod"))
    demo_client.change(download_hosts=("93.184.216.34",))
    assert "/web, as 1.0, 1.1." in await demo_client.refused("DownloadIso", **untagged)
    wrong = {**arguments, "source": f"{host}/web:2.0"}
    assert "No tag '2.0' of" in await demo_client.refused("DownloadIso", **wrong)


async def test_the_user_is_asked_before_a_registry_that_is_not_listed(demo_client):
    source = "93.184.216.34:5000/web:1.0"
    demo_client["prod"].emulated.state.oci_images["93.184.216.34:5000/web"] = ("1.0",)
    demo_client.conversation.decision = Decision.NO
    assert "The user declined" in await demo_client.refused("DownloadIso", **PLACE, source=source)
    assert not any(one.startswith("POST") for one in demo_client.requests("prod"))
    demo_client.conversation.decision = Decision.YES
    assert (await demo_client("DownloadIso", **PLACE, source=source, wait=True)).data["ok"] is True


async def test_a_source_that_is_not_there_or_not_allowed_is_refused(demo_client):
    lab = {"cluster_name": "home-lab", "node": "pve", "storage": "local"}
    for place, settings, arguments, says in (
        (PLACE, {}, {"source": "debian-13-standrd_13.1-2_amd64.tar.zst"}, "Did you mean debian-13"),
        (PLACE, {}, {"source": "debian-13"}, "There is debian-13-standard_13.1-2_amd64.tar.zst."),
        (PLACE, {}, {"source": TEMPLATE, "filename": "x.tar.zst"}, "filename: a template keeps"),
        (PLACE, {}, {"source": TEMPLATE, "checksum": SHA256}, "checksum: only an https://"),
        (PLACE, {}, {"source": IMAGE, "verify_certificates": False}, "verify_certificates: "),
        (PLACE, {}, {"source": "Nginx:1"}, "source: 'Nginx:1' is no address"),
        (PLACE, {}, {"source": "localhost/web:1"}, "which is not public"),
        (PLACE, {}, {"source": "10.0.0.1:5000/web:1"}, "which is not public"),
        (PLACE, {}, {"source": "169.254.169.254/web:1"}, "link-local or metadata"),
        (
            PLACE,
            {"download_hosts": ("*.debian.org",)},
            {"source": TEMPLATE},
            "download.proxmox.com",
        ),
        (PLACE, {"download_hosts": ("*.debian.org",)}, {"source": IMAGE}, "from docker.io are not"),
        (lab, {}, {"source": IMAGE}, "OCI images need Proxmox VE 9.1; home-lab has 8.4"),
        (PLACE, {}, {"source": "nginx"}, "and an OCI image has a tag: nginx:latest."),
    ):
        demo_client.change(**{"download_hosts": (), **settings})
        assert says in await demo_client.refused("DownloadIso", **place, **arguments), arguments
    for cluster in ("prod", "home-lab"):
        assert not any(one.startswith("POST") for one in demo_client.requests(cluster))


async def test_a_node_without_an_index_says_how_it_gets_one(demo_client):
    demo_client["prod"].emulated.state.appliances.clear()
    assert "pveam update" in await demo_client.refused("DownloadIso", **PLACE, source=TEMPLATE)


async def test_a_dry_run_names_the_privilege_of_its_source(demo_client, new_token, with_token):
    token = new_token(
        demo_client["prod"].emulated, ("/", "PVEAuditor"), ("/storage", "PVEDatastoreAdmin")
    )
    client = await with_token(demo_client, "prod", token)
    client.change(download_hosts=("93.184.216.34",))
    lacks = "Sys.AccessNetwork"
    for source, network in ((URL, True), (TEMPLATE, False)):
        arguments = {**PLACE, "source": source}
        answer = await client("DownloadIso", **arguments, dry_run=True)
        assert (lacks in answer.notes) is network, source


async def test_the_user_is_asked_before_a_host_that_is_not_listed_learns_the_url(demo_client):
    demo_client.conversation.decision = Decision.NO
    assert "The user declined" in await demo_client.refused("DownloadIso", **ISO)
    [question] = demo_client.conversation.questions
    assert "93.184.216.34 is not a listed download host; it learns this address." in question
    assert not any(one.startswith("POST") for one in demo_client.requests("prod"))
    demo_client.change(download_hosts=("93.184.216.34",))
    assert (await demo_client("DownloadIso", **ISO)).data["success"] is True
    assert len(demo_client.conversation.questions) == 1


async def test_a_host_that_is_not_listed_is_refused_where_no_one_is_asked(demo_client):
    demo_client.change(confirm_destructive="deny")
    assert "are switched off here" in await demo_client.refused("DownloadIso", **ISO)
