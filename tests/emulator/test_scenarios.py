"""Scenarios by size and from YAML, and the pytest fixtures."""

import asyncio
from pathlib import Path

import pytest
from tests.ports import free_port

from proxmox_client.emulator import Emulator, Scenario

pytestmark = pytest.mark.anyio

SCENARIO = """
clusters:
  - name: shop
    version: "8.4"
    nodes:
      - {name: alpha, cpus: 4, memory: 16G}
      - beta
    storages:
      - {name: local, type: dir, total: 100G, options: {path: /var/lib/vz},
         volumes: [{name: iso/debian.iso, content: iso, size: 600M, age_days: 400}]}
      - {name: nas, type: nfs, shared: true, content: "images,backup"}
    guests:
      - {vmid: 100, name: till, node: alpha, disks: [8, 16], config: {cores: 4},
         snapshots: [{name: fresh, age_days: 40, description: as installed}]}
      - {vmid: 101, name: back, node: alpha, disks: [8, 16], pending: {cores: 8}, removals: [scsi1]}
      - {vmid: 200, name: mail, node: beta, type: lxc, disk: 4, running: false}
    pools: [{name: front, vmids: [100]}]
    realms: [{realm: corp, type: ldap, default: true}]
    groups: [staff]
    users:
      - userid: kim@pve
        groups: [staff]
        factors: [{kind: totp, secret: JBSWY3DPEHPK3PXP}]
        tokens: [{name: reader, secret: 00000000-0000-0000-0000-000000000001}]
    acl:
      - {path: /, kind: group, ugid: staff, role: PVEAuditor}
      - {path: /, kind: token, ugid: kim@pve!reader, role: PVEAuditor}
    downloads: {"https://x.test/gone.iso": null}
    faults:
      - {kind: error, path: /cluster/backup, message: out of order}
  - {name: big, nodes: 2, guests: 30, seed: 4}
  - {name: show, demo: home-lab}
"""


@pytest.fixture
async def clusters():
    async with Emulator(Scenario.load(SCENARIO)) as pve:
        yield pve


@pytest.fixture
async def shop(clusters, open_client):
    async with open_client(clusters["shop"], clusters["shop"].token) as client:
        yield client


async def test_a_scenario_file_describes_realms_and_second_factors(shop):
    corp = next(row for row in await shop.get("/access/domains") if row["realm"] == "corp")
    assert corp == {"realm": "corp", "type": "ldap", "default": 1}
    (factor,) = await shop.get("/access/tfa/kim@pve")
    assert factor["type"] == "totp"


async def test_a_scenario_file_describes_nodes_guests_and_storages(shop):
    assert (await shop.get("/version"))["release"] == "8.4"
    config = await shop.get("/nodes/alpha/qemu/100/config")
    assert (config["name"], config["cores"]) == ("till", 4)
    assert config["scsi1"].endswith("size=16G")
    assert (await shop.get("/nodes/beta/lxc/200/status/current"))["status"] == "stopped"
    assert (await shop.get("/nodes/alpha/qemu/100/snapshot"))[0]["name"] == "fresh"
    assert (await shop.get("/nodes/alpha/storage/local/content"))[0][
        "volid"
    ] == "local:iso/debian.iso"
    assert (await shop.get("/nodes/alpha/status"))["memory"]["total"] == 16 * 1024**3


async def test_a_scenario_file_describes_pending_changes(shop):
    running = await shop.get("/nodes/alpha/qemu/101/config", current=1)
    assert (running["cores"], "scsi1" in running) == (2, True)
    later = await shop.get("/nodes/alpha/qemu/101/config")
    assert (later["cores"], "scsi1" in later) == (8, False)


async def test_a_scenario_file_describes_users_and_permissions(clusters, open_client):
    token = ("kim@pve!reader", "00000000-0000-0000-0000-000000000001")
    async with open_client(clusters["shop"], token) as kim:
        assert len(await kim.get("/cluster/resources", type="vm")) == 3
        assert (await kim.request("POST", "/nodes/alpha/qemu/100/status/stop")).status_code == 403


