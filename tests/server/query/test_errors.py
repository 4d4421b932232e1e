"""The error for a wrong query names the place, the fault and the next step."""

import pytest
from tests.cases import walk

import pvemcp_server.tables  # noqa: F401 - declares the tables
from pvemcp_server.errors import BadArgument
from pvemcp_server.query.catalog import Catalog
from pvemcp_server.tables.registry import tables


@pytest.fixture(scope="module")
def error_of(differential):
    """Return a function that runs a wrong query and returns the error text."""
    rows = differential.database(differential.Dataset({}))

    def run(query):
        with pytest.raises(BadArgument) as error:
            differential.answer(query, rows)
        return str(error.value)

    return run


def only(field, operator, value=None):
    return {"conditions": [{"field": field, "operator": operator, "value": value}]}


def compared(field, other, operator=">"):
    return {"field": field, "operator": operator, "valueField": other}


def without(rows, *conditions):
    return {"field": rows, "operator": "NOT EXISTS", "conditions": list(conditions)}


@walk(
    ("query", "text"),
    [
        ({}, 'from: say which table. For example {"from": "guests"}.'),
        ("{'from'", "query: this is not JSON: Expecting property name"),
        (
            "SELECT * FROM guests",
            "query: this is not JSON: Expecting value at line 1 column 1. For example {",
        ),
        (["guests"], "query: it is an object."),
        ({"from": "gests"}, "from: no table 'gests'. Did you mean guests? There are: acl,"),
        ({"from": 7}, "from: 7 is not text."),
        ({"form": "guests"}, "query: no part 'form'. Did you mean from?"),
        ({"from": "guests", "From": "nodes"}, "query.from: it is there twice."),
        (
            {"from": "guests", "select": ["nmae"]},
            "select[0]: no field of guests 'nmae'. Did you mean name?",
        ),
        (
            {
                "from": "guests",
                "select": ["vmid", "cpu", "AVG(mem)"],
                "where": only("hostname", "=", "x"),
                "orderBy": ["cpu"],
            },
            (
                "select[1]: no field of guests 'cpu'. Did you mean cpu_usage or cpu_count or "
                "qemu_config.cpu? select[2]: no field of guests 'mem'. Did you mean "
            ),
        ),
        (
            {"from": "guests", "select": ["nod.name"]},
            "select[0]: no relation of guests 'nod'. Did you mean node?",
        ),
        (
            {"from": "guests", "select": ["node.nmae"]},
            "select[0]: no field of nodes 'nmae'. Did you mean name?",
        ),
        (
            {"from": "backups", "where": only("creation", "IN", ["now", "2026-11-27"])},
            (
                "where.conditions[0].value[1]: '2026-11-27' is the first second of that day. "
                'For the whole day use BETWEEN ["2026-11-27", "2026-11-27T23:59:59"].'
            ),
        ),
        (
            {"from": "guests", "select": ["OsType"]},
            (
                "select[0]: no field of guests 'OsType'. "
                "Did you mean qemu_config.os_type or lxc_config.os_type? There are: cluster,"
            ),
        ),
        (
            {"from": "snapshots", "select": ["guest.poolid"]},
            ("select[0]: no field of guests 'poolid'. Did you mean guest.pool.poolid? There are"),
        ),
        (
            {"from": "guests", "select": ["vmid", "COUNT(snapshot.name) as n"]},
            (
                "select[1]: one row of guests can have many snapshots. "
                "Ask from snapshots, each of which leads here by guest; or test for them in where: "
                '{"field": "snapshots", "operator": "NOT EXISTS", "conditions": [{"field": …}]}.'
            ),
        ),
        (
            {"from": "guests", "where": without("tags")},
            "where.field: tags is a field. Use IS NULL or IS NOT NULL.",
        ),
        (
            {"from": "guests", "where": without("bakups")},
            (
                "where.field: no rows that belong to guests: 'bakups'. Did you mean backups? "
                "There are: addresses,"
            ),
        ),
        (
            {"from": "snapshots", "where": without("backups")},
            (
                "where.field: no rows that belong to snapshots: 'backups'. "
                "Did you mean guest.backups or node.backups? There are: guest, node."
            ),
        ),
        (
            {"from": "nodes", "where": without("replications")},
            (
                "where.field: replications belong to nodes in several ways. "
                "Use replications.source_node or replications.target_node."
            ),
        ),
        (
            {"from": "guests", "where": without("backups", only("creatio", ">", "-7d"))},
            "where.conditions[0].conditions[0].field: no field of backups 'creatio'. Did you mean",
        ),
        (
            {"from": "guests", "where": {**without("backups"), "value": ["-7d"]}},
            'where.value: NOT EXISTS takes conditions, not a value. For example {"field": "backu',
        ),
        (
            {"from": "backups", "groupBy": ["vmid"], "having": without("guest")},
            "having: groups have no related rows. Test rows in where.",
        ),
        (
            {"from": "pools", "select": ["node.name"]},
            "select[0]: no relation of pools 'node'. There are: none.",
        ),
        (
            {"from": "guests", "where": only("name", "like", "web%")},
            (
                "where.conditions[0].operator: no operator 'like'. "
                "Did you mean CONTAINS or STARTSWITH or ENDSWITH? There are: =,"
            ),
        ),
        (
            {"from": "guests", "select": ["MEDIAN(vmid)"]},
            "select[0]: no aggregate 'MEDIAN'. Did you mean MIN? There are: COUNT, SUM,",
        ),
        (
            {"from": "guests", "select": ["SUM(name)"]},
            "select[0]: no SUM of name, which is a text. Use COUNT.",
        ),
        (
            {"from": "tasks", "select": ["DAY(duration)"]},
            "select[0]: DAY takes a time, and duration is an integer in seconds.",
        ),
        (
            {"from": "tasks", "select": ["MONTH(start_time)"]},
            "select[0]: no aggregate 'MONTH'.",
        ),
        (
            {"from": "guests", "where": compared("cpu_count", "name")},
            (
                "where.valueField: name is a text, and cpu_count a number in count. "
                "Compare fields of one type and unit."
            ),
        ),
        (
            {"from": "guests", "where": compared("memory_max", "uptime")},
            "where.valueField: uptime is an integer in seconds, and memory_max an integer in",
        ),
        (
            {"from": "guests", "where": {**compared("vmid", "cpu_count"), "value": ["1"]}},
            "where.valueField: either value or valueField.",
        ),
        (
            {"from": "guests", "where": compared("vmid", "cpu_count", "IN")},
            (
                "where.operator: IN doesn't compare vmid, an integer, with a field. "
                "Use one of =, !=, >, <, >=, <=."
            ),
        ),
        (
            {"from": "guests", "where": compared("tags", "cpu_count", "CONTAINS")},
            (
                "where.operator: CONTAINS doesn't compare tags, a list, with a field. "
                "Compare it with values."
            ),
        ),
        (
            {"from": "guests", "select": ["vmid", "memory"]},
            (
                "select[1]: no field of guests 'memory'. "
                "Did you mean memory_usage or memory_max or memory_usage_percentage"
            ),
        ),
        (
            {"from": "guests", "where": only("memory_usage", ">", "node.memory_total")},
            (
                "where.conditions[0].value[0]: node.memory_total is a field. "
                'Write "valueField": "node.memory_total" instead of value.'
            ),
        ),
        (
            {"from": "tasks", "select": ["day"], "groupBy": "DAY(start_time)"},
            "select[0]: no field of tasks 'day'. Did you mean DAY(start_time) or DAY(end_time)?",
        ),
        (
            {"from": "tasks", "select": ["DATE_TRUNC('day', start_time) as day"]},
            "select[0]: \"DATE_TRUNC('day', start_time) as day\" is no field. Round times by HOUR,",
        ),
        (
            {"from": "guests", "select": ["ROW_NUMBER() OVER (PARTITION BY node) as n"]},
            "select[0]: 'ROW_NUMBER() OVER (PARTITION BY node) as' is no field. For the first rows",
        ),
        (
            {"from": "guests", "select": ["PERCENTAGE(memory_max)"]},
            "select[0]: no aggregate 'PERCENTAGE'. Did you mean SHARE?",
        ),
        (
            {"from": "guests", "where": compared("memory_max", "mem")},
            "where.valueField: no field of guests 'mem'.",
        ),
        ({"from": "guests", "select": ["SUM(*)"]}, "select[0]: only COUNT and SHARE take *"),
        ({"from": "guests", "select": ["MAX(DISTINCT vmid)"]}, "select[0]: only COUNT takes DIST"),
        ({"from": "guests", "select": ["*", "name"]}, 'select: "*" stands alone.'),
        ({"from": "guests", "select": ["name", "NAME"]}, "select[1]: there are two columns name."),
        (
            {"from": "guests", "select": ["name; DROP TABLE guests"]},
            "select[0]: 'name; DROP TABLE guests' is no field.",
        ),
        (
            {"from": "guests", "select": ["name", "COUNT(*) as n"]},
            "select[0]: name differs within a group. Add name to groupBy, or aggregate it.",
        ),
        (
            {"from": "guests", "where": only("name", "LIKE", "web%")},
            "where.conditions[0].operator: no operator 'LIKE'. ",
        ),
        (
            {"from": "tasks", "where": only("status", "=", "Error")},
            (
                "where.conditions[0].value[0]: status is never 'error'. "
                "Use outcome, which is one of running, ok, warnings, error."
            ),
        ),
        (
            {"from": "guests", "where": only("tags", "=", "web")},
            (
                "where.conditions[0].operator: = doesn't fit tags, which is a list. "
                "Use one of CONTAINS, NOT CONTAINS, IN, NOT IN, IS NULL, IS NOT NULL."
            ),
        ),
        (
            {"from": "guests", "where": only("memory_max", ">", "lots")},
            (
                "where.conditions[0].value[0]: 'lots' doesn't fit memory_max, which is an integer "
                'in bytes. Write 8589934592 or "8GiB".'
            ),
        ),
        (
            {"from": "guests", "where": only("type", "=", "jail")},
            "where.conditions[0].value[0]: no type 'jail'. There are: qemu, lxc.",
        ),
        (
            {"from": "guests", "where": only("status", "=", "up")},
            "where.conditions[0].value[0]: no status 'up'. There are: running, stopped, paused,",
        ),
        (
            {"from": "guests", "where": only("status", "=", ["a", "b"])},
            "where.conditions[0].value: = takes 1 value, not 2. Use IN for several.",
        ),
        (
            {"from": "guests", "where": only("status", "!=", ["a", "b"])},
            "where.conditions[0].value: != takes 1 value, not 2. Use NOT IN for several.",
        ),
        (
            {"from": "guests", "where": only("tags", "CONTAINS", ["a", "b"])},
            "where.conditions[0].value: CONTAINS takes 1 value, not 2. Use IN for several.",
        ),
        (
            {"from": "guests", "where": only("name", "CONTAINS", ["a", "b"])},
            "where.conditions[0].value: CONTAINS takes 1 value, not 2. Write a condition for each.",
        ),
        (
            {"from": "guests", "where": only("vmid", "BETWEEN", [1])},
            ("where.conditions[0].value: BETWEEN takes 2 values, not 1. Write [least, greatest]."),
        ),
        (
            {"from": "guests", "where": only("uptime", "BETWEEN", ["30d", "1d"])},
            ("where.conditions[0].value: '30d' is more than '1d'. Write the lower bound first."),
        ),
        (
            {"from": "tasks", "where": only("start_time", "BETWEEN", ["now", "-7d"])},
            "where.conditions[0].value: 'now' is more than '-7d'. Write the lower bound first.",
        ),
        (
            {"from": "tasks", "where": only("start_time", ">", 1790000000000)},
            "where.conditions[0].value[0]: 1790000000000 doesn't fit start_time, which is a time.",
        ),
        (
            {"from": "guests", "where": {"field": "vmid", "operator": "="}},
            "where.value: = takes 1 value, not 0.",
        ),
        (
            {"from": "guests", "where": only("lock", "=", None)},
            ("where.conditions[0].value[0]: null equals nothing. Use IS NULL or IS NOT NULL."),
        ),
        (
            {
                "from": "guests",
                "select": ["node", "COUNT(*) as total"],
                "groupBy": "node",
                "where": only("total", ">", 1),
            },
            (
                "where.conditions[0].field: total is a name given in select. "
                "Groups are filtered in having."
            ),
        ),
        (
            {"from": "guests", "select": ["memory_max as ram"], "where": only("ram", ">", 1)},
            ("where.conditions[0].field: ram is a name given in select. Write the field itself."),
        ),
        (
            {"from": "guests", "select": [{"field": "node"}]},
            "select[0]: {'field': 'node'} is not text. Write \"name\", \"node.status\",",
        ),
        (
            {"from": "guests", "where": {"conditions": [{"field": "vmid"}]}},
            "where.conditions[0].operator: it is missing.",
        ),
        (
            {"from": "guests", "where": {"conditions": [1]}},
            "where.conditions[0]: a condition is an object.",
        ),
        (
            {
                "from": "guests",
                "where": {"conditions": [{"logic": "xor", "conditions": [only("vmid", ">", 1)]}]},
            },
            "where.conditions[0].logic: no logic 'xor'.",
        ),
        (
            {"from": "guests", "where": only("COUNT(*)", ">", 1)},
            "where.conditions[0].field: groups are filtered in having.",
        ),
        (
            {"from": "guests", "having": only("vmid", ">", 1)},
            "having: it filters groups. Add groupBy, or use where.",
        ),
        (
            {"from": "guests", "groupBy": ["node"], "having": only("vmid", ">", 1)},
            "having.conditions[0].field: vmid differs within a group.",
        ),
        (
            {"from": "backup_jobs", "select": ["COUNT(*)"], "groupBy": ["vmids", "excluded"]},
            "groupBy: vmids and excluded are lists. Group by one of them.",
        ),
        ({"from": "guests", "groupBy": ["COUNT(*)"]}, "groupBy[0]: group by fields"),
        (
            {"from": "guests", "orderBy": [{"field": "name", "direction": "up"}]},
            "orderBy[0].direction: no direction 'up'. There are: asc, desc.",
        ),
        ({"from": "guests", "orderBy": ["COUNT(*)"]}, "orderBy[0]: there are no groups"),
        (
            {"from": "guests", "select": ["node"], "distinct": True, "orderBy": ["name"]},
            "orderBy[0]: distinct rows are sorted by what is selected only.",
        ),
        ({"from": "guests", "limit": -1}, "limit: -1 is not a whole number from 1 on."),
        (
            '{"from": "guests", "limit": ' + "9" * 5_000 + "}",
            "query: it has a number that is too long.",
        ),
        ({"from": "guests", "limit": "many"}, "limit: 'many' is not a whole number from 1 on."),
        *(
            (
                {"from": "guests", "orderBy": "vmid", "limitPer": form},
                f'limitPer: it is fields and a count. Write "limitPer": {right}.',
            )
            for form, right in (
                (3, '{"fields": ["node"], "count": 3}'),
                ("3 per vmid", '{"fields": ["node"], "count": 3}'),
                ("vmid", '{"fields": ["vmid"], "count": 3}'),
                ("cluster, vmid", '{"fields": ["cluster", "vmid"], "count": 3}'),
                ('["vmid"]', '{"fields": ["vmid"], "count": 3}'),
                ({"vmid": 1}, '{"fields": ["vmid"], "count": 1}'),
                (["a as x" + " " * 40_000 + "\nz"], '{"fields": ["node"], "count": 3}'),
            )
        ),
        (
            {"from": "guests", "orderBy": "vmid", "limitPer": {"fields": "vmid"}, "limit": 3},
            'limitPer.count: it is missing. Write "limitPer": {"fields": ["vmid"], "count": 3}.',
        ),
        (
            {"from": "guests", "orderBy": "vmid", "limitPer": {"count": 2}},
            "limitPer.fields: it is missing.",
        ),
        (
            {"from": "guests", "orderBy": "vmid", "limitPer": {"by": "node", "count": 0}},
            "limitPer.count: 0 is not a whole number from 1 on.",
        ),
        (
            {"from": "guests", "orderBy": "vmid", "limitPer": {"by": "node", "size": 1}},
            "limitPer: no part 'size'.",
        ),
        (
            {"from": "guests", "limitPer": {"fields": "node", "count": 1}},
            "limitPer: orderBy has to say which rows come first. For example ",
        ),
        (
            {"from": "guests", "orderBy": "vmid", "limitPer": {"fields": "nod", "count": 1}},
            "limitPer.fields[0]: no field of guests 'nod'. Did you mean node",
        ),
        (
            {"from": "guests", "orderBy": "vmid", "limitPer": {"fields": ["tags"], "count": 1}},
            "limitPer.fields[0]: tags is a list. Add it to groupBy first.",
        ),
        (
            {
                "from": "guests",
                "select": ["status"],
                "distinct": True,
                "orderBy": "status",
                "limitPer": {"fields": ["node"], "count": 1},
            },
            "limitPer.fields[0]: distinct rows are limited by what is selected only.",
        ),
        *(
            (
                {
                    "from": "guests",
                    "select": [*columns, "COUNT(*) as n"],
                    "groupBy": groups,
                    "orderBy": "n",
                    "limitPer": {"fields": fields, "count": 1},
                },
                text,
            )
            for columns, groups, fields, text in (
                (["node"], ["node"], "vmid", "limitPer.fields[0]: vmid differs within a group."),
                (["node"], ["node"], "n", "limitPer.fields[0]: it is a field, not an aggregate."),
                (["node"], ["node"], "node", "limitPer: there is one row for each node already."),
                ([], [], "node", "limitPer: there is one row for each node already."),
                (
                    ["node", "vmid"],
                    ["node"],
                    "node",
                    "select[1]: vmid differs within a group. Leave groupBy out: limitPer needs",
                ),
            )
        ),
        ({"from": "guests", "topN": 3}, "query: no part 'topN'. Did you mean limitPer?"),
        ({"from": "guests", "partition_by": "a"}, "query: no part 'partition_by'. Did you mean li"),
        ({"from": "guests", "offset": -1}, "offset: -1 is not a whole number from 0 on."),
        ({"from": "guests", "distinct": "perhaps"}, "distinct: 'perhaps' is not true or false."),
    ],
)
def test_errors_name_place_fault_and_next_step(error_of, query, text):
    assert error_of(query).startswith(text)


