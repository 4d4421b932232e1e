"""Whatever is sent, no text of the caller becomes SQL, and what is refused is refused early."""

import json
import re
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvemcp_server.errors import BadArgument, OverBudget
from pvemcp_server.query.binder import validate
from pvemcp_server.query.compiler import compile_plan
from pvemcp_server.query.operators import MOST_VALUES
from pvemcp_server.query.parser import MOST_CONDITIONS, MOST_DEPTH, MOST_TEXT, read
from pvemcp_server.tables.registry import tables

KEYWORDS = {
    "SELECT", "DISTINCT", "FROM", "AS", "LEFT", "JOIN", "ON", "AND", "OR", "NOT", "IS", "NULL",
    "IN", "BETWEEN", "WHERE", "GROUP", "BY", "HAVING", "ORDER", "ASC", "DESC", "NULLS", "LAST",
    "LIMIT", "OFFSET", "count", "sum", "avg", "min", "max", "instr", "substr", "rowid",
}  # fmt: skip
NAMES = {"cluster", *tables(), *(field for table in tables().values() for field in table.fields)}
TOKEN = re.compile(r'"([a-z0-9_]+)~?"|t\d+|\d+|([A-Za-z]+)|[<>!=]=?|[?(),.*\s]', re.ASCII)

FRAGMENTS = [
    "'; DROP TABLE guests; --", '"; DROP TABLE guests; --', "1 OR 1=1", "name) UNION SELECT 1 --",
    "vmid\x00", "vmid/**/", "`vmid`", "[vmid]", "name--", "COUNT(vmid)) FROM guests --",
    "load_extension('x')", "sqlite_master", "rowid", "vmid~", "t0.vmid", "\u202evmid", "vm\u0131d",
    "NAME\u0301", "\uff4eame", "n\u0430me", "name\ud800", "*", "(SELECT 1)", "?1", ":a", "$a", "",
    " ", "\n", "a" * 10_000, "node." * 500 + "name", "node.node.node.node.node.name", "..", ".",
]  # fmt: skip


@pytest.fixture(scope="module")
def empty(differential):
    return differential.database(differential.World({}))


def attempt(work, *arguments):
    """What it gives, or how it refuses; anything else is an error of ours."""
    try:
        return work(*arguments), None
    except (BadArgument, OverBudget) as error:
        return None, error


def sql_of(asked, differential):
    catalog = differential.CATALOG
    return compile_plan(validate(read(asked), catalog, differential.NOW), catalog).sql


def assert_is_ours(sql):
    """Every token is a declared name, a keyword of the compiler, a placeholder or a number."""
    at = 0
    while at < len(sql):
        found = TOKEN.match(sql, at)
        assert found, sql[at:]
        assert found[1] is None or found[1] in NAMES, found[1]
        assert found[2] is None or found[2] in KEYWORDS, found[2]
        at = found.end()


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda one: ascii(one)[:30])
@pytest.mark.parametrize(
    "place", ["from", "select", "alias", "groupBy", "orderBy", "field", "operator", "value", "key"]
)
def test_fragments_of_sql_are_refused_or_bound(differential, fragment, place):
    asked = {
        "from": fragment if place == "from" else "guests",
        "select": [fragment if place == "select" else "name"]
        + ([f"vmid as {fragment}"] if place == "alias" else []),
        "where": {
            "conditions": [
                {
                    "field": fragment if place == "field" else "name",
                    "operator": fragment if place == "operator" else "=",
                    "value": [fragment if place == "value" else "x"],
                }
            ]
        },
    }
    if place in ("groupBy", "orderBy"):
        asked[place] = [fragment]
    if place == "key":
        asked[fragment] = 1
    sql, error = attempt(sql_of, asked, differential)
    assert len(str(error)) < 2000
    assert_is_ours(sql or "")
    assert fragment not in (sql or "") or fragment in ("", " ", ".", "*", "rowid")


