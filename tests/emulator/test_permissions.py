"""Who may do what: grants, groups, tokens, pools, and how Proxmox says no."""

import pytest

from proxmox_client.emulator.access.principal import Principal, Rights
from proxmox_client.emulator.state.jobs import Pool
from proxmox_client.emulator.state.user_config import AclEntry, Group, Token, User

pytestmark = pytest.mark.anyio


@pytest.fixture
def alice(lab):
    """Opens Alice's rights on a path after granting: path, role, and more."""
    state = lab.state
    state.user_config.users["alice@pve"] = User("alice@pve")

    def grant(*grants, path="/vms/100", token=None):
        state.user_config.acl += [
            AclEntry(
                each[0],
                each[2] if len(each) > 2 else "user",
                each[3] if len(each) > 3 else "alice@pve",
                each[1],
                *each[4:],
            )
            for each in grants
        ]
        caller = (
            Principal("alice@pve", token.name, token.privsep) if token else Principal("alice@pve")
        )
        return set(Rights(caller, state).on(path))

    return grant


def test_nothing_is_granted_at_first(alice):
    assert alice() == set()


def test_a_grant_reaches_below_its_path(alice):
    assert "VM.Audit" in alice(("/", "PVEAuditor"))


def test_a_grant_that_does_not_propagate_stays_where_it_is(alice):
    kept = ("/vms", "PVEAuditor", "user", "alice@pve", False)
    assert alice(kept, path="/vms/100") == set()
    assert "VM.Audit" in alice(path="/vms")


def test_a_closer_grant_replaces_one_from_above(alice):
    rights = alice(("/", "Administrator"), ("/vms/100", "PVETemplateUser"))
    assert rights == {"VM.Audit", "VM.Clone"}


def test_no_access_takes_everything(alice):
    assert alice(("/", "Administrator"), ("/vms/100", "NoAccess")) == set()


def test_a_group_grants_to_its_members(alice, lab):
    lab.state.user_config.groups["ops"] = Group("ops")
    lab.state.user_config.users["alice@pve"].groups.add("ops")
    assert "VM.PowerMgmt" in alice(("/vms", "PVEVMUser", "group", "ops"))


def test_a_user_s_own_grant_outweighs_that_of_a_group_on_the_same_path(alice, lab):
    lab.state.user_config.users["alice@pve"].groups.add("ops")
    grants = ("/vms", "PVEVMAdmin", "group", "ops"), ("/vms", "PVETemplateUser")
    assert alice(*grants) == {"VM.Audit", "VM.Clone"}


def test_a_pool_grants_on_its_members_only(alice, lab):
    lab.state.pools["p"] = Pool("p", vmids={100}, storages={"shared"})
    assert "VM.Audit" in alice(("/pool/p", "PVEAuditor"))
    assert "Datastore.Audit" in alice(path="/storage/shared")
    assert alice(path="/vms/101") == set()


@pytest.mark.parametrize(
    ("privsep", "expected"), [(True, {"VM.Audit"}), (False, {"VM.Audit", "VM.Clone"})]
)
def test_a_separated_token_has_what_both_it_and_its_user_have(alice, lab, privsep, expected):
    token = Token("tok", "secret", privsep=privsep)
    lab.state.user_config.users["alice@pve"].tokens["tok"] = token
    grants = ("/", "PVETemplateUser"), ("/", "PVEAuditor", "token", "alice@pve!tok")
    assert alice(*grants, token=token) == expected


def test_a_separated_token_has_nothing_of_its_own(alice, lab):
    token = Token("tok", "secret", privsep=True)
    assert alice(("/", "Administrator"), token=token) == set()


@pytest.fixture
async def limited(lab, asker):
    """Asks as a token whose user may look at guests and nothing else."""
    token = Token("tok", "00000000-0000-0000-0000-000000000000", privsep=False)
    lab.state.user_config.users["eve@pve"] = User("eve@pve", tokens={"tok": token})
    lab.state.user_config.acl.append(AclEntry("/vms", "user", "eve@pve", "PVETemplateUser"))
    async with asker(lab, ("eve@pve!tok", token.secret)) as opened:
        yield opened


EMPTY = (
    "/storage",
    "/pools",
    "/access/users",
    "/access/acl",
    "/nodes/pve1/storage",
    "/nodes/pve1/tasks",
)


