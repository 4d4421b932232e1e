"""Roles, and their grants as JSON."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvemcp_server.access import Access, Effect, Grant, Resources
from pvemcp_server.access.grants import grants_from_json, grants_to_json
from pvemcp_server.access.model import ANY, EVERYTHING, READS
from pvemcp_server.access.roles import Roles
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.store import Store, Topic

WORDS = st.frozensets(st.text(min_size=1, max_size=8), max_size=4)
SELECTIONS = st.one_of(
    st.just(EVERYTHING),
    st.builds(
        Resources,
        pools=WORDS,
        tags=WORDS,
        vmids=st.frozensets(st.integers(100, 999_999_999), max_size=4),
        nodes=WORDS,
        storages=WORDS,
    ).filter(bool),
)
SOME_WORDS = st.frozensets(st.text(min_size=1, max_size=8), min_size=1, max_size=4)
PROGRAMS = st.frozensets(st.sampled_from(["uptime", "/usr/bin/df", "C:\\x y.exe"]))
FILES = st.frozensets(st.sampled_from(["/", "/var/log/", "/etc/a b", "C:\\Logs\\", "C:\\a.txt"]))
GRANTS = st.lists(st.builds(Grant, SOME_WORDS, SOME_WORDS, SELECTIONS, PROGRAMS, FILES), max_size=4)


@given(GRANTS)
def test_grants_survive_a_round_trip_through_json(grants: list[Grant]):
    assert grants_from_json(grants_to_json(grants)) == tuple(grants)


@pytest.mark.parametrize(
    ("value", "argument"),
    [
        ([{"tools": ["ListVms"], "resourses": {"pools": ["web"]}}], "grants.0.resourses"),
        ([{"tools": ["ListVms"], "resources": {"pool": ["web"]}}], "grants.0.resources.pool"),
        ([{"tools": ["ListVms"], "resources": {}}], "grants.0.resources"),
        ([{"tools": []}], "grants.0.tools"),
        ([{"tools": ["ListVms"], "clusters": []}], "grants.0.clusters"),
        ([{}], "grants.0.tools"),
        ("everything", "grants"),
    ],
    ids=[
        "misspelt",
        "misspelt inside",
        "no resources",
        "no tools",
        "no clusters",
        "empty",
        "a word",
    ],
)
def test_misspelt_or_empty_grants_are_refused(value: object, argument: str):
    with pytest.raises(BadArgument) as refused:
        grants_from_json(value)
    assert refused.value.argument == argument


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        *(("programs", entry) for entry in ("", " sh", "sh ", "a\nb", "a\u200bb", "x" * 501)),
        *(("files", entry) for entry in ("etc/a", "/etc/../a", "/etc//a", "/./a", "C:a", "~/a")),
        *(("files", entry) for entry in ("/a\\b", "C:\\a:b", "C:\\a.\\", "C:/a", "\\\\h\\a", "*")),
    ],
)
def test_an_entry_that_could_mean_something_else_is_refused(kind: str, entry: str):
    with pytest.raises(BadArgument) as refused:
        grants_from_json([{"tools": ["ExecInGuest"], kind: [entry]}])
    assert refused.value.argument == f"grants.0.{kind}"


@pytest.mark.anyio
async def test_three_roles_are_built_in(access: Access):
    roles = {role.name: role for role in await access.roles.all()}
    assert list(roles) == ["Read-only", "Operator", "Administrator"]
    assert roles["Read-only"].grants == (Grant(frozenset({READS})),)
    assert roles["Administrator"].grants == (Grant(frozenset({ANY})),)
    operator = roles["Operator"].grants[0]
    assert operator.gives("BackupVm", Effect.WRITE)
    assert not operator.gives("DeleteBackup", Effect.DESTROY)


@pytest.mark.anyio
async def test_built_in_roles_are_changed_by_the_program_only(access: Access, store: Store):
    for change in (
        access.roles.change("Operator", description="mine"),
        access.roles.remove("Operator"),
    ):
        with pytest.raises(BadArgument, match="built in"):
            await change
    operator = await access.roles.get("Operator")
    await store.roles.change(operator.id, grants=[])
    await Roles(store).prepare()
    assert await access.roles.get("Operator") == operator


@pytest.mark.anyio
async def test_a_start_without_changes_clears_no_cache(access: Access, store: Store):
    await store.watch.poll()
    calls = []

    async def listener() -> None:
        calls.append(1)

    store.watch.on_change(Topic.ACCESS, listener)
    await Roles(store).prepare()
    await store.watch.poll()
    assert calls == []


@pytest.mark.anyio
async def test_a_role_can_be_created_changed_and_removed(access: Access):
    web = Grant(frozenset({READS}), frozenset({"lab"}), Resources(tags=frozenset({"web"})))
    made = await access.roles.create("web", [web], description="The web team")
    assert await access.roles.get("web") == made
    renamed = await access.roles.change("web", new_name="web team", grants=[web, web])
    assert (renamed.id, renamed.name, renamed.grants) == (made.id, "web team", (web, web))
    assert renamed.description == "The web team"
    await access.roles.remove("web team")
    with pytest.raises(UnknownName):
        await access.roles.get("web team")


@pytest.mark.anyio
async def test_a_role_of_a_key_is_not_removed(access: Access):
    await access.roles.create("web", [Grant(frozenset({READS}))])
    key, _ = await access.keys.create("laptop", role="web")
    with pytest.raises(BadArgument, match="laptop"):
        await access.roles.remove("web")
    await access.keys.remove(key.id)
    await access.roles.remove("web")
