"""How things stand, and the doctor, over REST."""

from typing import Annotated

from fastapi import APIRouter, Query

from pvemcp_server.admin import doctor, overview
from pvemcp_server.store.records import Notice
from pvemcp_server.web.api.answers import GONE
from pvemcp_server.web.session import Reading, RowNumber, Writing

router = APIRouter(tags=["Overview"])


@router.get("/overview/clusters")
async def cluster_health(context: Reading) -> list[overview.Health]:
    """Every cluster as it answers now: reachability, nodes and guests."""
    return await overview.health(context)


@router.get("/overview/calls")
async def calls_by_hour(context: Reading) -> list[overview.Bar]:
    """Calls of the last day by hour, oldest first."""
    return await overview.calls_by_hour(context)


@router.get("/notices")
async def list_notices(context: Reading) -> list[Notice]:
    """What an administrator should see: refused keys, failed sign-ins."""
    return await overview.notices(context)


@router.delete("/notices/{notice}", status_code=GONE)
async def dismiss_notice(context: Writing, notice: RowNumber) -> None:
    """Dismiss a notice; it comes back when its fact is seen again."""
    await overview.dismiss(context, notice)


@router.post("/doctor")
async def examine(
    context: Writing,
    cluster: Annotated[str | None, Query(description="One cluster; all when absent")] = None,
    key: Annotated[
        str, Query(description="Id or name of a key; the default account when absent")
    ] = "",
) -> list[doctor.Report]:
    """Look after reach, TLS, versions, clocks, nodes and the rights of Proxmox accounts."""
    return await doctor.examine(context, cluster, key)
