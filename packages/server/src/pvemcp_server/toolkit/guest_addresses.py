"""Addresses that a running guest reports: through its agent, or those of a container."""

from proxmox_client.api.agent import AgentInterface, ContainerInterface

_OWN = ("127.", "::1", "169.254.", "fe80:")


def addresses_of(interfaces: list[AgentInterface] | list[ContainerInterface]) -> list[str]:
    """Return every address once, without loopback and link-local ones."""
    addresses = [
        address.address
        for interface in interfaces
        for address in interface.addresses
        if address.address and not address.address.lower().startswith(_OWN)
    ]
    addresses += [
        text.partition("/")[0]
        for interface in interfaces
        if isinstance(interface, ContainerInterface) and interface.name != "lo"
        for text in (interface.inet, interface.inet6)
        if text and not text.startswith(("169.254.", "fe80:"))
    ]
    return list(dict.fromkeys(addresses))
