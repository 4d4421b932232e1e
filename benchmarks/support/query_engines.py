"""The eight benchmark queries, for our engine and two others, on the same columns."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from pvemcp_server.query.binder import bind
from pvemcp_server.query.catalog import CLUSTER, Catalog
from pvemcp_server.query.compiler import compile_plan
from pvemcp_server.query.execute import QueryResult
from pvemcp_server.query.loader import build_database
from pvemcp_server.query.parser import parse
from pvemcp_server.query.pushdown import RequiredColumns, required_columns
from pvemcp_server.tables import guests, nodes
from pvemcp_server.tables.rows import Row

NOW = datetime(2026, 11, 22, tzinfo=UTC)
Rows = Mapping[str, list[Row]]
GIB = 2**30
MOST_ROWS = 1000  # of the queries without a limit; the other engines have none
SOME = list(range(100, 300, 2))


def _where(*conditions: tuple[str, str, Any], logic: str = "and") -> dict[str, Any]:
    names = ("field", "operator", "value")
    return {
        "logic": logic,
        "conditions": [dict(zip(names, condition, strict=True)) for condition in conditions],
    }


QUERIES: tuple[dict[str, Any], ...] = (
    {
        "from": "guests",
        "select": ["vmid", "name", "memory_usage"],
        "where": _where(("status", "=", "running")),
        "orderBy": ["memory_usage desc", "vmid"],
        "limit": 5,
    },
    {
        "from": "guests",
        "select": ["node", "status", "COUNT(*) as n"],
        "groupBy": ["node", "status"],
    },
    {
        "from": "guests",
        "select": ["vmid", "name", "cpu_usage"],
        "where": _where(("status", "=", "running"), ("cpu_usage", ">", 70)),
        "orderBy": ["cpu_usage desc", "vmid"],
        "limit": 100,
    },
    {
        "from": "guests",
        "select": ["vmid", "name", "tags"],
        "where": _where(("tags", "CONTAINS", "prod"), ("name", "STARTSWITH", "WEB")),
        "orderBy": ["vmid"],
        "limit": 100,
    },
    {
        "from": "guests",
        "select": ["pool", "SUM(memory_usage) as used", "AVG(cpu_usage) as cpu"],
        "groupBy": ["pool"],
        "having": _where(("used", ">", "1GiB")),
    },
    {
        "from": "guests",
        "select": ["vmid", "name", "node.cpu_usage"],
        "where": _where(("node.cpu_usage", ">", 50)),
        "orderBy": ["node.cpu_usage desc", "vmid"],
        "limit": 10,
    },
    {"from": "guests", "select": ["node", "type"], "distinct": True},
    {
        "from": "guests",
        "select": ["vmid", "name"],
        "where": _where(
            ("vmid", "IN", SOME), ("memory_usage_percentage", ">=", "99.5%"), logic="or"
        ),
        "orderBy": ["vmid"],
        "limit": 500,
    },
)


class Engine(Protocol):
    """An engine that holds the rows and answers a query by its number."""

    def load(self, rows: Rows) -> None: ...
    def ask(self, number: int) -> list[tuple[Any, ...]]: ...


class Ours:
    """SQLite behind our parser, binder and compiler; all of that is timed."""

    catalog = Catalog({"guests": guests, "nodes": nodes})

    def load(self, rows: Rows) -> None:
        by_cluster = {name: {"prod": some} for name, some in rows.items()}
        self.database = build_database(self.catalog, required(self.catalog), by_cluster)

    def ask(self, number: int) -> list[tuple[Any, ...]]:
        query = QUERIES[number]
        plan = bind(parse({"limit": MOST_ROWS, **query}), self.catalog, NOW)
        cells = self.database.execute(compile_plan(plan, self.catalog), 60.0)
        return [tuple(row.values()) for row in QueryResult.from_cells(plan, cells).rows]


def required(catalog: Catalog) -> dict[str, RequiredColumns]:
    """Return the columns of all eight queries, as a server that answered them has loaded them."""
    required = {name: RequiredColumns() for name in catalog.tables}
    for query in QUERIES:
        plan = bind(parse(query), catalog, NOW)
        for name, need in required_columns(plan, catalog).items():
            required[name] |= need
    return required


def columns(rows: list[Row], table: str) -> dict[str, list[Any]]:
    """Return the same columns for the other engines."""
    names = sorted(required(Ours.catalog)[table].columns - {CLUSTER.name})
    return {
        CLUSTER.name: ["prod"] * len(rows),
        **{name: [getattr(row, name) for row in rows] for name in names},
    }


class DuckDb:
    """DuckDB in memory with one thread, as one of many concurrent calls would use it."""

    STATEMENTS = (
        (
            "SELECT vmid, name, memory_usage FROM guests WHERE status = 'running' "
            "ORDER BY memory_usage DESC, vmid LIMIT 5"
        ),
        "SELECT node, status, count(*) FROM guests GROUP BY node, status ORDER BY node, status",
        (
            "SELECT vmid, name, cpu_usage FROM guests WHERE status = 'running' AND cpu_usage > 70 "
            "ORDER BY cpu_usage DESC, vmid LIMIT 100"
        ),
        (
            "SELECT vmid, name, tags FROM guests WHERE list_contains(tags, 'prod') "
            "AND lower(name) LIKE 'web%' ORDER BY vmid LIMIT 100"
        ),
        (
            "SELECT pool, sum(memory_usage)::BIGINT AS used, round(avg(cpu_usage), 2) FROM guests "
            "GROUP BY pool HAVING used > 1073741824 ORDER BY pool NULLS LAST"
        ),
        (
            "SELECT g.vmid, g.name, n.cpu_usage FROM guests g LEFT JOIN nodes n "
            "ON n.cluster = g.cluster AND n.node = g.node WHERE n.cpu_usage > 50 "
            "ORDER BY n.cpu_usage DESC, g.vmid LIMIT 10"
        ),
        "SELECT DISTINCT node, type FROM guests ORDER BY node, type",
        (
            f"SELECT vmid, name FROM guests WHERE vmid IN ({', '.join(map(str, SOME))}) "
            "OR memory_usage_percentage >= 99.5 ORDER BY vmid LIMIT 500"
        ),
    )

    def load(self, rows: Rows) -> None:
        import duckdb
        import pandas as pd

        self.connection = duckdb.connect(config={"threads": 1})
        for name, some in rows.items():
            frame = pd.DataFrame(columns(some, name))
            self.connection.register("frame", frame)
            self.connection.execute(f"CREATE TABLE {name} AS SELECT * FROM frame")
            self.connection.unregister("frame")

    def ask(self, number: int) -> list[tuple[Any, ...]]:
        return self.connection.execute(self.STATEMENTS[number]).fetchall()


class Polars:
    """Polars in memory, lazy queries."""

    def load(self, rows: Rows) -> None:
        import polars as pl

        self.polars = pl
        frames = {
            name: pl.DataFrame(columns(some, name), infer_schema_length=None)
            for name, some in rows.items()
        }
        self.guests, self.nodes = frames["guests"].lazy(), frames["nodes"].lazy()
        col = pl.col
        joined = self.guests.join(self.nodes, on=["cluster", "node"], how="left", suffix="_node")
        running = col("status") == "running"
        self.queries: tuple[Callable[[], Any], ...] = (
            lambda: self._top(running, ["memory_usage"], 5),
            lambda: self.guests.group_by("node", "status").agg(pl.len()).sort("node", "status"),
            lambda: self._top(running & (col("cpu_usage") > 70), ["cpu_usage"], 100),
            lambda: (
                self.guests.filter(
                    col("tags").list.contains("prod")
                    & col("name").str.to_lowercase().str.starts_with("web")
                )
                .select("vmid", "name", "tags")
                .sort("vmid")
                .head(100)
            ),
            lambda: (
                self.guests.group_by("pool")
                .agg(
                    col("memory_usage").sum().alias("used"),
                    col("cpu_usage").mean().round(2).alias("cpu"),
                )
                .filter(col("used") > GIB)
                .sort("pool", nulls_last=True)
            ),
            lambda: (
                joined.filter(col("cpu_usage_node") > 50)
                .select("vmid", "name", "cpu_usage_node")
                .sort(["cpu_usage_node", "vmid"], descending=[True, False])
                .head(10)
            ),
            lambda: self.guests.select("node", "type").unique().sort("node", "type"),
            lambda: (
                self.guests.filter(
                    col("vmid").is_in(SOME) | (col("memory_usage_percentage") >= 99.5)
                )
                .select("vmid", "name")
                .sort("vmid")
                .head(500)
            ),
        )

    def _top(self, condition: Any, by: list[str], limit: int) -> Any:
        return (
            self.guests.filter(condition)
            .select("vmid", "name", *by)
            .sort([*by, "vmid"], descending=[True, False])
            .head(limit)
        )

    def ask(self, number: int) -> list[tuple[Any, ...]]:
        return list(self.queries[number]().collect().rows())


ENGINES: Mapping[str, type[Engine]] = {"SQLite (ours)": Ours, "DuckDB": DuckDb, "Polars": Polars}
