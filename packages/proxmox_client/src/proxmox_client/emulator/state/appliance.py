"""Container templates of Proxmox's index."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Appliance:
    """A container template that nodes can download."""

    os: str
    package: str
    version: str
    suffix: str = "tar.zst"
    section: str = "system"
    source: str = "http://download.proxmox.com/images"

    @property
    def template(self) -> str:
        """The name of its file."""
        return f"{self.package}_{self.version}_amd64.{self.suffix}"

    @property
    def location(self) -> str:
        return f"{self.source}/{self.section}/{self.template}"
