"""Information from inside a guest: from the QEMU guest agent or from a container."""

from codecs import getincrementaldecoder
from typing import Any

from msgspec import field

from proxmox_client.json_decoder import Answer, convert


class Failure(Answer, frozen=True):
    """The guest agent's reason for not carrying out a command."""

    kind: str = field(name="class", default="")
    description: str = field(name="desc", default="")


class Reply(Answer, frozen=True):
    """The envelope of the guest agent's answers, with the reason in place of a refused answer."""

    result: Any = None

    @property
    def failure(self) -> Failure | None:
        """The reason why there is no answer."""
        error = self.result.get("error") if isinstance(self.result, dict) else None
        if isinstance(error, dict):
            return convert(error, Failure)
        return None if error is None else Failure(description=str(error))


class ExecStatus(Answer, frozen=True):
    """The state of a program that the agent started, and what it has written once it has ended.

    The agent keeps the first 16 MiB of each output, and forgets the program with this answer.
    """

    exited: bool = False
    exit_code: int | None = field(name="exitcode", default=None)
    signal: int | None = None
    out_data: str = field(name="out-data", default="")
    err_data: str = field(name="err-data", default="")
    out_truncated: bool = field(name="out-truncated", default=False)
    err_truncated: bool = field(name="err-truncated", default=False)

    @property
    def stdout(self) -> str:
        """What it wrote to its standard output."""
        return text_of(self.out_data)

    @property
    def stderr(self) -> str:
        """What it wrote to its standard error."""
        return text_of(self.err_data)


class FileContent(Answer, frozen=True):
    """The beginning of a file inside the guest."""

    content: str = ""
    truncated: bool = False

    @property
    def text(self) -> str:
        """The content as text."""
        return text_of(self.content)


def text_of(content: str) -> str:
    """Return the text of bytes that Proxmox sends as one character each.

    It decodes the agent's base64 to bytes and writes these as JSON text, so `ä` arrives as two
    characters. Bytes that are no UTF-8 stay as they are; a character that is cut off at the end is
    left out.
    """
    try:
        return getincrementaldecoder("utf-8")().decode(content.encode("latin-1"))
    except UnicodeError:
        return content


class OsInfo(Answer, frozen=True):
    """The guest's operating system."""

    id: str | None = None
    name: str | None = None
    pretty_name: str | None = field(name="pretty-name", default=None)
    version: str | None = None
    kernel_release: str | None = field(name="kernel-release", default=None)
    machine: str | None = None


class AgentAddress(Answer, frozen=True):
    """An address of an interface."""

    address: str = field(name="ip-address", default="")
    family: str = field(name="ip-address-type", default="")
    prefix: int | None = None


class AgentInterface(Answer, frozen=True):
    """A network interface inside the guest."""

    name: str = ""
    mac: str | None = field(name="hardware-address", default=None)
    addresses: list[AgentAddress] = field(name="ip-addresses", default=[])

    @property
    def mac_address(self) -> str | None:
        """The MAC address in lower case, as far as it is reported."""
        return self.mac.lower() if self.mac else None


class ContainerInterface(AgentInterface, frozen=True):
    """A network interface inside a container; `inet` and `inet6` carry the prefix."""

    inet: str | None = None
    inet6: str | None = None
    hwaddr: str | None = None

    @property
    def mac_address(self) -> str | None:
        """The MAC address in lower case; releases of 8.x have it as `hwaddr` only."""
        mac = self.mac or self.hwaddr
        return mac.lower() if mac else None


class Filesystem(Answer, frozen=True):
    """A file system inside the guest, in bytes."""

    name: str = ""
    mount_point: str = field(name="mountpoint", default="")
    type: str = ""
    total: int | None = field(name="total-bytes", default=None)
    used: int | None = field(name="used-bytes", default=None)
    disk: list[dict[str, Any]] = field(default_factory=list)
