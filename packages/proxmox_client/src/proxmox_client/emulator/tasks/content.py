"""Downloads, uploads and deletion of storage content."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from proxmox_client.emulator.errors import TaskFailed
from proxmox_client.emulator.state.appliance import Appliance
from proxmox_client.emulator.state.sizes import MIB, human
from proxmox_client.emulator.state.storage import Storage, Volume
from proxmox_client.emulator.tasks.runner import TaskContext, TaskFunction

DEFAULT_SIZE: Final = 700 * MIB
"""The size of a download that is not in `ClusterState.downloads`."""
OCI_SIZE: Final = 70 * MIB
BYTES_PER_SECOND: Final = 60 * MIB
MAX_SECONDS: Final = 25.0
HTTP_ERROR: Final = 8
"""The exit code of wget for an HTTP error."""
FOLDERS: Final = {"iso": "template/iso", "vztmpl": "template/cache", "import": "import"}


def path_of(storage: Storage, content: str, filename: str) -> str:
    """Return the path of a file on a node."""
    root = storage.options.get("path", f"/mnt/pve/{storage.name}")
    return f"{root}/{FOLDERS[content]}/{filename}"


def download(storage: Storage, node: str, options: Mapping[str, Any]) -> TaskFunction:
    """Return the task of a download; nothing is fetched, the size comes from the scenario."""

    async def run(context: TaskContext) -> None:
        content, filename = str(options["content"]), str(options["filename"])
        url, path = str(options["url"]), path_of(storage, content, filename)
        context.log(f"downloading {url} to {path}")
        volid = f"{storage.name}:{content}/{filename}"
        if volid in storage.volumes(node):
            raise TaskFailed(f"refusing to override existing file '{path}'")
        size = context.state.downloads.get(url, DEFAULT_SIZE)
        context.log(f"Resolving {url.split('/')[2]}... connected.")
        if size is None:
            context.log("HTTP request sent, awaiting response... 404 Not Found")
            raise TaskFailed(f"download failed: exit code {HTTP_ERROR}")
        context.log("HTTP request sent, awaiting response... 200 OK")
        await _fetch(context, size)
        _verify(context, url, options)
        created = int(context.state.now)
        storage.put(node, Volume(volid, content, filename.rpartition(".")[2], size, created))
        context.log(f"download of '{url}' to '{path}' finished")

    return run


def download_appliance(storage: Storage, node: str, appliance: Appliance) -> TaskFunction:
    """Return the task of a template of the index; a file that is there is not fetched again."""
    options = {
        "content": "vztmpl",
        "filename": appliance.template,
        "url": appliance.location,
        "checksum-algorithm": "sha512",
        "checksum": checksum_of(appliance.location, "sha512"),
    }
    fetch = download(storage, node, options)

    async def run(context: TaskContext) -> None:
        if f"{storage.name}:vztmpl/{appliance.template}" in storage.volumes(node):
            context.log("OK, got correct file already, no need to download")
        else:
            await fetch(context)

    return run


def pull(
    storage: Storage, node: str, reference: str, filename: str, digest: str | None
) -> TaskFunction:
    """Return the task that pulls an image from a registry; without a digest there is none."""

    async def run(context: TaskContext) -> None:
        await context.spend(0.5)
        if digest is None:
            raise TaskFailed(
                f"command 'skopeo copy docker://{reference} "
                f"oci-archive:{path_of(storage, 'vztmpl', filename)}.tmp' failed: exit code 1"
            )
        context.log("Getting image source signatures", f"Copying blob sha256:{digest}")
        await context.spend(2)
        context.log("Writing manifest to image destination")
        volid, created = f"{storage.name}:vztmpl/{filename}", int(context.state.now)
        storage.put(node, Volume(volid, "vztmpl", "tar", OCI_SIZE, created))

    return run


async def _fetch(context: TaskContext, size: int) -> None:
    context.log(f"Length: {size} ({human(size)})")
    seconds = min(MAX_SECONDS, max(0.5, size / BYTES_PER_SECOND))
    for percent in (20, 40, 60, 80, 100):
        await context.spend(seconds / 5)
        context.log(f"{size * percent // 100 // 1024}K .......... {percent}%")


def checksum_of(url: str, algorithm: str) -> str:
    """Return the checksum of the file at a URL, derived from the URL."""
    return hashlib.new(algorithm, url.encode(), usedforsecurity=False).hexdigest()


def _verify(context: TaskContext, url: str, options: Mapping[str, Any]) -> None:
    if not options.get("checksum"):
        return
    context.log("calculating checksum...")
    actual = checksum_of(url, str(options["checksum-algorithm"]))
    if actual != options["checksum"]:
        raise TaskFailed(f"checksum mismatch: got '{actual}' != expect '{options['checksum']}'")
    context.log("OK, checksum verified")


def delete(storage: Storage, node: str, volid: str) -> TaskFunction:
    """Return the task that removes a volume; it fails for a protected one, not a missing one."""

    async def run(context: TaskContext) -> None:
        volume = storage.volumes(node).get(volid)
        name = volid.partition(":")[2]
        if volume is not None and volume.protected:
            raise TaskFailed(f"cannot remove protected volume '{name}' on '{storage.name}'")
        await context.spend(0.5)
        if volume is None:
            context.log(f"disk image '{name}' does not exist")
        storage.remove(node, volid)
        context.log(f"Removed volume '{volid}'")

    return run


def upload(storage: Storage, node: str, content: str, filename: str, size: int) -> TaskFunction:
    """Return the task that imports an uploaded file."""

    async def run(context: TaskContext) -> None:
        path = path_of(storage, content, filename)
        context.log("starting file import from: /var/tmp/pveupload", f"target node: {node}")
        context.log(f"target file: {path}", f"file size is: {size}")
        await context.spend(0.5)
        volid = f"{storage.name}:{content}/{filename}"
        format_, created = filename.rpartition(".")[2], int(context.state.now)
        storage.put(node, Volume(volid, content, format_, size, created))
        context.log("finished file import successfully")

    return run
