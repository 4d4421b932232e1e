"""Example queries: GetQuerySchema shows them, the query page offers them, a test runs each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Example:
    """A question and the query that answers it."""

    question: str
    query: Json


def _is(field: str, operator: str, *value: str) -> dict[str, Any]:
    """Return a condition; its values are text, as the input schema of ExecuteQuery has them."""
    return {"field": field, "operator": operator, "value": list(value)}


EXAMPLES: Final = (
    Example(
        "Top 5 VMs by memory, with the use of their node and their OS type",
        {
            "from": "guests",
            "select": [
                "cluster",
                "vmid",
                "name",
                "node",
                "memory_usage",
                "node.memory_usage_percentage",
                "qemu_config.os_type",
            ],
            "where": {"logic": "and", "conditions": [_is("type", "=", "qemu")]},
            "orderBy": [{"field": "memory_usage", "direction": "desc"}],
            "limit": 5,
        },
    ),
    Example(
        "Guests of each node, by status",
        {
            "from": "guests",
            "select": ["cluster", "node", "status", "COUNT(*) as total"],
            "groupBy": ["cluster", "node", "status"],
            "orderBy": [{"field": "total", "direction": "desc"}],
        },
    ),
    Example(
        "Storages with more than 80 % in use, each once",
        {
            "from": "storages",
            "select": ["cluster", "storage", "node", "disk_usage_percentage", "disk_free"],
            "where": {
                "logic": "and",
                "conditions": [_is("usage_percentage", ">", "80"), _is("is_primary", "=", "true")],
            },
        },
    ),
    Example(
        "Snapshots older than 30 days",
        {
            "from": "snapshots",
            "select": ["cluster", "vmid", "vm_name", "name", "date"],
            "where": {"conditions": [_is("date", "<", "-30d")]},
            "orderBy": [{"field": "date", "direction": "asc"}],
        },
    ),
    Example(
        "Guests with high load that are tagged prod or in the pool web",
        {
            "from": "guests",
            "select": ["cluster", "vmid", "name", "cpu_usage", "memory_usage_percentage"],
            "where": {
                "logic": "and",
                "conditions": [
                    {
                        "logic": "or",
                        "conditions": [_is("tags", "CONTAINS", "prod"), _is("pool", "=", "web")],
                    },
                    {
                        "logic": "or",
                        "conditions": [
                            _is("cpu_usage", ">", "70"),
                            _is("memory_usage_percentage", ">=", "90%"),
                        ],
                    },
                ],
            },
        },
    ),
    Example(
        "Guests without a backup of the last 7 days",
        {
            "from": "guests",
            "select": ["cluster", "vmid", "name"],
            "where": {
                "conditions": [
                    {
                        "field": "backups",
                        "operator": "NOT EXISTS",
                        "conditions": [_is("creation", ">", "-7d")],
                    }
                ]
            },
        },
    ),
    Example(
        "Users with more than one failed task in the last day",
        {
            "from": "tasks",
            "select": ["user", "COUNT(*) as failed", "MAX(start_time) as last"],
            "where": {
                "conditions": [_is("outcome", "=", "error"), _is("start_time", ">=", "-24h")]
            },
            "groupBy": ["user"],
            "having": {"conditions": [_is("failed", ">", "1")]},
        },
    ),
    Example(
        "Guests with the most disk traffic now; other time frames: hour, day, week, month, year",
        {
            "from": "guest_metrics",
            "select": ["cluster", "vmid", "name", "disk_rate"],
            "where": {"conditions": [_is("time_frame", "=", "now")]},
            "orderBy": [{"field": "disk_rate", "direction": "desc"}],
            "limit": 5,
        },
    ),
    Example(
        "How much is backed up of how many guests, on each storage",
        {
            "from": "backups",
            "select": [
                "cluster",
                "storage",
                "COUNT(DISTINCT vmid) as guests",
                "SUM(size) as bytes",
            ],
            "groupBy": ["cluster", "storage"],
        },
    ),
)