async def test_a_scenario_file_describes_initial_faults(shop, reason_of):
    assert reason_of(await shop.request("GET", "/cluster/backup")) == "out of order"


async def test_a_scenario_file_can_use_a_size_or_a_demo(clusters):
    assert len(clusters["big"].state.guests) == 30
    assert len(clusters["show"].state.guests) == 14
    assert clusters["show"].name == "show"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "mapping with a list of clusters"),
        ("clusters: []", "mapping with a list of clusters"),
        ("clusters: [{name: a, demo: moon}]", "No demo 'moon'; choose one of home-lab, prod"),
    ],
)
def test_an_invalid_scenario_file_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Scenario.load(text)


async def test_the_documented_scenario_is_valid():
    page = Path(__file__).parents[2] / "docs" / "contributors" / "emulator.md"
    text = page.read_text().partition("```yaml\n")[2].partition("```")[0]
    async with Emulator(Scenario.load(text)) as pve:
        assert [cluster.name for cluster in pve] == ["shop", "big", "show"]
        assert pve["shop"].state.guests[100].load.cpu == 0.8


async def test_an_unknown_version_is_refused():
    with pytest.raises(ValueError, match=r"No version '7\.4'; choose one of 8\.4"):
        async with Emulator(Scenario.cluster("old", version="7.4")):
            pass


def test_a_scenario_is_read_from_a_file(tmp_path):
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    assert list(Scenario.load(path).clusters) == ["shop", "big", "show"]


async def test_scenarios_can_be_added():
    both = Scenario.cluster("one", nodes=1, guests=1) + Scenario.cluster("two", version="8.4")
    async with Emulator(both) as pve:
        assert {cluster.name: cluster.state.version for cluster in pve} == {
            "one": "9.2",
            "two": "8.4",
        }


async def test_the_same_seed_builds_the_same_guests():
    configs = []
    for _ in range(2):
        async with Emulator(Scenario.cluster("lab", guests=50, seed=3)) as pve:
            guests = pve["lab"].state.guests
            configs.append({vmid: guest.config["net0"] for vmid, guest in guests.items()})
    assert configs[0] == configs[1]


async def test_the_fixture_returns_a_running_cluster(proxmox, open_client):
    cluster = proxmox["lab"]
    assert len(cluster.hosts) == len(cluster.fingerprints) == 3
    async with open_client(cluster, cluster.token) as client:
        assert len(await client.get("/nodes")) == 3


async def test_ten_thousand_guests_are_listed_completely(open_client):
    scenario = Scenario.cluster("big", nodes=10, guests=10_000)
    async with Emulator(scenario) as pve, open_client(pve["big"], pve["big"].token) as client:
        rows = await client.get("/cluster/resources", type="vm")
        assert len(rows) == len({row["vmid"] for row in rows}) == 10_000


async def test_nodes_can_use_consecutive_ports():
    port = free_port(following=1)
    both = Scenario.cluster("one", nodes=1) + Scenario.cluster("two", nodes=1)
    async with Emulator(both, first_port=port) as pve:
        hosts = [cluster.hosts for cluster in pve]
    assert hosts == [[f"127.0.0.1:{port}"], [f"127.0.0.1:{port + 1}"]]


async def test_a_port_in_use_is_an_error_and_leaks_nothing():
    async with Emulator(Scenario.cluster("lab", nodes=1)) as pve:
        used_port = pve["lab"].state.nodes["pve1"].port
        two = Scenario.cluster("one", nodes=1) + Scenario.cluster("two", nodes=2)
        with pytest.raises(OSError, match="Address already in use"):
            async with Emulator(two, first_port=used_port - 1):
                pass
        _, writer = await asyncio.open_connection("127.0.0.1", used_port)
        writer.close()
