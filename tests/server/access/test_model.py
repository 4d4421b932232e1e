"""The permissions of callers, evaluated from role and key."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvemcp_server.access import Caller, Effect, Grant, Resources, Role
from pvemcp_server.access.model import ANY, EVERYTHING, NOTHING, READS, Toolset

TOOLS = st.frozensets(st.sampled_from(["ListVms", "BackupVm", "DeleteIso", ANY, READS]), min_size=1)
CLUSTERS = st.frozensets(st.sampled_from(["lab", "prod", ANY]), min_size=1)
NAMES = st.frozensets(st.sampled_from("abc"), max_size=2)
RESOURCES = st.one_of(
    st.just(EVERYTHING),
    st.builds(Resources, pools=NAMES, tags=NAMES, nodes=NAMES, storages=NAMES),
)
GRANTS = st.lists(st.builds(Grant, TOOLS, CLUSTERS, RESOURCES), max_size=4).map(tuple)
EFFECTS = {"ListVms": Effect.READ, "BackupVm": Effect.WRITE, "DeleteIso": Effect.DESTROY}
TOOL = st.sampled_from(list(EFFECTS))
TOOLSETS = st.frozensets(st.sampled_from(Toolset))
CLUSTER = st.sampled_from(["lab", "prod", "other"])


def caller(grants: tuple[Grant, ...], **restrictions: frozenset[str]) -> Caller:
    return Caller("abcDEF12", "laptop", Role(1, "role", "", grants), **restrictions)


def declared(
    name: str, effect: Effect | None = None, toolset: Toolset | None = None
) -> SimpleNamespace:
    return SimpleNamespace(name=name, effect=effect or EFFECTS[name], toolset=toolset)


def is_part(inner: Resources, outer: Resources) -> bool:
    return inner | outer == outer or outer.everything


@given(GRANTS, TOOL, CLUSTER)
def test_a_tool_that_is_not_listed_has_no_resources(grants, tool: str, cluster: str):
    holder = caller(grants)
    if holder.resources(tool, EFFECTS[tool], cluster):
        assert holder.may_call(declared(tool))


@given(GRANTS, TOOL, CLUSTER, TOOLS, CLUSTERS)
def test_a_key_restricts_its_role_and_never_extends_it(grants, tool, cluster, tools, clusters):
    wide, narrow = caller(grants), caller(grants, tools=tools, clusters=clusters)
    effect = EFFECTS[tool]
    assert is_part(narrow.resources(tool, effect, cluster), wide.resources(tool, effect, cluster))
    assert wide.may_call(declared(tool)) or not narrow.may_call(declared(tool))


@given(GRANTS, TOOL, CLUSTER, TOOLSETS, st.sampled_from([None, *Toolset]))
def test_a_toolset_hides_tools_and_decides_about_no_rows(grants, tool, cluster, toolsets, own):
    without, holder = caller(grants), caller(grants, toolsets=toolsets)
    assert holder.resources(tool, EFFECTS[tool], cluster) == without.resources(
        tool, EFFECTS[tool], cluster
    )
    rare = declared(tool, toolset=own)
    assert holder.is_granted(rare) == without.is_granted(rare)
    assert holder.may_call(rare) == (without.is_granted(rare) and own in {None, *toolsets})


@given(GRANTS, st.builds(Grant, TOOLS, CLUSTERS, RESOURCES), TOOL, CLUSTER)
def test_another_grant_removes_no_permission(grants, grant, tool: str, cluster: str):
    effect = EFFECTS[tool]
    before, after = caller(grants), caller((*grants, grant))
    assert is_part(before.resources(tool, effect, cluster), after.resources(tool, effect, cluster))


@given(CLUSTERS, RESOURCES, CLUSTER)
def test_a_grant_of_all_reads_includes_no_writes(clusters, resources, cluster: str):
    holder = caller((Grant(frozenset({READS}), clusters, resources),))
    assert holder.may_call(declared("ListVms"))
    for effect in (Effect.WRITE, Effect.DESTROY):
        assert not holder.may_call(declared("ListVms", effect))
        assert holder.resources("ListVms", effect, cluster) == NOTHING


def test_a_copy_with_other_rights_has_its_own_resources():
    wide = caller((Grant(frozenset({ANY})),))
    assert wide.resources("ListVms", Effect.READ, "lab") == EVERYTHING
    narrow = replace(wide, tools=frozenset({"BackupVm"}))
    assert narrow.resources("ListVms", Effect.READ, "lab") == NOTHING
    assert wide.resources("ListVms", Effect.READ, "lab") == EVERYTHING


def test_a_key_for_all_reads_allows_no_writes():
    holder = caller((Grant(frozenset({ANY})),), tools=frozenset({READS}))
    assert holder.may_call(declared("ListVms"))
    assert not holder.may_call(declared("BackupVm"))


def test_a_list_counts_for_the_guests_and_the_tool_of_its_grant_only():
    web, everything = Resources(tags=frozenset({"web"})), frozenset({ANY})
    holder = caller(
        (
            Grant(frozenset({"BackupVm"}), everything, web, frozenset({"df"})),
            Grant(everything, frozenset({"lab"}), EVERYTHING, frozenset({"uptime"})),
            Grant(frozenset({"DeleteIso"}), everything, EVERYTHING, frozenset({"sh"})),
            Grant(everything, everything, EVERYTHING, files=frozenset({"/"})),
        )
    )

    def programs(cluster: str, *tags: str) -> set[str]:
        return holder.guest_list(
            "programs", "BackupVm", Effect.WRITE, cluster, lambda r: r.covers_guest(1, tags=tags)
        )

    assert programs("lab", "web") == {"df", "uptime"}
    assert programs("lab") == {"uptime"}
    assert programs("prod", "web") == {"df"}
    assert programs("prod") == set()


def test_a_guest_is_covered_by_vmid_pool_tag_or_node():
    web = Resources(pools=frozenset({"web"}), tags=frozenset({"web"}), vmids=frozenset({100}))
    assert web.covers_guest(100)
    assert web.covers_guest(1, pool="web")
    assert web.covers_guest(1, tags=["db", "web"])
    assert not web.covers_guest(1, node="web", pool="db", tags=["db"])
    assert Resources(nodes=frozenset({"pve1"})).covers_guest(1, node="pve1")
    assert not NOTHING.covers_guest(100, node="", pool="", tags=[])
    assert EVERYTHING.covers_guest(100)


@pytest.mark.parametrize(
    ("pool", "covered"),
    [
        ("prod", True),
        ("prod/web", True),
        ("prod/web/eu", True),
        ("product", False),
        ("other/prod", False),
        ("", False),
    ],
)
def test_a_pool_covers_the_pools_below_it(pool, covered):
    prod = Resources(pools=frozenset({"prod"}))
    for scope in (prod, prod & prod):
        assert scope.covers_pool(pool) == covered
        assert scope.covers_guest(1, pool=pool) == covered
    assert not Resources(pools=frozenset({"prod/web"})).covers_pool("prod")


@given(RESOURCES, RESOURCES, st.sampled_from("abcd"), st.sampled_from("abcd"))
def test_an_intersection_covers_what_both_selections_cover(left, right, name, second):
    both = left & right
    guest = {"node": name, "pool": second, "tags": [name, second]}
    assert both.covers_guest(100, **guest) == (
        left.covers_guest(100, **guest) and right.covers_guest(100, **guest)
    )
    for covers in ("covers_node", "covers_pool"):
        assert getattr(both, covers)(name) == all(
            getattr(each, covers)(name) for each in (left, right)
        )
    assert both.covers_storage(name, node=second) == all(
        each.covers_storage(name, node=second) for each in (left, right)
    )
    assert not both or (left and right)
