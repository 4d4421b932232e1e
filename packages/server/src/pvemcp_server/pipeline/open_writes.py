"""Calls of this process with a plan and no outcome yet, for other plans of the same guests."""

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from pvemcp_server.approvals import Approvals, PlannedCall
from pvemcp_server.toolkit.collisions import listed

_VMID: Final = re.compile(r"[1-9][0-9]{2,8}")
_GUEST_PATH: Final = re.compile(r"/(?:qemu|lxc)/([0-9]+)(?![^/])")


@dataclass(slots=True)
class OpenWrite:
    """A call that has a plan and no outcome yet."""

    tool: str
    cluster: str
    vmids: AbstractSet[int]
    is_waiting: bool = False  # for the consent of its user


@dataclass(frozen=True, slots=True)
class OpenWrites:
    """The open calls of all keys."""

    writes: list[OpenWrite] = field(default_factory=list)

    @contextmanager
    def opened(self, tool: str, cluster: str, vmids: AbstractSet[int]) -> Iterator[OpenWrite]:
        """Keep a call among the open ones while its block runs."""
        write = OpenWrite(tool, cluster, vmids)
        self.writes.append(write)
        try:
            yield write
        finally:
            self.writes[:] = [each for each in self.writes if each is not write]

    async def facts(
        self,
        approvals: Approvals,
        planned: PlannedCall,
        vmids: AbstractSet[int],
        own: OpenWrite | None,
    ) -> list[str]:
        """Return a sentence on other calls about these guests; no key of theirs is named."""
        if not vmids:
            return []
        facts = []
        for write in self.writes:
            shared = write.vmids & vmids
            if write is not own and write.cluster == planned.cluster and shared:
                state = "waits for its user" if write.is_waiting else "is under way"
                facts.append(f"{write.tool} of {listed(shared)} {state}")
        facts += [
            f"approval {approval.id} waits ({approval.tool} of {listed(shared)})"
            for approval in await approvals.others(planned)
            if (shared := vmids_of(approval.arguments) & vmids)
        ]
        return [f"Other calls: {', '.join(facts)}."] if facts else []


def vmids_of(arguments: Mapping[str, Any]) -> frozenset[int]:
    """Return the guests that arguments name, as a client may write them."""
    given = [arguments.get("vmid"), arguments.get("vmids"), arguments.get("source")]
    values = (each for some in given for each in (some if isinstance(some, list) else [some]))
    named = _GUEST_PATH.findall(str(arguments.get("path", "")))  # of CallApi
    return frozenset(int(each) for each in (*map(str, values), *named) if _VMID.fullmatch(each))
