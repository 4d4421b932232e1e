"""Each `pveum` line runs on an emulated ACL: it adds the privilege and removes none."""

import random
from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise, product
from pathlib import Path

import pytest

import pvemcp_server.tools.all  # noqa: F401 - declares the tools
from proxmox_client import ApiToken, Client, Tls
from proxmox_client.emulator import Clock, Emulator, Scenario
from proxmox_client.emulator.access.principal import Principal, Rights
from proxmox_client.emulator.access.roles import all_privileges, builtin_roles
from proxmox_client.emulator.cluster import EmulatedCluster
from proxmox_client.emulator.state.jobs import Pool
from proxmox_client.emulator.state.user_config import AclEntry, Group, Token, User
from pvemcp_server.clusters.acl import Acl, Advice, question
from pvemcp_server.clusters.checks import AUDITS
from pvemcp_server.toolkit.registry import tools

pytestmark = pytest.mark.anyio

REPOSITORY = Path(__file__).parents[3]
SECRET = "00000000-0000-0000-0000-000000000001"
USER, TOKEN = "alice@pve", "alice@pve!mcp"
PATHS = ("/", "/access", "/nodes", "/nodes/n1", "/pool", "/pool/web", "/storage")
PATHS += ("/storage/local", "/vms", "/vms/100", "/vms/101")
ROLES = ("Administrator", "PVEAuditor", "PVEVMUser", "PVEDatastoreUser", "PowerOnly", "LookOnly")
CAN_READ_ACL = tuple(
    ("/access", kind, name, "LookOnly") for kind, name in (("user", USER), ("token", TOKEN))
)
PRIVILEGES = (
    *product(("/vms", "/vms/100", "/vms/101"), ("VM.Audit", "VM.PowerMgmt", "VM.Backup")),
    *product(("/storage", "/storage/local"), ("Datastore.Audit", "Datastore.AllocateSpace")),
    *product(("/nodes", "/nodes/n1"), ("Sys.Audit", "Sys.AccessNetwork")),
    ("/", "Sys.Audit"),
    ("/pool", "Pool.Audit"),
)


# Paths that Proxmox names in refusals, and the kinds of privileges that it checks there
REFUSED = {
    "/": {"Sys"},
    "/access": {"Sys", "User", "Group", "Realm", "Permissions"},
    "/access/groups/ops": {"User", "Sys", "Group"},
    "/access/realm/pve": {"Realm", "User"},
    "/mapping/pci/gpu": {"Mapping"},
    "/nodes/n1": {"Sys"},
    "/pool/web": {"Pool", "VM", "Datastore"},
    "/sdn/zones/localnetwork/vmbr0": {"SDN"},
    "/storage/local": {"Datastore"},
    "/vms/100": {"VM"},
}


@pytest.fixture(params=["8.4", "9.2"], scope="module")
async def cluster(request, anyio_backend):
    scenario = Scenario.cluster("lab", nodes=1, guests=2, version=request.param)
    async with Emulator(scenario, clock=Clock(200.0)) as emulator:
        yield emulator["lab"]


@pytest.fixture(scope="module")
async def pve(cluster):
    """Connect as the token that gets the privileges."""
    grant(cluster)
    tls = Tls(fingerprints=cluster.fingerprints.values())
    async with Client(cluster.hosts, ApiToken(TOKEN, SECRET), tls=tls, name="lab") as client:
        yield client


def grant(cluster, *grants, separated=True, user=USER, token=TOKEN):
    """Replace the accounts and their grants by these: (path, kind, name, role)."""
    people = cluster.state.user_config
    people.acl[:] = [AclEntry(*entry) for entry in grants]
    people.groups = {name: Group(name) for name in ("ops", "others")}
    people.roles = {
        "PowerOnly": frozenset({"VM.Audit", "VM.PowerMgmt"}),
        "LookOnly": frozenset({"VM.Audit", "Sys.Audit"}),
    }
    name = token.partition("!")[2]
    tokens = {
        name: Token(name, SECRET, privsep=separated),
        "other": Token("other", SECRET, privsep=True),
    }
    people.users = {
        user: User(user, groups={"ops"}, tokens=tokens),
        "bob@pve": User("bob@pve", groups={"ops", "others"}),
    }
    cluster.state.pools = {"web": Pool("web", vmids={101})}


def rights(cluster: EmulatedCluster) -> dict[tuple[str, str], set[str]]:
    """Return the privileges of all accounts on each path, and on a path below without entries."""
    paths = {*PATHS, *(entry.path for entry in cluster.state.user_config.acl)}
    paths |= {f"{path.rstrip('/')}/999" for path in paths}
    return {
        (caller.name, path): set(Rights(caller, cluster.state).on(path))
        for caller in _callers(cluster)
        for path in paths
    }


def _callers(cluster: EmulatedCluster) -> Iterator[Principal]:
    for user in cluster.state.user_config.users.values():
        yield Principal(user.userid)
        for name, token in user.tokens.items():
            yield Principal(user.userid, name, token.privsep)


