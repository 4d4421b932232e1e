"""The version of Proxmox VE."""

from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.state.cluster import RELEASES


@route("GET", "/version", "/nodes/{node}/version")
def version(request: ApiRequest) -> dict[str, str]:
    """GET /version."""
    number, repository = RELEASES[request.state.version]
    row = {"version": number, "release": request.state.version, "repoid": repository}
    console = request.state.options.get("console")
    return row | ({"console": console} if console else {})
