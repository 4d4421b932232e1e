"""Bringing files to storages and taking them away."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from proxmox_client.emulator.errors import TaskFailed
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.sizes import MIB, human
from proxmox_client.emulator.state.storage import Storage, Volume
from proxmox_client.emulator.work.board import Job, Work

USUAL_SIZE: Final = 700 * MIB
"""What a download is big when nobody said."""
SPEED: Final = 60 * MIB
LONGEST: Final = 25.0
HTTP_ERROR: Final = 8
"""How wget says that the server refused."""
FOLDERS: Final = {"iso": "template/iso", "vztmpl": "template/cache", "import": "import"}
PLACES: Final = {"iso": "iso", "vztmpl": "vztmpl", "import": "import"}


def path_of(storage: Storage, content: str, filename: str) -> str:
    """Where a file lies on a node."""
    root = storage.options.get("path", f"/mnt/pve/{storage.name}")
    return f"{root}/{FOLDERS[content]}/{filename}"


def download(storage: Storage, node: str, options: Mapping[str, Any]) -> Work:
    """Fetch a file; nothing is fetched for real, sizes come from the scenario."""

    async def work(job: Job) -> None:
        content, filename = str(options["content"]), str(options["filename"])
        url, path = str(options["url"]), path_of(storage, content, filename)
        job.log(f"downloading {url} to {path}")
        volid = f"{storage.name}:{PLACES[content]}/{filename}"
        if volid in storage.volumes(node):
            raise TaskFailed(f"refusing to override existing file '{path}'")
        size = _size(job.state, url)
        job.log(f"Resolving {url.split('/')[2]}... connected.")
        if size is None:
            job.log("HTTP request sent, awaiting response... 404 Not Found")
            raise TaskFailed(f"download failed: exit code {HTTP_ERROR}")
        job.log("HTTP request sent, awaiting response... 200 OK")
        await _fetch(job, size)
        _verify(job, url, options)
        made = int(job.state.now)
        storage.put(node, Volume(volid, content, filename.rpartition(".")[2], size, made))
        job.log(f"download of '{url}' to '{path}' finished")

    return work


def _size(state: ClusterState, url: str) -> int | None:
    return state.downloads.get(url, USUAL_SIZE)


async def _fetch(job: Job, size: int) -> None:
    job.log(f"Length: {size} ({human(size)})")
    seconds = min(LONGEST, max(0.5, size / SPEED))
    for percent in (20, 40, 60, 80, 100):
        await job.spend(seconds / 5)
        job.log(f"{size * percent // 100 // 1024}K .......... {percent}%")


def checksum_of(url: str, algorithm: str) -> str:
    """The checksum everything downloaded from an address has."""
    return hashlib.new(algorithm, url.encode(), usedforsecurity=False).hexdigest()


def _verify(job: Job, url: str, options: Mapping[str, Any]) -> None:
    if not options.get("checksum"):
        return
    job.log("calculating checksum...")
    found = checksum_of(url, str(options["checksum-algorithm"]))
    if found != options["checksum"]:
        raise TaskFailed(f"checksum mismatch: got '{found}' != expect '{options['checksum']}'")
    job.log("OK, checksum verified")


def delete(storage: Storage, node: str, volid: str) -> Work:
    """Remove a volume; that it was not there is no error, that it is protected is."""

    async def work(job: Job) -> None:
        volume = storage.volumes(node).get(volid)
        name = volid.partition(":")[2]
        if volume is not None and volume.protected:
            raise TaskFailed(f"cannot remove protected volume '{name}' on '{storage.name}'")
        await job.spend(0.5)
        if volume is None:
            job.log(f"disk image '{name}' does not exist")
        storage.remove(node, volid)
        job.log(f"Removed volume '{volid}'")

    return work


def copy_in(storage: Storage, node: str, content: str, filename: str, size: int) -> Work:
    """Take an uploaded file in."""

    async def work(job: Job) -> None:
        path = path_of(storage, content, filename)
        job.log("starting file import from: /var/tmp/pveupload", f"target node: {node}")
        job.log(f"target file: {path}", f"file size is: {size}")
        await job.spend(0.5)
        volid = f"{storage.name}:{PLACES[content]}/{filename}"
        suffix, made = filename.rpartition(".")[2], int(job.state.now)
        storage.put(node, Volume(volid, content, suffix, size, made))
        job.log("finished file import successfully")

    return work
