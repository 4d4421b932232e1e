"""Random rows of every declared table, few enough to read and with unusual values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from pvemcp_server.tables.registry import CLUSTER_FIELD, Table, tables
from pvemcp_server.tables.rows import Field, Kind, Row, Unit

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)

CLUSTERS = ("Lab", "prod")
VMIDS = tuple(range(100, 112))
NODES = ("pve1", "pve2", "PVE3")
STORAGES = ("local", "Nfs", "ceph")
POOLS = ("web", "db")
TEXTS = (
    "", "a", "A", "web", "Web-1", "WEB-2", "db", "Straße", "STRASSE", "İzmir", "\u017fhort",
    "short", "über", "ÜBER", "a'b", 'a"b', "a;--", "100%", "_", "a_b", "%", "\\", "日本", "🙂",
    "e\u0301",     "zz\nzz", "null", "NULL", "1", "0",
)  # fmt: skip
NUMBERS = (0, 1, 2, 3, 50, 80, 99.5, 100, 1024, 4096, 8 << 30, 16 << 30, 1 << 40)

_JOINED = {
    "vmid": VMIDS,
    "node": NODES,
    "source": NODES,
    "target": NODES,
    "storage": STORAGES,
    "pool": POOLS,
    "poolid": POOLS,
    "datastore": STORAGES,
    "guest_cluster": CLUSTERS,
}


@dataclass(frozen=True)
class Dataset:
    """Rows by table and cluster."""

    rows: Mapping[str, Mapping[str, Sequence[Row]]]

    @classmethod
    def random(cls, rng: Random, size: int = 12) -> "Dataset":
        """Return a dataset with at most `size` rows of each table on each cluster."""
        return cls(
            {
                table.name: {
                    cluster: _rows(rng, table, rng.randint(0, size)) for cluster in CLUSTERS
                }
                for table in tables().values()
            }
        )


def keys_of(table: str) -> tuple[str, ...]:
    """Return the fields by which relations find rows of the table."""
    keys = {
        tuple(name for name in relation.on.values() if name != CLUSTER_FIELD)
        for other in tables().values()
        for relation in other.relations
        if relation.table == table
    }
    return next(iter(keys), ())


def _rows(rng: Random, table: Table, number: int) -> list[Row]:
    """Return random rows; no two have the same key, since a relation leads to one row."""
    key = keys_of(table.name)
    rows: dict[Any, Row] = {}
    for n in range(number):
        values = {field.name: random_value(rng, field) for field in table.fields.values()}
        row = table.row(**values)
        rows.setdefault(tuple(values[name] for name in key) if key else n, row)
    return list(rows.values())


def random_value(rng: Random, field: Field) -> Any:
    """Return a value that the field may hold."""
    if field.nullable and rng.random() < 0.25:
        return None
    if field.name in _JOINED:
        return rng.choice(_JOINED[field.name])
    if field.choices:
        return rng.choice(field.choices)
    match field.kind:
        case Kind.TEXT:
            return rng.choice(TEXTS)
        case Kind.INTEGER:
            return int(rng.choice(NUMBERS)) if field.unit is Unit.BYTES else rng.randint(0, 20)
        case Kind.NUMBER:
            return rng.choice((rng.randint(0, 200) / 2, rng.randint(0, 20)))
        case Kind.BOOLEAN:
            return rng.random() < 0.5
        case Kind.TIME:
            return NOW - timedelta(hours=rng.randint(-48, 24 * 60))
        case Kind.LIST:
            numbers = field.name in ("vmids", "excluded")
            pool: Sequence[Any] = VMIDS if numbers else TEXTS
            return [rng.choice(pool) for _ in range(rng.choice((0, 0, 1, 2, 3)))]
