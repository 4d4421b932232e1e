"""What callers may do: decided from their role and key alone."""

from hypothesis import given
from hypothesis import strategies as st

from pvemcp_server.access import Caller, Effect, Grant, Resources, Role
from pvemcp_server.access.model import ANY, EVERYTHING, NOTHING, READS

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
CLUSTER = st.sampled_from(["lab", "prod", "other"])


def caller(grants: tuple[Grant, ...], **narrowing: frozenset[str]) -> Caller:
    return Caller("abcDEF12", "laptop", Role(1, "role", "", grants), **narrowing)


def is_part(inner: Resources, outer: Resources) -> bool:
    return inner | outer == outer or outer.everything


@given(GRANTS, TOOL, CLUSTER)
def test_what_is_not_listed_cannot_be_reached(grants, tool: str, cluster: str):
    who = caller(grants)
    if who.resources(tool, EFFECTS[tool], cluster):
        assert who.may_call(tool, EFFECTS[tool])


@given(GRANTS, TOOL, CLUSTER, TOOLS, CLUSTERS)
def test_a_key_narrows_its_role_and_never_widens_it(grants, tool, cluster, toolset, clusters):
    wide, narrow = caller(grants), caller(grants, toolset=toolset, clusters=clusters)
    effect = EFFECTS[tool]
    assert is_part(narrow.resources(tool, effect, cluster), wide.resources(tool, effect, cluster))
    assert wide.may_call(tool, effect) or not narrow.may_call(tool, effect)


@given(GRANTS, st.builds(Grant, TOOLS, CLUSTERS, RESOURCES), TOOL, CLUSTER)
def test_one_more_grant_takes_nothing_away(grants, grant, tool: str, cluster: str):
    effect = EFFECTS[tool]
    before, after = caller(grants), caller((*grants, grant))
    assert is_part(before.resources(tool, effect, cluster), after.resources(tool, effect, cluster))


@given(CLUSTERS, RESOURCES, CLUSTER)
def test_all_reads_are_no_writes(clusters, resources, cluster: str):
    who = caller((Grant(frozenset({READS}), clusters, resources),))
    assert who.may_call("ListVms", Effect.READ)
    for effect in (Effect.WRITE, Effect.DESTROY):
        assert not who.may_call("ListVms", effect)
        assert who.resources("ListVms", effect, cluster) == NOTHING


def test_a_toolset_of_all_reads_leaves_all_reads_and_no_writes():
    who = caller((Grant(frozenset({ANY})),), toolset=frozenset({READS}))
    assert who.may_call("ListVms", Effect.READ)
    assert not who.may_call("BackupVm", Effect.WRITE)


def test_a_guest_is_covered_by_any_of_its_marks():
    web = Resources(pools=frozenset({"web"}), tags=frozenset({"web"}), vmids=frozenset({100}))
    assert web.covers_guest(100)
    assert web.covers_guest(1, pool="web")
    assert web.covers_guest(1, tags=["db", "web"])
    assert not web.covers_guest(1, node="web", pool="db", tags=["db"])
    assert Resources(nodes=frozenset({"pve1"})).covers_guest(1, node="pve1")
    assert not NOTHING.covers_guest(100, node="", pool="", tags=[])
    assert EVERYTHING.covers_guest(100)


@given(RESOURCES, RESOURCES, st.sampled_from("abcd"), st.sampled_from("abcd"))
def test_what_two_selections_cover_together_each_of_them_covers(one, other, name, second):
    both = one & other
    guest = {"node": name, "pool": second, "tags": [name, second]}
    assert both.covers_guest(100, **guest) == (
        one.covers_guest(100, **guest) and other.covers_guest(100, **guest)
    )
    for covers in ("covers_node", "covers_pool"):
        assert getattr(both, covers)(name) == all(
            getattr(each, covers)(name) for each in (one, other)
        )
    assert both.covers_storage(name, node=second) == all(
        each.covers_storage(name, node=second) for each in (one, other)
    )
    assert not both or (one and other)
