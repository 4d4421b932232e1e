"""Container templates: Proxmox's index, and OCI images of registries."""

import hashlib
from typing import Any, Final

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.routes.content import normalized
from proxmox_client.emulator.routes.storage import available
from proxmox_client.emulator.state.appliance import Appliance
from proxmox_client.emulator.state.storage import BLOCK_TYPES
from proxmox_client.emulator.tasks import content as tasks

_DOCKER: Final = "docker.io"


@route("GET", "/nodes/{node}/aplinfo")
def index(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /nodes/{node}/aplinfo."""
    return [_row(appliance) for appliance in request.state.appliances.values()]


def _row(appliance: Appliance) -> dict[str, Any]:
    sums = {f"{name}sum": tasks.checksum_of(appliance.location, name) for name in ("md5", "sha512")}
    return {
        "template": appliance.template,
        "package": appliance.package,
        "version": appliance.version,
        "os": appliance.os,
        "section": appliance.section,
        "type": "lxc",
        "architecture": "amd64",
        "headline": f"Container template {appliance.package}",
        "description": "",
        "infopage": "https://pve.proxmox.com/wiki/Linux_Container",
        "maintainer": "Proxmox Support Team <support@proxmox.com>",
        "source": appliance.source,
        "location": appliance.location,
        **sums,
    }


@route("POST", "/nodes/{node}/aplinfo")
def download(request: ApiRequest) -> str:
    """POST /nodes/{node}/aplinfo: a file that is there is taken for the right one."""
    appliance = request.state.appliances.get(request.params["template"])
    if appliance is None:
        raise request.invalid(template="no such template")
    storage = available(request)
    if "vztmpl" not in storage.content:
        raise ApiError(f"storage '{storage.name}' does not support templates")
    work = tasks.download_appliance(storage, request.node.name, appliance)
    return request.start("download", appliance.template, work)


@route("POST", "/nodes/{node}/storage/{storage}/oci-registry-pull")
def pull(request: ApiRequest) -> str:
    """POST /nodes/{node}/storage/{storage}/oci-registry-pull."""
    storage, reference = available(request), str(request.params["reference"])
    if storage.type in BLOCK_TYPES:
        raise ApiError(f"can't upload to storage type '{storage.type}', not a file based storage!")
    if "vztmpl" not in storage.content:
        raise ApiError(f"storage '{storage.name}' is not configured for content-type 'vztmpl'")
    filename = normalized(str(request.get("filename", reference))) + ".tar"
    if f"{storage.name}:vztmpl/{filename}" in storage.volumes(request.node.name):
        raise ApiError(f"refusing to override existing file '{filename}'")
    repository, _, tag = reference.rpartition(":")
    known = tag in _tags(request, repository)
    digest = hashlib.sha256(reference.encode()).hexdigest() if known else None
    work = tasks.pull(storage, request.node.name, reference, filename, digest)
    return request.start("ociregistrypull", filename, work)


@route("GET", "/nodes/{node}/query-oci-repo-tags")
def tags(request: ApiRequest) -> list[str]:
    """GET /nodes/{node}/query-oci-repo-tags."""
    repository = str(request.params["reference"])
    if not (known := _tags(request, repository)):
        raise ApiError(f"command 'skopeo list-tags docker://{repository}' failed: exit code 1")
    return list(known)


def _tags(request: ApiRequest, repository: str) -> tuple[str, ...]:
    """Return the tags of a repository; without a registry, it is one of Docker Hub."""
    registry, slash, path = repository.partition("/")
    if not slash or not any(ch in registry for ch in ".:"):
        registry, path = _DOCKER, repository
    if registry == _DOCKER and "/" not in path:
        path = f"library/{path}"
    return request.state.oci_images.get(f"{registry}/{path}", ())
