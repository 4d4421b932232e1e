"""Hostile queries: no text of the caller becomes SQL, and limits are enforced early."""

import json
import re
from itertools import product
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.cases import walk

from pvemcp_server.errors import BadArgument, OverBudget
from pvemcp_server.query.binder import bind
from pvemcp_server.query.compiler import compile_plan
from pvemcp_server.query.operators import MAX_VALUES
from pvemcp_server.query.parser import MAX_CONDITIONS, MAX_DEPTH, MAX_TEXT, parse
from pvemcp_server.tables.registry import tables

KEYWORDS = {
    "SELECT", "DISTINCT", "FROM", "AS", "LEFT", "JOIN", "ON", "AND", "OR", "NOT", "IS", "NULL",
    "IN", "BETWEEN", "WHERE", "GROUP", "BY", "HAVING", "ORDER", "ASC", "DESC", "NULLS", "LAST",
    "LIMIT", "OFFSET", "EXISTS", "count", "sum", "avg", "min", "max", "instr", "substr", "rowid",
    "OVER", "PARTITION", "row_number", "number",
}  # fmt: skip
NAMES = {
    "cluster",
    "row",
    "entry",
    *tables(),
    *(field for table in tables().values() for field in table.fields),
}
TOKEN = re.compile(
    r'"([a-z0-9_]+)~?(?:~[a-z0-9_]+)?"|[ct]\d+|\d+|([A-Za-z_]+)|[<>!=]=?| [-+%/] |[?(),.*\s]',
    re.ASCII,
)

FRAGMENTS = [
    "'; DROP TABLE guests; --", '"; DROP TABLE guests; --', "1 OR 1=1", "name) UNION SELECT 1 --",
    "vmid\x00", "vmid/**/", "`vmid`", "[vmid]", "name--", "COUNT(vmid)) FROM guests --",
    "load_extension('x')", "sqlite_master", "rowid", "vmid~", "t0.vmid", "\u202evmid", "vm\u0131d",
    "NAME\u0301", "\uff4eame", "n\u0430me", "name\ud800", "*", "(SELECT 1)", "?1", ":a", "$a", "",
    " ", "\n", "a" * 10_000, "node." * 500 + "name", "node.node.node.node.node.name", "..", ".",
]  # fmt: skip
PLACES = (
    *("from", "select", "alias", "groupBy", "orderBy", "limitPer"),
    *("field", "operator", "value", "key"),
)


@pytest.fixture(scope="module")
def empty(differential):
    return differential.database(differential.Dataset({}))


def attempt(work, *arguments):
    """Return the result and the refusal; any other error fails the test."""
    try:
        return work(*arguments), None
    except (BadArgument, OverBudget) as error:
        return None, error


def sql_of(query, differential):
    catalog = differential.CATALOG
    return compile_plan(bind(parse(query), catalog, differential.NOW), catalog).sql


def assert_declared_tokens(sql):
    """Check that every token is a declared name, a keyword, a placeholder or a number."""
    at = 0
    while at < len(sql):
        token = TOKEN.match(sql, at)
        assert token, sql[at:]
        assert token[1] is None or token[1] in NAMES, token[1]
        assert token[2] is None or token[2] in KEYWORDS, token[2]
        at = token.end()