def test_the_sql_of_random_queries_has_no_word_of_the_caller(differential):
    for seed in range(20):
        rng = Random(seed)  # noqa: S311 - the same queries every time
        asker = differential.Asker(rng, differential.World.random(rng))
        for _ in range(20):
            assert_is_ours(sql_of(asker.query()[0], differential))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["field", "operator", "value", "logic", "conditions", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
WORDS = st.sampled_from(["guests", "name", "vmid", "tags", "COUNT(*)", "node.name", "=", "IN"])
PARTS = ["from", "select", "where", "groupBy", "having", "orderBy", "distinct", "limit", "offset"]


@settings(
    max_examples=600,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(asked=st.dictionaries(st.sampled_from(PARTS), JSON | WORDS | st.lists(WORDS, max_size=3)))
def test_any_json_is_refused_with_its_place_or_answered(differential, empty, asked):
    found, error = attempt(differential.answered, asked, empty)
    assert isinstance(found, list) or (error.argument and error.message)


@settings(max_examples=300)
@given(text=st.text(max_size=200))
def test_any_text_is_refused_or_is_a_query(text):
    found, error = attempt(read, text)
    assert found or error.argument


def nested(depth):
    inner = {"field": "vmid", "operator": "=", "value": 1}
    for _ in range(depth):
        inner = {"conditions": [inner]}
    return {"from": "guests", "where": inner}


def test_conditions_nest_so_deep_and_no_deeper(differential):
    assert_is_ours(sql_of(nested(MOST_DEPTH - 1), differential))
    with pytest.raises(BadArgument, match=f"nest at most {MOST_DEPTH} deep"):
        sql_of(nested(MOST_DEPTH), differential)


@pytest.mark.parametrize("depth", [500, 100_000])
def test_nesting_without_end_is_refused_as_text_too(depth):
    text = '{"from":"guests","where":' + '{"conditions":[' * depth + "]}" * depth + "}"
    with pytest.raises(BadArgument):
        read(text)


def test_conditions_are_so_many_and_no_more(differential):
    one = {"field": "vmid", "operator": "=", "value": 1}
    asked = {"from": "guests", "where": {"logic": "or", "conditions": [one] * MOST_CONDITIONS}}
    assert_is_ours(sql_of(asked, differential))
    asked["where"]["conditions"].append(one)
    with pytest.raises(BadArgument, match=f"at most {MOST_CONDITIONS} conditions"):
        sql_of(asked, differential)


def test_values_are_so_many_and_no_more(differential):
    def asked(number):
        half = {"field": "vmid", "operator": "IN", "value": list(range(number // 2))}
        return {"from": "guests", "where": {"conditions": [half, half]}}

    assert_is_ours(sql_of(asked(MOST_VALUES), differential))
    with pytest.raises(BadArgument, match=f"at most {MOST_VALUES} values"):
        sql_of(asked(MOST_VALUES + 2), differential)


@pytest.mark.parametrize("field", ["vmid", "name", "tags"])
@pytest.mark.parametrize("operator", ["IN", "NOT IN"])
def test_as_many_values_as_are_allowed_are_answered(differential, field, operator):
    rows = differential.database(differential.World.random(Random(3)))  # noqa: S311 - the same rows
    condition = {"field": field, "operator": operator, "value": list(range(MOST_VALUES))}
    asked = {"from": "guests", "select": "COUNT(*) as n", "where": condition}
    assert differential.answered(asked, rows)[0]["n"] >= 0


def test_the_text_of_a_query_is_so_long_and_no_longer():
    padded = json.dumps({"from": "guests"}).ljust(MOST_TEXT)
    assert read(padded).table == "guests"
    with pytest.raises(BadArgument, match="at most"):
        read(padded + " ")


def test_the_largest_query_on_many_rows_keeps_the_deadline(differential):
    """What is allowed at most: it is answered, or ended with a hint, and the next one works."""
    world = differential.World.random(Random(1), size=400)  # noqa: S311 - the same rows every time
    rows = differential.database(world)
    values = [f"text {n}" for n in range(MOST_VALUES // MOST_CONDITIONS)]
    conditions = [
        {"field": "node.node", "operator": "NOT IN", "value": values}
        for _ in range(MOST_CONDITIONS - 1)
    ]
    asked = {
        "from": "tasks",
        "select": ["COUNT(DISTINCT upid) as n", "guest.node.level", "guest.pool.description"],
        "groupBy": ["guest.node.level", "guest.pool.description"],
        "where": {"logic": "and", "conditions": conditions},
        "orderBy": ["n desc"],
    }
    found, error = attempt(differential.answered, asked, rows)
    assert found or error.hint
    assert differential.answered({"from": "tasks", "select": "COUNT(*)"}, rows)