def lost(before, after):
    return {
        key: names - after[key] for key, names in before.items() if names - after.get(key, names)
    }


def has(cluster, path, *privileges):
    """Return whether the token has the privileges on the path and below it."""
    user, _, token_name = TOKEN.partition("!")
    token = cluster.state.user_config.users[user].tokens[token_name]
    held = Rights(Principal(user, token_name, token.privsep), cluster.state).on(path)
    below = Rights(Principal(user, token_name, token.privsep), cluster.state).on(
        f"{path.rstrip('/')}/999"
    )
    pooled = path == "/vms/101"  # a role from a pool holds on the guest itself
    return all(
        (pooled and name in held) or (held.get(name) and name in below) for name in privileges
    )


def random_grants(seed: int):
    """Return random grants of the user, its token and groups, and whether it is separated."""
    dice = random.Random(seed)  # noqa: S311
    holders = [
        ("user", USER),
        ("user", USER),
        ("token", TOKEN),
        ("group", "ops"),
        ("group", "others"),
    ]
    roles = (*ROLES, "NoAccess") if dice.random() < 0.3 else ROLES
    grants = [
        (dice.choice(PATHS), *dice.choice(holders), dice.choice(roles), dice.random() < 0.85)
        for _ in range(dice.randrange(6))
    ]
    if dice.random() < 0.75:  # accounts that can read the ACL
        path = dice.choice(("/", "/access"))
        grants += [(path, kind, name, "LookOnly") for kind, name in holders[1:3]]
    return grants, dice.random() < 0.6


@pytest.mark.parametrize("seed", range(60))
async def test_a_line_adds_a_privilege_and_removes_none(cluster, pve, run_line, seed):
    await check_lines(cluster, pve, run_line, seed, PRIVILEGES)


@pytest.mark.parametrize("seed", range(100, 104))
async def test_a_line_for_any_refusal_of_proxmox_removes_none(cluster, pve, run_line, seed):
    named = {
        (path, privilege)
        for path, kinds in REFUSED.items()
        for privilege in all_privileges(cluster.state.release)
        if privilege.partition(".")[0] in kinds
    }
    needed = {
        (need.path, need.of(cluster.state.release[0])[0])
        for tool in tools().values()
        for need in tool.needs
    }
    assert {privilege for _, privilege in named} == all_privileges(cluster.state.release)
    await check_lines(cluster, pve, run_line, seed, sorted(named | needed))


async def check_lines(cluster, pve, run_line, seed, privileges):
    """Run the lines for these privileges, as far as there are any, for accounts with some roles."""
    grants, separated = random_grants(seed)
    grant(cluster, *grants, separated=separated)
    before, people = rights(cluster), deepcopy(cluster.state.user_config)
    acl = Acl(pve, TOKEN)
    advised = {
        (path, privilege): (await acl.advice(path, [privilege])).line
        for path, privilege in privileges
        if not has(cluster, path, privilege)
    }
    lines = {missing: line for missing, line in advised.items() if line}
    for (path, privilege), line in lines.items():
        cluster.state.user_config = deepcopy(people)
        run_line(cluster, line)
        after, configured = rights(cluster), deepcopy(cluster.state.user_config)
        assert not lost(before, after), line
        assert has(cluster, path, privilege), line
        run_line(cluster, line)
        assert cluster.state.user_config == configured, line
        gained = {name for key, names in after.items() for name in names - before.get(key, names)}
        role = line.rpartition("--roles ")[2].split(",")[-1]
        assert gained <= _privileges_of(cluster, role), line
    cluster.state.user_config = deepcopy(people)
    order = list(lines.values())
    random.Random(seed).shuffle(order)  # noqa: S311
    for line in order:
        run_line(cluster, line)
    assert not lost(before, rights(cluster)), lines
    assert all(has(cluster, path, privilege) for path, privilege in lines)


def _privileges_of(cluster: EmulatedCluster, role: str) -> frozenset[str]:
    known = builtin_roles(cluster.state.release) | cluster.state.user_config.roles
    return known[role]


async def test_an_administrator_keeps_every_privilege(cluster, pve, run_line):
    grant(
        cluster,
        ("/", "user", USER, "Administrator"),
        ("/access", "token", TOKEN, "PVEAuditor"),
    )
    before = rights(cluster)
    advice = await Acl(pve, TOKEN).advice("/vms", ["VM.Audit"])
    assert advice.line == f"pveum acl modify /vms --tokens '{TOKEN}' --roles PVEAuditor"
    run_line(cluster, advice.line)
    assert not lost(before, rights(cluster))


async def test_a_line_repeats_inherited_and_group_roles(cluster, pve):
    grant(
        cluster,
        ("/", "group", "ops", "PowerOnly"),
        ("/access", "user", USER, "PVEAuditor"),
        separated=False,
    )
    advice = await Acl(pve, TOKEN).advice("/vms", ["VM.Backup"])
    new_role = "MCP-VM.Backup --privs VM.Backup"
    assert advice.line == (
        f"pveum role add {new_role} 2>/dev/null || pveum role modify {new_role} --append 1"
        f" && pveum acl modify /vms --users '{USER}' --roles PowerOnly,MCP-VM.Backup"
    )


