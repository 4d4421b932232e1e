"""Everyday questions and tasks, each with the fewest calls."""

from typing import Final

from pvemcp_server.mcp.prompts.model import Prompt, Slot

# Names and VMIDs may exist in several clusters
OF_CLUSTER: Final = {
    "cluster": Slot("Name of the cluster, where there are several", "", " of cluster {}")
}

QUESTIONS: Final = (
    Prompt(
        "busy-guests",
        "Busy guests",
        "Which guests use much CPU now",
        "Which VMs in cluster {cluster} are running and using more than {percent}% CPU? "
        "One ExecuteQuery on guests answers it: status and cpu_usage.",
        ("ExecuteQuery",),
        {"percent": Slot("CPU usage in percent", "70")},
    ),
    Prompt(
        "old-snapshots",
        "Old snapshots",
        "Snapshots that are probably forgotten",
        "Show me the snapshots older than {days} days across all clusters, oldest first, and say "
        "which guests carry most of them. One ExecuteQuery on snapshots answers it.",
        ("ExecuteQuery",),
        {"days": Slot("Age in days", "30")},
    ),
    Prompt(
        "cluster-health",
        "Health of a cluster",
        "Nodes, guests and storages of a cluster at a glance",
        "Summarise the health of cluster {cluster}: nodes online and offline, guests by status, "
        "free storage per storage. GetClusterStatus and ListStorage answer it.",
        ("GetClusterStatus", "ListStorage"),
    ),
    Prompt(
        "failed-tasks",
        "Failed tasks",
        "What went wrong lately",
        "List the last {count} failed tasks across all clusters, with user and duration, and group "
        "those with the same cause. ListTasks with status error answers it.",
        ("ListTasks",),
        {"count": Slot("How many", "20")},
    ),
    Prompt(
        "node-pressure",
        "Pressure on a node",
        "CPU and memory pressure (PSI) of a node over a day",
        "For node {node}{cluster}, show the CPU and memory pressure (PSI) over the last 24 hours: "
        "peaks, when they were, and whether it is getting worse. ListNodeRrdData with metrics "
        "Pressure answers it.",
        ("ListNodeRrdData",),
        OF_CLUSTER,
    ),
    Prompt(
        "guest-backups",
        "Backups of a guest",
        "All backups of a guest and the most recent one",
        "List all backups for VM {vmid}{cluster} and show me the most recent one, its size and "
        "whether it was verified. One ExecuteQuery on backups answers it.",
        ("ExecuteQuery",),
        OF_CLUSTER,
    ),
    Prompt(
        "old-isos",
        "Old ISO images",
        "ISO images that could be deleted",
        "On node {node}{cluster}, storage {storage}, find ISO images older than {months} months "
        "and propose which to delete. Propose only: delete nothing. ListIsos answers it.",
        ("ListIsos",),
        OF_CLUSTER | {"months": Slot("Age in months", "6")},
    ),
    Prompt(
        "download-iso",
        "Download an ISO image",
        "Have a node fetch an ISO image",
        "Download {image} to storage {storage} on node {node}{cluster}, with its checksum. Show me "
        "the URL before you start. DownloadIso fetches it, GetTask shows how it ended.",
        ("DownloadIso", "GetTask"),
        OF_CLUSTER | {"image": Slot("What to download", "the latest Debian 12 netinst ISO")},
    ),
    Prompt(
        "backup-jobs",
        "Backup jobs",
        "All backup jobs and how their last run went",
        "Show me all backup jobs and highlight any whose last run failed. ListBackupJobs answers "
        "it.",
        ("ListBackupJobs",),
    ),
    Prompt(
        "create-snapshot",
        "Create a snapshot",
        "A snapshot of a guest, with its memory",
        'Create a snapshot of VM {vmid}{cluster} called {name} with description "{description}", '
        "including RAM. CreateVmSnapshot does it.",
        ("CreateVmSnapshot",),
        OF_CLUSTER
        | {
            "name": Slot("Name of the snapshot", "pre-upgrade"),
            "description": Slot("Why it is taken", "before an upgrade"),
        },
    ),
    Prompt(
        "migrate-guest",
        "Migrate a guest",
        "Move a guest to another node",
        "Migrate VM {vmid}{cluster} to {target}, live if it is running. Do a dry run of MigrateVm "
        "first and go on only if nothing stands against it.",
        ("MigrateVm",),
        OF_CLUSTER,
    ),
    Prompt(
        "backup-guest",
        "Back up a guest",
        "Run a backup of a guest now",
        "Run a backup of VM {vmid}{cluster} on storage {storage} with {compress} compression. "
        "BackupVm does it.",
        ("BackupVm",),
        OF_CLUSTER | {"compress": Slot("Compression: 0, 1, gzip, lzo or zstd", "zstd")},
    ),
    Prompt(
        "reset-guest",
        "Reset a guest",
        "Reset a guest that hangs",
        "Reset VM {vmid}{cluster}, it hangs. ChangeVmState with action Reset does it.",
        ("ChangeVmState",),
        OF_CLUSTER,
    ),
    Prompt(
        "query-tables",
        "What can be queried",
        "The tables and their fields",
        "What tables can I query against these clusters? GetQuerySchema answers it; say for each "
        "in "
        "a few words what it is good for.",
        ("GetQuerySchema",),
    ),
    Prompt(
        "guests-by-node",
        "Guests by node",
        "How many guests are running and stopped on each node",
        "Group all guests by node and count how many are running and how many are stopped. One "
        "ExecuteQuery on guests answers it, grouped by node and status.",
        ("ExecuteQuery",),
    ),
    Prompt(
        "top-memory",
        "Largest memory users",
        "The guests that use most memory",
        "Find the top {count} VMs by memory usage, with their node and OS type. ExecuteQuery on "
        "guests answers it.",
        ("ExecuteQuery",),
        {"count": Slot("How many", "5")},
    ),
    Prompt(
        "full-storages",
        "Storages that fill up",
        "Storages beyond a share of their size",
        "List storages with more than {percent}% usage and say when each would be full at this "
        "rate, "
        "if that can be computed. One ExecuteQuery on storages answers the first part.",
        ("ExecuteQuery",),
        {"percent": Slot("Usage in percent", "80")},
    ),
)
