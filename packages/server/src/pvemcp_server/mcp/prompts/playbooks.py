"""Playbooks: longer tasks step by step, with thresholds and the form of the report."""

from typing import Final

from pvemcp_server.mcp.prompts.model import Prompt

_REPORT = (
    "Report: first one line with the verdict, then what needs action (most urgent first, each with "
    "the guest, node or storage and the reason), then what is fine, in a line. Say what could not "
    "be read and why: see the notes of each answer. Change nothing."
)

PLAYBOOKS: Final = (
    Prompt(
        "health-report",
        "Health report",
        "A report on a cluster for the engineer on duty",
        "Write a health report of cluster {cluster}.\n"
        "1. GetAttention: what it finds, and in its notes what it could not look at.\n"
        "2. The next call of each critical finding and of each warning: causes, and what is "
        "affected.\n"
        "3. ListNodes with detail_level Full: CPU above 80 %.\n"
        "4. ListBackupJobs: guests that no job covers.\n" + _REPORT,
        ("GetAttention", "ListNodes", "ListBackupJobs"),
    ),
    Prompt(
        "capacity-review",
        "Capacity review",
        "What a cluster has left, and what would happen without its largest node",
        "Review the capacity of cluster {cluster}.\n"
        "1. ListNodes with detail_level Full: memory and CPU in total and in use.\n"
        "2. ExecuteQuery on guests, grouped by node: count, SUM(memory_max), SUM(cpu_count) of the "
        "running ones.\n"
        "3. ListNodeRrdData over a Month: p95 and maximum of CPU and memory.\n"
        "4. ListStorage with detail_level Full: free space per storage.\n"
        "Work out: overcommitment of memory and CPU per node, whether the guests of the largest "
        "node "
        "fit on the others, and the storage that fills first. Show the figures you used. Change "
        "nothing.",
        ("ListNodes", "ExecuteQuery", "ListNodeRrdData", "ListStorage"),
    ),
    Prompt(
        "backup-audit",
        "Backup audit",
        "Which guests could not be restored today",
        "Audit the backups of cluster {cluster}.\n"
        "1. ListBackupJobs: enabled jobs, schedule, retention, excluded guests, failed last runs.\n"
        "2. ExecuteQuery on backups, grouped by vmid: MAX(creation) and COUNT(*).\n"
        "3. ListVms: guests without any backup; templates do not count.\n"
        "4. ExecuteQuery on disks where backup is false: disks that no backup holds.\n"
        "Name guests without a backup, with one older than 7 days, with unverified ones only, and "
        "backups of guests that no longer exist.\n" + _REPORT,
        ("ListBackupJobs", "ExecuteQuery", "ListVms"),
    ),
    Prompt(
        "before-maintenance",
        "Before maintenance",
        "What must be done before a node is taken down",
        "Check whether node {node} of cluster {cluster} can be taken down for maintenance.\n"
        "1. GetClusterStatus: is the cluster quorate, and would it be with one node less?\n"
        "2. ExecuteQuery on guests where node is {node} and status is running.\n"
        "3. MigrateVm with dry_run and their vmids to a node with room (ListNodes): which can "
        "move live, which cannot and why (local disks, passthrough devices, HA rules).\n"
        "4. ListTasks on that node with status running: what must end first.\n"
        "5. ListReplications and ListBackupJobs: what would run there in the meantime.\n"
        "Give an order of steps with target nodes, and what cannot be moved. Dry runs only: change "
        "nothing.",
        (
            "GetClusterStatus",
            "ExecuteQuery",
            "MigrateVm",
            "ListNodes",
            "ListTasks",
            "ListReplications",
            "ListBackupJobs",
        ),
    ),
)
