"""Backup jobs in requests to Proxmox's API: the guests that one covers before and after it."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from proxmox_client.api.backups import BackupJob
from proxmox_client.api.resources import GuestResource
from proxmox_client.json_decoder import split_list
from pvemcp_server.errors import Precondition
from pvemcp_server.tools.api.request import ApiRequest

_PATHS: Final = ("/cluster/backup", "/cluster/backup/{id}")
_CHOICE: Final = ("node", "pool", "vmid", "exclude")
_SELECTIONS: Final = frozenset({"vmid", "all", "pool"})  # a new one replaces the others


def coverage(
    request: ApiRequest, present: Mapping[str, Any], guests: Iterable[GuestResource]
) -> tuple[set[int], set[int]]:
    """Return the guests that a job covers before and after the request; none if it is of no job.

    Raise Precondition if the job could not be read.
    """
    if request.endpoint.path not in _PATHS:
        return set(), set()
    if request.method != "POST" and not present:
        raise Precondition(
            f"Which guests {request.shown_path} covers is not known: the job could not be read.",
            hint="ListBackupJobs shows the jobs. To read them takes Sys.Audit on /.",
        )
    guests = list(guests)
    before = _covered(present, guests) if request.method != "POST" else set()
    after = _covered(_after(request, present), guests) if request.method != "DELETE" else set()
    return before, after


def _after(request: ApiRequest, present: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the job as the request leaves them."""
    new = request.parameters
    removed = set(split_list(str(new.get("delete", ""))))
    if _SELECTIONS & new.keys():
        removed |= _SELECTIONS
    return {k: v for k, v in present.items() if k not in removed} | new


def _covered(options: Mapping[str, Any], guests: Iterable[GuestResource]) -> set[int]:
    """Return the guests that the options of a job select."""
    chosen = {name: str(options[name]) for name in _CHOICE if options.get(name)}
    return BackupJob.of({"id": "", **chosen}).covered(guests)