@pytest.mark.parametrize("separated", [True, False])
async def test_an_unreadable_acl_gives_a_question(cluster, pve, separated):
    roles = [("/vms", kind, name, "PVEVMUser") for kind, name in (("user", USER), ("token", TOKEN))]
    grant(cluster, *roles, separated=separated)
    acl = Acl(pve, TOKEN)
    for path, privilege in PRIVILEGES:
        advice = await acl.advice(path, [privilege])
        assert advice == Advice(question=question(TOKEN, path, [privilege]))
    assert "`pveum acl list`" in advice.question
    assert f"`pveum user token list {USER}`" in advice.question


async def test_no_access_on_the_path_gives_a_question(cluster, pve):
    grant(cluster, *CAN_READ_ACL, ("/vms", "user", USER, "NoAccess"))
    advice = await Acl(pve, TOKEN).advice("/vms", ["VM.Audit"])
    assert advice.line == ""
    assert f"NoAccess is in force there for {USER}" in advice.question


async def test_no_access_on_a_pool_gives_a_question_for_its_guests(cluster, pve):
    grant(cluster, *CAN_READ_ACL, ("/pool", "group", "ops", "NoAccess"))
    acl = Acl(pve, TOKEN)
    assert "NoAccess is in force" in (await acl.advice("/vms/101", ["VM.Audit"])).question
    assert (await acl.advice("/vms", ["VM.Audit"])).line


async def test_a_line_omits_group_roles_that_own_roles_replace(cluster, pve):
    grant(
        cluster,
        ("/", "user", USER, "LookOnly"),
        ("/", "group", "ops", "Administrator"),
        separated=False,
    )
    line = (await Acl(pve, TOKEN).advice("/vms", ["VM.Backup"])).line
    assert line.endswith(f"--users '{USER}' --roles LookOnly,MCP-VM.Backup")


async def test_an_audit_privilege_needs_only_an_audit_role(cluster, pve, run_line):
    grant(cluster, *CAN_READ_ACL)
    acl = Acl(pve, TOKEN)
    for path, privilege in (("/vms", "VM.Audit"), ("/storage", "Datastore.Audit"),
                            ("/nodes", "Sys.Audit"), ("/", "Sys.Audit")):  # fmt: skip
        run_line(cluster, (await acl.advice(path, [privilege])).line)
    held = {name for key, names in rights(cluster).items() if key[0] == TOKEN for name in names}
    assert all(name.endswith(".Audit") for name in held)
    assert (await acl.advice("/", AUDITS)).line.endswith("--roles PVEAuditor")


async def test_an_existing_role_with_other_privileges_is_not_changed(cluster, pve, run_line):
    grant(cluster, *CAN_READ_ACL)
    cluster.state.user_config.roles["MCP-VM.Backup"] = frozenset({"VM.Backup", "VM.Allocate"})
    line = (await Acl(pve, TOKEN).advice("/vms", ["VM.Backup"])).line
    run_line(cluster, line)
    assert line.endswith("MCP-VM.Backup-2")
    assert cluster.state.user_config.roles["MCP-VM.Backup-2"] == {"VM.Backup"}


@pytest.mark.parametrize("name", ["x; reboot", "$(id)", "-x", "a\nb", "é"])
async def test_no_role_of_a_compromised_node_becomes_part_of_a_line(cluster, pve, name):
    grant(cluster, *CAN_READ_ACL, ("/vms", "user", USER, name))
    cluster.state.user_config.roles[name] = frozenset({"VM.Backup"})
    advice = await Acl(pve, TOKEN).advice("/vms", ["VM.Backup"])
    assert name not in advice.line
    assert not advice.line or "MCP-VM.Backup" in advice.line


async def test_a_token_of_root_needs_only_its_own_roles(cluster):
    token = "root@pam!mcp"
    grant(cluster, user="root@pam", token=token)
    tls = Tls(fingerprints=cluster.fingerprints.values())
    async with Client(cluster.hosts, ApiToken(token, SECRET), tls=tls, name="lab") as client:
        advice = await Acl(client, token).advice("/", AUDITS)
        assert advice.line == f"pveum acl modify / --tokens '{token}' --roles PVEAuditor"
        cluster.state.user_config.acl = [AclEntry("/", "token", token, "PowerOnly")]
        blind = await Acl(client, token).advice("/vms", ["VM.Backup"])
        assert blind.line == ""


def test_pveum_lines_in_the_docs_create_their_user():
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    pages += (REPOSITORY / "packages" / "server").rglob("*.html")
    with_lines = set()
    for page in pages:
        lines = [line.strip() for line in page.read_text("utf-8").splitlines()]
        for before, line in pairwise(lines):
            if line.startswith("pveum acl modify "):
                user = line.partition("--users ")[2].split()[0]
                assert before.endswith(f"pveum user add {user}"), page
                with_lines.add(page.name)
    assert with_lines == {"start.md", "cluster_edit.html"}
