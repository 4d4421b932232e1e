"""Which version answers."""

from proxmox_client.emulator.router import Call, route
from proxmox_client.emulator.state.cluster import RELEASES


@route("GET", "/version", "/nodes/{node}/version")
def version(call: Call) -> dict[str, str]:
    """GET /version."""
    number, repository = RELEASES[call.state.version]
    return {"version": number, "release": call.state.version, "repoid": repository}
