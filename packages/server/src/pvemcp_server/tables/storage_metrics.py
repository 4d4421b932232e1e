"""Growth of storages over a time frame, and when they would be full."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Final

from msgspec.structs import replace

from proxmox_client.api.resources import StorageResource
from proxmox_client.api.rrd import StorageRrd, TimeFrame
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.guests import TO_NODE
from pvemcp_server.tables.metrics import FRAME_WORDS, FRAMES, PUSHDOWN, frames_of
from pvemcp_server.tables.reach import of_storage
from pvemcp_server.tables.registry import Cost, LoadRequest, table
from pvemcp_server.tables.rows import Col, Row, Unit, moment, percent, whole
from pvemcp_server.tables.series import DAY, Point, forecast
from pvemcp_server.tables.storages import primary

_DEFAULT: Final[TimeFrame] = "month"

_PERCENT: Final = Unit.PERCENT
_AHEAD: Final = timedelta(days=30)  # of a forecast for which no date is given

Key = tuple[str, str, TimeFrame]  # a storage, a node, and a time frame


class StorageMetric(Row, kw_only=True):
    """The growth of a storage over a time frame."""

    minimal: ClassVar[tuple[str, ...]] = (
        "storage",
        "node",
        "disk_usage_percentage",
        "disk_free",
        "growth_per_day",
        "full_on",
        "full_earliest",
        "full_latest",
    )
    on_date: ClassVar[tuple[str, ...]] = (
        "storage",
        "node",
        "disk_usage_percentage",
        "growth_per_day",
        "forecast_for",
        "forecast_percentage",
        "forecast_low",
        "forecast_high",
    )

    storage: Annotated[str, Col("Name", aliases=("name",))]
    node: Annotated[str, Col("Node it is on, or the one asked about a shared one")]
    type: Annotated[str, Col("Kind of storage: dir, nfs, lvmthin, zfspool, rbd, pbs …")]
    shared: Annotated[bool, Col("Whether all nodes see the same")]
    time_frame: Annotated[
        str,
        Col("Pick it with a condition; month without one", values=FRAMES, meanings=FRAME_WORDS),
    ]
    latest_time: Annotated[datetime | None, Col("Last recorded value", Unit.TIME)] = None
    disk_usage_percentage: Annotated[
        float | None, Col("Space in use", Unit.PERCENT, ("usage_percentage",))
    ] = None
    disk_usage: Annotated[int | None, Col("Space in use", Unit.BYTES, ("used",))] = None
    disk_total: Annotated[int | None, Col("Space", Unit.BYTES, ("total",))] = None
    disk_free: Annotated[int | None, Col("Space left", Unit.BYTES, ("free", "available"))] = None
    growth_per_day: Annotated[int | None, Col("Growth per day", Unit.BYTES, ("growth",))] = None
    growth_uncertainty: Annotated[
        int | None, Col("The growth per day differs by no more than this (95 %)", Unit.BYTES)
    ] = None
    full_on: Annotated[
        datetime | None, Col("When it is full at this growth, if within ten years", Unit.TIME)
    ] = None
    full_earliest: Annotated[
        datetime | None, Col("Earliest time by the uncertainty of the growth", Unit.TIME)
    ] = None
    full_latest: Annotated[
        datetime | None, Col("Latest time by it; null: perhaps never", Unit.TIME)
    ] = None
    forecast_for: Annotated[
        datetime | None, Col("In 30 days; ListStorageRrdData takes another date", Unit.TIME)
    ] = None
    forecast_percentage: Annotated[
        float | None, Col("Space in use then at this growth; above 100 it does not fit", _PERCENT)
    ] = None
    forecast_low: Annotated[float | None, Col("Least by the uncertainty", _PERCENT)] = None
    forecast_high: Annotated[float | None, Col("Most by it", _PERCENT)] = None


@table(
    "storage_metrics",
    tool="ListStorageRrdData",
    cost=Cost.PER_STORAGE,
    covered=of_storage,
    relations=(TO_NODE,),
    pushdown=PUSHDOWN,
)
async def storage_metrics(cluster: Cluster, request: LoadRequest) -> list[StorageMetric]:
    """Growth of storages over time_frame and when they are full; shared ones have one row."""
    frames = frames_of(cluster, request, FRAMES, _DEFAULT)
    view = await cluster.inventory_view()
    requested = [
        storage
        for storage in view.storages
        if request.wants_storage(storage.storage) and request.wants_node(storage.node)
    ]
    chosen = primary(requested)
    silent = await fanout.offline_among(cluster, {node for _, node in chosen})
    by_key: dict[Key, StorageResource] = {
        (storage.storage, storage.node, frame): storage
        for frame in frames
        for storage in sorted(requested, key=lambda s: (s.storage, s.node))
        if (storage.storage, storage.node) in chosen and storage.node not in silent
    }

    date = request.until or datetime.now(UTC) + _AHEAD

    async def read(key: Key) -> StorageMetric:
        name, node, frame = key
        series = await cluster.pve.storage(node, name).rrd(frame)
        return to_row(by_key[key], frame, series, date)

    rows = await fanout.each(cluster, by_key, read, request, "metrics of storage")
    return list(rows.values())


def to_row(
    storage: StorageResource, frame: TimeFrame, series: Sequence[StorageRrd], date: datetime
) -> StorageMetric:
    """Return the row of a storage with this series, and the forecast for the date."""
    row = StorageMetric(
        storage=storage.storage,
        node=storage.node,
        type=storage.plugin_type,
        shared=storage.shared,
        time_frame=frame,
    )
    recorded = [(p.time, p.used, p.total) for p in series if p.used is not None and p.total]
    if not recorded:
        return row
    time, used, total = recorded[-1]
    row = replace(
        row,
        latest_time=moment(time),
        disk_usage_percentage=percent(used, total),
        disk_usage=whole(used),
        disk_total=whole(total),
        disk_free=whole(total - used),
    )
    found = forecast([Point(when, value) for when, value, _ in recorded], total)
    if found is None:
        return row
    seconds = max(0.0, date.timestamp() - time)

    def then(change: float) -> float | None:
        return percent(max(0.0, used + change * seconds / DAY), total)

    return replace(
        row,
        growth_per_day=round(found.growth),
        growth_uncertainty=round(found.uncertainty),
        full_on=moment(found.full),
        full_earliest=moment(found.earliest),
        full_latest=moment(found.latest),
        forecast_for=date,
        forecast_percentage=then(found.growth),
        forecast_low=then(found.growth - found.uncertainty),
        forecast_high=then(found.growth + found.uncertainty),
    )