@walk(("fragment", "place"), list(product(FRAGMENTS, PLACES)))
def test_sql_fragments_are_refused_or_bound(differential, fragment, place):
    query = {
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
        query[place] = [fragment]
    if place == "limitPer":
        query |= {"orderBy": "name", "limitPer": {"fields": [fragment], "count": 1}}
    if place == "key":
        query[fragment] = 1
    sql, error = attempt(sql_of, query, differential)
    assert len(str(error)) < 2000
    assert_declared_tokens(sql or "")
    assert fragment not in (sql or "") or fragment in ("", " ", ".", "*", "rowid")


def test_the_sql_of_random_queries_has_declared_tokens_only(differential):
    for seed in range(20):
        rng = Random(seed)  # noqa: S311 - the same queries every time
        generator = differential.QueryGenerator(rng, differential.Dataset.random(rng))
        for _ in range(20):
            assert_declared_tokens(sql_of(generator.query()[0], differential))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["field", "operator", "value", "logic", "conditions", "fields", "count", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
WORDS = st.sampled_from(["guests", "name", "vmid", "tags", "COUNT(*)", "node.name", "=", "IN"])
PARTS = [
    "from", "select", "where", "groupBy", "having", "orderBy", "distinct", "limit", "limitPer",
    "offset",
]  # fmt: skip


@settings(
    max_examples=600,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(query=st.dictionaries(st.sampled_from(PARTS), JSON | WORDS | st.lists(WORDS, max_size=3)))
def test_any_json_is_answered_or_refused_with_its_place(differential, empty, query):
    rows, error = attempt(differential.answer, query, empty)
    assert isinstance(rows, list) or (error.argument and error.message)


@settings(max_examples=300)
@given(text=st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text):
    query, error = attempt(parse, text)
    assert query or error.argument


def nested(depth):
    inner = {"field": "vmid", "operator": "=", "value": 1}
    for _ in range(depth):
        inner = {"conditions": [inner]}
    return {"from": "guests", "where": inner}


def test_the_depth_of_conditions_is_limited(differential):
    assert_declared_tokens(sql_of(nested(MAX_DEPTH - 1), differential))
    with pytest.raises(BadArgument, match=f"nest at most {MAX_DEPTH} deep"):
        sql_of(nested(MAX_DEPTH), differential)


@pytest.mark.parametrize("depth", [500, 100_000])
def test_endless_nesting_in_text_is_refused(depth):
    text = '{"from":"guests","where":' + '{"conditions":[' * depth + "]}" * depth + "}"
    with pytest.raises(BadArgument):
        parse(text)


def test_the_number_of_conditions_is_limited(differential):
    condition = {"field": "vmid", "operator": "=", "value": 1}
    query = {"from": "guests", "where": {"logic": "or", "conditions": [condition] * MAX_CONDITIONS}}
    assert_declared_tokens(sql_of(query, differential))
    query["where"]["conditions"].append(condition)
    with pytest.raises(BadArgument, match=f"at most {MAX_CONDITIONS} conditions"):
        sql_of(query, differential)


def test_the_number_of_values_is_limited(differential):
    def query_with(number):
        half = {"field": "vmid", "operator": "IN", "value": list(range(number // 2))}
        return {"from": "guests", "where": {"conditions": [half, half]}}

    assert_declared_tokens(sql_of(query_with(MAX_VALUES), differential))
    with pytest.raises(BadArgument, match=f"at most {MAX_VALUES} values"):
        sql_of(query_with(MAX_VALUES + 2), differential)


@pytest.mark.parametrize("field", ["vmid", "name", "tags"])
@pytest.mark.parametrize("operator", ["IN", "NOT IN"])
def test_the_largest_number_of_values_is_answered(differential, field, operator):
    rows = differential.database(differential.Dataset.random(Random(3)))  # noqa: S311 - the same rows
    condition = {"field": field, "operator": operator, "value": list(range(MAX_VALUES))}
    query = {"from": "guests", "select": "COUNT(*) as n", "where": condition}
    assert differential.answer(query, rows)[0]["n"] >= 0


def test_the_length_of_a_querys_text_is_limited():
    padded = json.dumps({"from": "guests"}).ljust(MAX_TEXT)
    assert parse(padded).table == "guests"
    with pytest.raises(BadArgument, match="at most"):
        parse(padded + " ")


def test_the_largest_query_keeps_the_deadline_and_the_next_one_works(differential):
    dataset = differential.Dataset.random(Random(1), size=400)  # noqa: S311 - the same rows every time
    rows = differential.database(dataset)
    values = [f"text {n}" for n in range(MAX_VALUES // MAX_CONDITIONS)]
    conditions = [
        {"field": "node.node", "operator": "NOT IN", "value": values}
        for _ in range(MAX_CONDITIONS - 1)
    ]
    query = {
        "from": "tasks",
        "select": ["COUNT(DISTINCT upid) as n", "guest.node.level", "guest.pool.description"],
        "groupBy": ["guest.node.level", "guest.pool.description"],
        "where": {"logic": "and", "conditions": conditions},
        "orderBy": ["n desc"],
    }
    answer, error = attempt(differential.answer, query, rows)
    assert answer or error.hint
    assert differential.answer({"from": "tasks", "select": "COUNT(*)"}, rows)
