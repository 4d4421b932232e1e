"""The log of a cluster: sign-ins, tasks and changes of all nodes."""

import re
from datetime import datetime
from typing import Annotated, ClassVar, Final

from proxmox_client.api.cluster import LogLine
from pvemcp_server.audit.log_secrets import mask_line
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.privileges import note_filtered
from pvemcp_server.tables.reach import of_everything
from pvemcp_server.tables.registry import Cost, LoadRequest, made, never_filtered, table
from pvemcp_server.tables.rows import Col, Row, Unit, moment

MOST: Final = 2000  # lines that are read
TASK_LINE: Final = re.compile(
    r"(?:starting|(?P<end>end)) task "
    r"(?P<upid>UPID:[\w-]+(?::[0-9A-F]{8,9}){3}:[^:/\s]+:[^:/\s]*:[^:/\s]+:)(?: (?P<status>.*))?",
    re.ASCII | re.DOTALL | re.IGNORECASE,
)
_SEVERITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")


class ClusterLogLine(Row):
    """A line of the cluster log."""

    minimal: ClassVar[tuple[str, ...]] = ("time", "node", "user", "severity", "message")

    time: Annotated[datetime | None, Col("When", Unit.TIME, ("date", "timestamp"))]
    node: Annotated[str, Col("Node that wrote it")]
    user: Annotated[str | None, Col("User or token that caused it", aliases=("userid",))]
    service: Annotated[str | None, Col("Program: pvedaemon, pvescheduler …", aliases=("tag",))]
    severity: Annotated[str | None, Col("Severity", values=_SEVERITIES)]
    message: Annotated[str, Col("Text of the line, with secrets masked", aliases=("msg", "text"))]
    pid: Annotated[int | None, Col("Process that wrote it")]


@table(
    "cluster_log",
    tool="ListTasks",
    cost=Cost.ONE,
    covered=of_everything,
    looks_filtered=never_filtered,
    rare=True,
)
async def cluster_log(cluster: Cluster, _request: LoadRequest) -> list[ClusterLogLine]:
    """Newest lines of the cluster log: sign-ins, tasks, changes; for roles on the whole cluster."""
    lines = await cluster.pve.cluster.log(MOST)
    what = "the account's own lines of the log only"
    await note_filtered(cluster, "/", "Sys.Syslog", what=what)
    if len(lines) >= MOST:
        cluster.notes.add(f"The log of {cluster.name} is read as far as its newest {MOST} lines.")
    # to mask long lines takes seconds
    characters = sum(len(line.message) for line in lines)
    return await made(cluster, lines, lambda line: [_line(line)], characters)


def _line(line: LogLine) -> ClusterLogLine:
    known = line.priority is not None and 0 <= line.priority < len(_SEVERITIES)
    return ClusterLogLine(
        time=moment(line.time),
        node=line.node,
        user=line.user or None,
        service=line.tag or None,
        severity=_SEVERITIES[line.priority] if known and line.priority is not None else None,
        # the token of a task's user is named before its status, and no secret
        message=line.message if TASK_LINE.fullmatch(line.message) else mask_line(line.message),
        pid=line.pid,
    )