@pytest.mark.parametrize("path", EMPTY)
async def test_lists_leave_out_what_may_not_be_seen(limited, path):
    assert await limited.get(path) == []


LOOK_AT_STORAGE = "(/storage/local, Datastore.Audit|Datastore.AllocateSpace)"
REFUSED = {
    "/nodes/pve1/status": "(/nodes/pve1, Sys.Audit)",
    "/cluster/status": "(/, Sys.Audit)",
    "/cluster/backup": "(/, Sys.Audit)",
    "/nodes/pve1/storage/local/content": LOOK_AT_STORAGE,
}


@pytest.mark.parametrize(("path", "missing"), REFUSED.items())
async def test_single_things_are_refused_naming_path_and_privilege(
    limited, reason_of, path, missing
):
    response = await limited.ask("GET", path)
    assert response.status_code == 403
    assert reason_of(response) == f"Permission check failed {missing}"


async def test_nodes_are_listed_without_their_load(limited):
    rows = await limited.get("/nodes")
    assert len(rows) == 3
    assert all("cpu" not in row and "maxmem" not in row for row in rows)


async def test_guests_are_listed_as_far_as_they_may_be_seen(limited, lab):
    lab.state.user_config.acl.append(AclEntry("/vms/100", "user", "eve@pve", "NoAccess"))
    rows = await limited.get("/cluster/resources", type="vm")
    listed = {row["vmid"] for row in rows}
    assert listed == lab.state.guests.keys() - {100}
    assert {row["vmid"] for row in await limited.get("/nodes/pve1/qemu")} <= listed


async def test_a_pool_s_name_is_shown_to_those_who_may_see_the_pool(limited, admin, lab):
    lab.state.pools["p"] = Pool("p", vmids={100})
    assert "pool" not in (await limited.get("/cluster/resources", type="vm"))[0]
    assert (await admin.get("/cluster/resources", type="vm"))[0]["pool"] == "p"


async def test_a_change_without_the_privilege_is_refused_before_it_is_checked(limited, reason_of):
    response = await limited.ask("POST", "/nodes/pve1/qemu/100/snapshot", nonsense="1")
    assert reason_of(response) == "Permission check failed (/vms/100, VM.Snapshot)"


async def test_an_option_needs_the_privilege_of_its_kind(limited, lab, reason_of):
    lab.state.user_config.roles["Cpu"] = frozenset({"VM.Config.CPU"})
    lab.state.user_config.acl.append(AclEntry("/vms/100", "user", "eve@pve", "Cpu"))
    await limited.data("PUT", "/nodes/pve1/qemu/100/config", cores=3)
    response = await limited.ask("PUT", "/nodes/pve1/qemu/100/config", memory=64)
    assert reason_of(response) == "Permission check failed (/vms/100, VM.Config.Memory)"


async def test_tokens_may_not_change_passwords(admin):
    response = await admin.ask("PUT", "/access/password", userid="mcp@pve", password="xxxxxxxx")
    assert response.status_code == 403
    assert "not available with API token, need proper ticket" in response.json()["message"]


async def test_permissions_say_what_is_held_where(limited):
    assert await limited.get("/access/permissions") == {"/vms": {"VM.Audit": 1, "VM.Clone": 1}}
    assert (await limited.get("/access/permissions", path="/vms/7"))["/vms/7"]["VM.Audit"] == 1


async def test_download_needs_the_storage_and_either_the_network_or_the_system(
    limited, lab, reason_of
):
    download = ("POST", "/nodes/pve1/storage/local/download-url")
    file = {"url": "https://x.test/a.iso", "content": "iso", "filename": "a.iso"}
    grants = lab.state.user_config.acl
    grants.append(AclEntry("/storage/local", "user", "eve@pve", "PVEDatastoreAdmin"))
    refused = await limited.ask(*download, **file)
    assert reason_of(refused) == "Permission check failed (/nodes/pve1, Sys.AccessNetwork)"
    lab.state.user_config.roles["Net"] = frozenset({"Sys.AccessNetwork"})
    grants.append(AclEntry("/nodes/pve1", "user", "eve@pve", "Net"))
    assert (await limited.data(*download, **file)).startswith("UPID:pve1:")
