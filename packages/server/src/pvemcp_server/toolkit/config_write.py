"""Writes of a guest's configuration: checked by Proxmox's schema, and what a guest refuses live."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from proxmox_client import BadParameters
from proxmox_client.schema import load as load_schema
from pvemcp_server.clusters import reason_of
from pvemcp_server.errors import BadArgument, CallError
from pvemcp_server.toolkit.write_target import TargetGuest

_HOTPLUG_FAILED: Final = re.compile(r"hotplug problem|unable to hotplug")


async def require_valid(
    guest: TargetGuest, parameters: Mapping[str, Any], argument: str = ""
) -> None:
    """Raise BadArgument for what the schema of this version refuses, about the parameter's name.

    With `argument`, about that argument of the tool.
    """
    release = (await guest.cluster.pve.version()).release
    schema = await asyncio.to_thread(load_schema, release)
    path = f"/nodes/{guest.node}/{guest.resource.type}/{guest.vmid}/config"
    if match := schema.find("PUT", path):
        endpoint, values = match
        if errors := endpoint.check({**values, **parameters}):
            name, text = next(iter(errors.items()))
            reason = f"Proxmox {release} refuses it: {' '.join(text.split())}."
            raise BadArgument(argument or name, reason)


async def write_config(
    guest: TargetGuest,
    parameters: Mapping[str, Any],
    *,
    delete: Sequence[str] = (),
    revert: Sequence[str] = (),
    digest: str | None,
) -> None:
    """Send the change; raise CallError if the guest could not take a part of it while it runs."""
    try:
        await guest.api.set_config(parameters, delete=delete, revert=revert, digest=digest)
    except BadParameters as error:
        failed = [name for name, text in error.errors.items() if _HOTPLUG_FAILED.search(text)]
        if not failed:
            raise
        raise CallError(
            f"{guest.label} could not take {', '.join(failed)} while it runs ({reason_of(error)}). "
            "Proxmox kept that as pending, and has applied what else the call changes.",
            hint=f"GetVmConfig shows both; UpdateVmConfig with revert={failed} drops it.",
        ) from error
