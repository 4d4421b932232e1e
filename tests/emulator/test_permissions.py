"""Permissions: ACL entries, groups, tokens, pools, and the errors without them."""

import pytest

from proxmox_client.emulator.access.principal import Principal, Rights
from proxmox_client.emulator.state.jobs import Pool
from proxmox_client.emulator.state.user_config import AclEntry, Group, Token, User

pytestmark = pytest.mark.anyio


@pytest.fixture
def alice(lab):
    """Return a function that adds ACL entries and returns Alice's privileges on a path.

    An entry is a tuple: path, role, kind, ugid, propagate.
    """
    state = lab.state
    state.user_config.users["alice@pve"] = User("alice@pve")

    def add_entries(*entries, path="/vms/100", token=None):
        state.user_config.acl += [
            AclEntry(
                entry[0],
                entry[2] if len(entry) > 2 else "user",
                entry[3] if len(entry) > 3 else "alice@pve",
                entry[1],
                *entry[4:],
            )
            for entry in entries
        ]
        principal = (
            Principal("alice@pve", token.name, token.privsep) if token else Principal("alice@pve")
        )
        return set(Rights(principal, state).on(path))

    return add_entries


@pytest.mark.parametrize(
    ("method", "path", "parameters"),
    [
        ("PUT", "config", {"delete": "lock"}),
        ("POST", "status/stop", {}),
        ("DELETE", "", {}),
    ],
)
async def test_only_root_ignores_locks_and_not_with_a_token(admin, lab, method, path, parameters):
    lab.state.guests[100].config["lock"] = "backup"
    whole = f"/nodes/pve1/qemu/100/{path}".rstrip("/")
    response = await admin.request(method, whole, **parameters, skiplock=1)
    assert response.json()["errors"] == {"skiplock": "Only root may use this option."}
    assert lab.state.guests[100].lock == "backup"


def test_a_new_user_has_no_privileges(alice):
    assert alice() == set()


def test_an_acl_entry_propagates_below_its_path(alice):
    assert "VM.Audit" in alice(("/", "PVEAuditor"))


def test_an_entry_without_propagation_applies_to_its_path_only(alice):
    entry = ("/vms", "PVEAuditor", "user", "alice@pve", False)
    assert alice(entry, path="/vms/100") == set()
    assert "VM.Audit" in alice(path="/vms")


def test_a_closer_entry_replaces_one_from_above(alice):
    rights = alice(("/", "Administrator"), ("/vms/100", "PVETemplateUser"))
    assert rights == {"VM.Audit", "VM.Clone"}


def test_no_access_removes_all_privileges(alice):
    assert alice(("/", "Administrator"), ("/vms/100", "NoAccess")) == set()


def test_a_group_entry_applies_to_its_members(alice, lab):
    lab.state.user_config.groups["ops"] = Group("ops")
    lab.state.user_config.users["alice@pve"].groups.add("ops")
    assert "VM.PowerMgmt" in alice(("/vms", "PVEVMUser", "group", "ops"))


def test_a_user_entry_overrides_a_group_entry_on_the_same_path(alice, lab):
    lab.state.user_config.users["alice@pve"].groups.add("ops")
    entries = ("/vms", "PVEVMAdmin", "group", "ops"), ("/vms", "PVETemplateUser")
    assert alice(*entries) == {"VM.Audit", "VM.Clone"}


def test_a_pool_entry_applies_to_pool_members_only(alice, lab):
    lab.state.pools["p"] = Pool("p", vmids={100}, storages={"shared"})
    assert "VM.Audit" in alice(("/pool/p", "PVEAuditor"))
    assert "Datastore.Audit" in alice(path="/storage/shared")
    assert alice(path="/vms/101") == set()


@pytest.mark.parametrize(
    ("privsep", "expected"), [(True, {"VM.Audit"}), (False, {"VM.Audit", "VM.Clone"})]
)
def test_a_separated_token_has_the_privileges_of_both(alice, lab, privsep, expected):
    token = Token("tok", "secret", privsep=privsep)
    lab.state.user_config.users["alice@pve"].tokens["tok"] = token
    entries = ("/", "PVETemplateUser"), ("/", "PVEAuditor", "token", "alice@pve!tok")
    assert alice(*entries, token=token) == expected


def test_a_separated_token_without_entries_has_no_privileges(alice, lab):
    token = Token("tok", "secret", privsep=True)
    assert alice(("/", "Administrator"), token=token) == set()


