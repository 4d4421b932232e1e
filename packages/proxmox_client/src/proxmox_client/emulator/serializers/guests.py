"""Guests in API responses."""

from typing import Any

from proxmox_client.emulator.state import metrics
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest, Kind

PRESSURES = ("cpusome", "cpufull", "iosome", "iofull", "memorysome", "memoryfull")
QEMU = "10.0.2"


def list_row(guest: Guest, state: ClusterState, now: float) -> dict[str, Any]:
    """Return the row of a guest in the list of its node."""
    used = metrics.guest_usage(guest, now)
    row: dict[str, Any] = {
        "vmid": guest.vmid,
        "name": guest.name,
        "status": guest.status,
        "cpus": state.cpus_of(guest),
        "maxmem": guest.memory,
        "maxdisk": guest.disk_size,
        **used,
    }
    extra = {"tags": guest.config.get("tags"), "lock": guest.lock, "template": int(guest.template)}
    row |= {key: value for key, value in extra.items() if value}
    if guest.kind is Kind.LXC:
        row |= {"type": "lxc", "maxswap": guest.swap, "swap": 0}
        row.pop("memhost")
    elif not guest.running and state.release >= (9, 0):
        row.pop("diskread")
        row.pop("diskwrite")
    if state.release < (9, 0):
        row.pop("memhost", None)
    if guest.running:
        row |= {"pid": guest.pid} | pressures(guest, state, now)
    return row


def pressures(guest: Guest, state: ClusterState, now: float) -> dict[str, Any]:
    """Return the pressure metrics of a guest, as text for containers; empty before 9.0."""
    if state.release < (9, 0):
        return {}
    as_text = guest.kind is Kind.LXC
    values = {}
    for position, name in enumerate(PRESSURES):
        share = 0.55 if name.endswith("full") else 1.0
        value = round(guest.load.pressure_at(now + 7 * position) * share, 2)
        values[f"pressure{name}"] = f"{value:.2f}" if as_text else value
    return values


def current_status(guest: Guest, state: ClusterState, now: float) -> dict[str, Any]:
    """Return the response of status/current."""
    row = list_row(guest, state, now)
    resource = state.ha_of(guest)
    row["ha"] = {"managed": 0}
    if resource is not None:
        row["ha"] = {"managed": 1, "state": resource.state}
    if guest.kind is Kind.QEMU:
        row |= monitor_status(guest, now)
        if guest.agent_enabled:
            row["agent"] = 1
    return row


def monitor_status(guest: Guest, now: float) -> dict[str, Any]:
    """Return the fields that come from the QEMU monitor."""
    if not guest.running:
        return {"qmpstatus": "stopped"}
    used = metrics.guest_usage(guest, now)
    return {
        "qmpstatus": "paused" if guest.paused else "running",
        "running-qemu": QEMU,
        "running-machine": "pc-i440fx-10.0+pve1",
        "balloon": guest.memory,
        "ballooninfo": {"actual": guest.memory, "max_mem": guest.memory},
        "blockstat": {disk.slot: _block(used) for disk in guest.disks()},
        "nics": {
            f"tap{guest.vmid}i{key[3:]}": {"netin": used["netin"], "netout": used["netout"]}
            for key in guest.config
            if key.startswith("net") and key[3:].isdigit()
        },
        "proxmox-support": {
            "backup-access-api": True,
            "backup-fleecing": True,
            "backup-max-workers": True,
            "pbs-dirty-bitmap": True,
            "pbs-dirty-bitmap-migration": True,
            "pbs-dirty-bitmap-savevm": True,
            "pbs-library-version": "1.5.2",
            "pbs-masterkey": True,
            "query-bitmap-info": True,
        },
    }


def _block(used: dict[str, Any]) -> dict[str, Any]:
    """Return the block statistics of a disk; counters without a source are 0."""
    kinds = ("rd", "wr", "flush", "unmap", "zone_append")
    counters = [f"{state}_{kind}_operations" for state in ("failed", "invalid") for kind in kinds]
    counters += [f"{kind}_{unit}" for kind in kinds for unit in ("operations", "total_time_ns")]
    counters += [f"{kind}_{unit}" for kind in kinds for unit in ("bytes", "merged")]
    counters += ["idle_time_ns", "wr_highest_offset"]
    skipped = ("flush_bytes", "flush_merged")
    return {
        **{name: 0 for name in counters if name not in skipped},
        "rd_bytes": used["diskread"],
        "wr_bytes": used["diskwrite"],
        "rd_operations": used["diskread"] // 16384,
        "wr_operations": used["diskwrite"] // 16384,
        "account_failed": True,
        "account_invalid": True,
        "timed_stats": [],
    }
