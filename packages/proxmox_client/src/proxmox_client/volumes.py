"""IDs and paths of volumes: the guests that own them."""

import re
from typing import Final

_VMID: Final = r"([1-9]\d{2,8})"
_OWNED: Final = re.compile(
    # vm-101-disk-0, base-101-disk-0/vm-102-disk-0; the device mapper writes each hyphen twice
    rf"(?:vm|base|subvol|basevol)--?{_VMID}-"
    rf"|vzdump-(?:qemu|lxc|openvz)-{_VMID}-"  # a backup in a folder
    rf"|[:/](?:vm|ct)/{_VMID}(?=/)"  # a backup on a backup server: backup/vm/101/2026-…
    rf"|(?<=[:/]){_VMID}(?=/)",  # a file of any name in the folder of a guest: 101/custom.qcow2
    re.ASCII,
)
_URL: Final = re.compile(r"\b[a-z][a-z0-9+.-]{0,30}://[^\s,]*", re.IGNORECASE)  # has a port


def owners(text: str) -> list[int]:
    """Return the VMIDs of the guests that own volumes in the text, in the order of their names.

    The text is a volume ID, a path or a property string with some. The last one owns a linked
    clone, those before it its base. Source: parse_volname in PVE/Storage/*.pm.
    """
    matches = _OWNED.finditer(_URL.sub("", text))
    return [int(match[match.lastindex]) for match in matches if match.lastindex]