@pytest.fixture
async def limited(lab, open_client):
    """Open a client with a token whose user may audit and clone guests only."""
    token = Token("tok", "00000000-0000-0000-0000-000000000000", privsep=False)
    lab.state.user_config.users["eve@pve"] = User("eve@pve", tokens={"tok": token})
    lab.state.user_config.acl.append(AclEntry("/vms", "user", "eve@pve", "PVETemplateUser"))
    async with open_client(lab, ("eve@pve!tok", token.secret)) as client:
        yield client


EMPTY = (
    "/storage",
    "/pools",
    "/access/users",
    "/access/acl",
    "/nodes/pve1/storage",
    "/nodes/pve1/tasks",
)


@pytest.mark.parametrize("path", EMPTY)
async def test_lists_omit_rows_without_permission(limited, path):
    assert await limited.get(path) == []


STORAGE_AUDIT = "(/storage/local, Datastore.Audit|Datastore.AllocateSpace)"
REFUSED = {
    "/nodes/pve1/status": "(/nodes/pve1, Sys.Audit)",
    "/cluster/status": "(/, Sys.Audit)",
    "/cluster/backup": "(/, Sys.Audit)",
    "/nodes/pve1/storage/local/content": STORAGE_AUDIT,
}


@pytest.mark.parametrize(("path", "missing"), REFUSED.items())
async def test_single_reads_are_refused_with_path_and_privilege(limited, reason_of, path, missing):
    response = await limited.request("GET", path)
    assert response.status_code == 403
    assert reason_of(response) == f"Permission check failed {missing}"


async def test_nodes_are_listed_without_metrics(limited):
    rows = await limited.get("/nodes")
    assert len(rows) == 3
    assert all("cpu" not in row and "maxmem" not in row for row in rows)


async def test_guests_without_permission_are_omitted(limited, lab):
    lab.state.user_config.acl.append(AclEntry("/vms/100", "user", "eve@pve", "NoAccess"))
    rows = await limited.get("/cluster/resources", type="vm")
    listed = {row["vmid"] for row in rows}
    assert listed == lab.state.guests.keys() - {100}
    assert {row["vmid"] for row in await limited.get("/nodes/pve1/qemu")} <= listed


async def test_the_pool_of_a_guest_needs_pool_audit(limited, admin, lab):
    lab.state.pools["p"] = Pool("p", vmids={100})
    assert "pool" not in (await limited.get("/cluster/resources", type="vm"))[0]
    assert (await admin.get("/cluster/resources", type="vm"))[0]["pool"] == "p"


async def test_permissions_are_checked_before_parameters(limited, reason_of):
    response = await limited.request("POST", "/nodes/pve1/qemu/100/snapshot", nonsense="1")
    assert reason_of(response) == "Permission check failed (/vms/100, VM.Snapshot)"


async def test_an_option_needs_its_own_privilege(limited, lab, reason_of):
    lab.state.user_config.roles["Cpu"] = frozenset({"VM.Config.CPU"})
    lab.state.user_config.acl.append(AclEntry("/vms/100", "user", "eve@pve", "Cpu"))
    await limited.data("PUT", "/nodes/pve1/qemu/100/config", cores=3)
    response = await limited.request("PUT", "/nodes/pve1/qemu/100/config", memory=64)
    assert reason_of(response) == "Permission check failed (/vms/100, VM.Config.Memory)"


async def test_tokens_cannot_change_passwords(admin):
    response = await admin.request("PUT", "/access/password", userid="mcp@pve", password="xxxxxxxx")
    assert response.status_code == 403
    assert "not available with API token, need proper ticket" in response.json()["message"]


async def test_permissions_are_returned_by_path(limited):
    assert await limited.get("/access/permissions") == {"/vms": {"VM.Audit": 1, "VM.Clone": 1}}
    assert (await limited.get("/access/permissions", path="/vms/7"))["/vms/7"]["VM.Audit"] == 1


async def test_a_download_needs_storage_and_network_privileges(limited, lab, reason_of):
    download = ("POST", "/nodes/pve1/storage/local/download-url")
    file = {"url": "https://x.test/a.iso", "content": "iso", "filename": "a.iso"}
    acl = lab.state.user_config.acl
    acl.append(AclEntry("/storage/local", "user", "eve@pve", "PVEDatastoreAdmin"))
    refused = await limited.request(*download, **file)
    assert reason_of(refused) == "Permission check failed (/nodes/pve1, Sys.AccessNetwork)"
    lab.state.user_config.roles["Net"] = frozenset({"Sys.AccessNetwork"})
    acl.append(AclEntry("/nodes/pve1", "user", "eve@pve", "Net"))
    assert (await limited.data(*download, **file)).startswith("UPID:pve1:")
