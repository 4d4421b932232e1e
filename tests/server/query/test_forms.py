"""The forms in which models write the parts of a query: all of them are the same query."""

import json

import pytest
from tests.cases import walk

from pvemcp_server.query.json_text import decoded
from pvemcp_server.query.parser import parse

RUNNING = {"field": "status", "operator": "=", "value": ["running"]}
OLD = {"field": "uptime", "operator": ">", "value": ["30d"]}
QUERY = {
    "from": "guests",
    "select": ["node", "COUNT(*) as n"],
    "where": {"logic": "and", "conditions": [RUNNING, OLD]},
    "groupBy": ["node"],
    "having": {"conditions": [{"field": "n", "operator": "IN", "value": [1, 2]}]},
    "orderBy": [{"field": "n", "direction": "desc"}, {"field": "node", "direction": "asc"}],
    "distinct": False,
    "limit": 5,
    "offset": 0,
}


@pytest.mark.parametrize("part", [part for part in QUERY if part != "from"])
@pytest.mark.parametrize("empty", [None, "", " ", [], {}])
def test_a_part_without_a_value_is_an_absent_part(part, empty):
    absent = {name: value for name, value in QUERY.items() if name != part}
    assert parse({**absent, part: empty}) == parse(absent)


@walk("part", QUERY)
def test_each_part_may_be_json_text(part):
    if part not in ("from", "limit", "offset", "distinct"):
        assert parse({**QUERY, part: json.dumps(QUERY[part])}) == parse(QUERY)
    assert parse(json.dumps({**QUERY, part: QUERY[part]})) == parse(QUERY)


def test_each_part_may_be_the_text_that_python_makes_of_it():
    for part in set(QUERY) - {"from", "limit", "offset", "distinct"}:
        assert parse({**QUERY, part: str(QUERY[part])}) == parse(QUERY)
    assert parse(str({**QUERY, "having": QUERY["having"]})) == parse(QUERY)


@walk(
    "value",
    [
        ["101", "102"], [True, False, None], ["it's"], ['say "x"'], ["it's \"x\""],
        ["True", "None"],
        ["a\nb", "back\\slash"], ["[x]", "{y}"], [{"a": ["b"]}, 1.5], ["ü日本"],
    ],
)  # fmt: skip
def test_python_text_of_a_list_is_read_like_its_json(value):
    assert decoded(str(value)) == decoded(json.dumps(value)) == value


@walk("text", ["['a'", "['a", "[a]", "['a' 'b']", "[" * 5000, "['" * 40_000])
def test_text_that_is_no_list_stays_a_text(text):
    assert decoded(text) == text


@pytest.mark.parametrize(
    ("part", "forms"),
    [
        ("select", ["node, COUNT(*) as n"]),
        ("orderBy", ["n desc,node", ["n desc", "node asc"]]),
        ("limit", ["5"]),
        ("distinct", ["false"]),
    ],
)
def test_a_list_may_have_commas_and_a_number_may_be_text(part, forms):
    for form in forms:
        query, same = parse({**QUERY, part: form}), parse(QUERY)
        assert [key.term for key in query.order_by] == [key.term for key in same.order_by]
        assert [s.term for s in query.select] == [s.term for s in same.select]
        assert (query.limit, query.distinct) == (same.limit, same.distinct)


@pytest.mark.parametrize("part", ["select", "groupBy", "orderBy"])
def test_a_list_of_one_may_be_a_single_value(part):
    one = QUERY[part][:1]
    single = parse({**QUERY, part: one[0]})
    listed = parse({**QUERY, part: one})
    assert [s.term for s in single.select] == [s.term for s in listed.select]
    assert single.group_by == listed.group_by
    assert [key.term for key in single.order_by] == [key.term for key in listed.order_by]


NULLS = dict.fromkeys(("field", "operator", "value", "logic", "conditions"))


@pytest.mark.parametrize(
    "where",
    [
        {"logic": "and", "conditions": [{**NULLS, **RUNNING}, {**NULLS, **OLD}]},
        {**NULLS, "logic": "and", "conditions": [RUNNING, OLD]},
        {**NULLS, "value": [], "logic": "and", "conditions": [RUNNING, None, OLD, {}]},
        {"conditions": [RUNNING, OLD, {"logic": "or", "conditions": []}]},
        {"conditions": [json.dumps(RUNNING), OLD]},
        [RUNNING, OLD],
        [{**RUNNING, "value": "running"}, {**OLD, "value": '["30d"]'}],
    ],
    ids=["nulls", "null group", "empty parts", "empty group", "text", "bare list", "values"],
)
def test_a_condition_tree_of_a_strict_client_is_the_plain_one(where):
    group, same = parse({**QUERY, "where": where}).where, parse(QUERY).where
    assert group.logic == same.logic
    assert [(p.term, p.operator, p.values) for p in group.parts] == [
        (p.term, p.operator, p.values) for p in same.parts
    ]


def test_the_conditions_of_a_test_for_rows_may_be_called_where():
    test = {"field": "backups", "operator": "NOT EXISTS"}
    one = {"from": "guests", "where": {**test, "where": {"conditions": [OLD]}}}
    [written] = parse(one).where.parts
    [same] = parse({"from": "guests", "where": {**test, "conditions": [OLD]}}).where.parts
    assert [(p.term, p.values) for p in written.where.parts[0].parts] == [
        (p.term, p.values) for p in same.where.parts
    ]


@pytest.mark.parametrize(
    "where", [{"conditions": []}, {"logic": "and", "conditions": []}, NULLS, [{}], [None]]
)
def test_a_tree_without_conditions_filters_nothing(where):
    assert parse({"from": "guests", "where": where}).where is None


@walk(
    ("operator", "value", "values"),
    [
        ("IN", "[100, 105]", (100, 105)),
        ("BETWEEN", '["-7d", "now"]', ("-7d", "now")),
        ("CONTAINS", '["web"]', ("web",)),
        ("CONTAINS", "[100]", ("[100]",)),
        ("NOT CONTAINS", "[100]", ("[100]",)),
        ("=", "[broken", ("[broken",)),
        ("=", "", ("",)),
        ("IS NULL", "", ()),
    ],
)
def test_values_may_be_json_text_of_a_list(operator, value, values):
    condition = {"field": "name", "operator": operator, "value": value}
    [predicate] = parse({"from": "guests", "where": condition}).where.parts
    assert predicate.values == values
