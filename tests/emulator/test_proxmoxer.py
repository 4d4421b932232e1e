"""The third-party client proxmoxer works with the emulator."""

import threading

import anyio
import proxmoxer
import pytest
from proxmoxer.tools import Tasks

from proxmox_client.emulator import Clock, Emulator, Scenario

SCENARIO = Scenario.cluster("lab", nodes=3, guests=12)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """Run the emulator in a thread, for the blocking client."""
    shared, ready = {}, threading.Event()

    async def serve():
        async with Emulator(SCENARIO, clock=Clock(20)) as pve:
            cluster = shared["cluster"] = pve["lab"]
            shared["stop"] = anyio.Event()
            shared["token"] = anyio.lowlevel.current_token()
            folder = tmp_path_factory.mktemp("ca")
            shared["ca"] = folder / "ca.pem"
            (folder / "ca.pem").write_text(cluster.ca_pem)
            ready.set()
            await shared["stop"].wait()

    thread = threading.Thread(target=anyio.run, args=(serve,))
    thread.start()
    assert ready.wait(30)
    yield shared
    anyio.from_thread.run_sync(shared["stop"].set, token=shared["token"])
    thread.join()


@pytest.fixture(params=["password", "token"])
def client(request, emulated):
    """Return a proxmoxer client, signed in with a password or a token."""
    cluster = emulated["cluster"]
    host, port = cluster.hosts[0].split(":")
    common = {"port": int(port), "verify_ssl": str(emulated["ca"])}
    if request.param == "password":
        user, password = cluster.password
        return proxmoxer.ProxmoxAPI(host, user=user, password=password, **common)
    name, secret = cluster.token
    user, token = name.split("!")
    return proxmoxer.ProxmoxAPI(host, user=user, token_name=token, token_value=secret, **common)


def wait_for(client, upid):
    return Tasks.blocking_status(client, upid, timeout=60, polling_interval=0.05)


def test_proxmoxer_signs_in_and_lists(client):
    assert client.version.get()["release"] == "9.2"
    assert {node["node"] for node in client.nodes.get()} == {"pve1", "pve2", "pve3"}
    vms = client.cluster.resources.get(type="vm")
    assert len(vms) == 12
    listed = {
        vm["vmid"] for node in client.nodes.get() for vm in client.nodes(node["node"]).qemu.get()
    }
    assert listed <= {vm["vmid"] for vm in vms}


def test_proxmoxer_creates_and_deletes_a_snapshot(client):
    vm = client.nodes("pve1").qemu(100)
    assert (
        wait_for(client, vm.snapshot.post(snapname="before", description="x"))["exitstatus"] == "OK"
    )
    assert "before" in [row["name"] for row in vm.snapshot.get()]
    assert wait_for(client, vm.snapshot("before").delete())["exitstatus"] == "OK"


def test_proxmoxer_migrates_and_reads_the_log(client):
    upid = client.nodes("pve2").qemu(101).migrate.post(target="pve3", online=1)
    assert wait_for(client, upid)["exitstatus"] == "OK"
    log = Tasks.decode_log(client.nodes("pve2").tasks(upid).log.get())
    assert "migration finished successfully" in log
    back = client.nodes("pve3").qemu(101).migrate.post(target="pve2", online=1)
    assert wait_for(client, back)["exitstatus"] == "OK"


def test_proxmoxer_decodes_the_upid(client):
    upid = client.nodes("pve1").qemu(100).status.reset.post()
    decoded = Tasks.decode_upid(upid)
    assert (decoded["node"], decoded["type"], decoded["id"]) == ("pve1", "qmreset", "100")
    wait_for(client, upid)


def test_proxmoxer_reports_errors_by_parameter(client):
    with pytest.raises(proxmoxer.ResourceException) as error:
        client.nodes("pve1").qemu(100).config.put(cores=0)
    assert error.value.status_code == 400
    assert error.value.errors == {"cores": "value must have a minimum value of 1"}
    with pytest.raises(proxmoxer.ResourceException, match="does not exist"):
        client.nodes("pve1").qemu(999).config.get()


def test_a_wrong_password_is_refused(emulated):
    host, port = emulated["cluster"].hosts[0].split(":")
    with pytest.raises(proxmoxer.AuthenticationError):
        proxmoxer.ProxmoxAPI(
            host, port=int(port), user="root@pam", password="wrong", verify_ssl=str(emulated["ca"])
        )