def test_names_match_without_case_and_underscores_and_by_their_aliases(differential):
    rows = differential.database(differential.Dataset({}))
    names = ["CpuUsagePercentage", "MEMORY_TOTAL", "guests.VmId", "Node.Memory-Used"]
    answer = differential.answer({"from": "GUEST", "select": names, "limit": "3"}, rows)
    assert answer == []


def test_a_look_alike_of_a_name_is_unknown(error_of):
    # casefold() turns the long s into an s; in names it is another character
    assert "no field" in error_of({"from": "guests", "select": ["u\u017fer"]})
    assert "no table" in error_of({"from": "gue\u017fts"})


def test_every_choice_of_a_field_is_read_in_any_case(differential):
    rows = differential.database(differential.Dataset({}))
    fields = [(t, f) for t in tables().values() for f in t.fields.values() if f.choices]
    for table, field in fields:
        if "time_frame" in table.fields:  # its own condition decides what is loaded
            continue
        for choice in field.choices:
            for word in (choice.lower(), choice.upper()):
                where = only(field.name, "=", [word])
                differential.answer({"from": table.name, "where": where}, rows)


def test_near_names_of_the_table_come_before_related_ones():
    catalog = Catalog(tables())
    for table, name, suggested in (
        ("guests", "started", "uptime"),
        ("nodes", "boot_time", "uptime"),
        ("pbs_jobs", "gc_last_run", "last_run or store.gc_last_run"),
        ("zfs_pools", "cpu_usage_percentage", "usage_percentage or node.cpu_usage_percentage"),
        ("snapshots", "guest.started", "guest.uptime"),
    ):
        with pytest.raises(BadArgument, match=f"Did you mean {suggested}[ ?]"):
            catalog.column(tables()[table], name, "select[0]")


def test_the_share_of_space_has_both_usual_names_in_every_table():
    shares = {"usage_percentage", "disk_usage_percentage"}
    for table in tables().values():
        if "memory_usage_percentage" in table.fields:  # a use of several resources
            continue
        for name in shares & table.fields.keys():
            assert shares <= {name, *table.fields[name].aliases}, table.name
