"""What the caller's role gives on a guest: no write of its own extends that.

Grants name guests by tags, pools, nodes and VMIDs, and tags protect guests. A write that gives a
guest one of these may put it under another grant of the same role.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from pvemcp_server.access.model import ANY, Resources
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import Precondition
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.write_target import TargetGuest

_ADMINISTRATOR = "An administrator can do that in Proxmox."


@dataclass(frozen=True, slots=True)
class Marks:
    """What a grant can name a guest by: before a write or after it."""

    vmid: int
    node: str
    pool: str = ""
    tags: frozenset[str] = frozenset()

    def named_by(self, resources: Resources, *, as_target: bool = False) -> frozenset[str]:
        """Return, in words, the marks by which the resources name the guest.

        Case of tags does not count, as on most clusters. With `as_target`, the nodes that guests
        may be moved to count too.
        """
        tags = {tag.casefold() for tag in resources.tags}
        nodes = resources.nodes | (resources.target_nodes if as_target else frozenset())
        return frozenset(
            (
                *(f"tag {tag}" for tag in self.tags if tag.casefold() in tags),
                *((f"pool {self.pool}",) if resources.names_pool(self.pool) else ()),
                *((f"node {self.node}",) if not nodes.isdisjoint((self.node, ANY)) else ()),
                *((f"VMID {self.vmid}",) if self.vmid in resources.vmids else ()),
            )
        )


def refuse_new_rights(
    call: Call, cluster: Cluster, label: str, after: Marks, before: Marks | None = None
) -> None:
    """Raise Precondition for a write by which another grant of the role comes to cover a guest.

    A grant that gives this tool may have named the guest by the same mark, or give all that the
    other one does; then nothing is gained. `before` is None for a new guest, which gets no tag that
    protects guests either.
    """
    grants = call.caller.grants(call.tool, call.effect, cluster.name)
    marks = before or after
    own = [g for g in grants if g.resources.everything or marks.named_by(g.resources)]
    gained = set[str]()
    for grant in call.caller.role.grants:
        resources = grant.resources
        if not grant.reaches(cluster.name) or resources.everything:
            continue
        if before is not None and before.named_by(resources):
            continue
        names = after.named_by(resources)
        shares = (names & after.named_by(g.resources, as_target=True) for g in own)
        if not any(shares) and not any(g.gives_all_of(grant) for g in own):
            gained |= names
    if before is None:
        refuse_protecting_tags(call, after.tags)
    if gained:
        raise Precondition(
            f"{', '.join(sorted(gained))} of {label} would decide what this key may do with it, "
            f"beyond what lets the key call {call.tool}.",
            hint=f"Choose another place, VMID or tags. {_ADMINISTRATOR}",
        )


def checked_vmid(
    call: Call, cluster: Cluster, marks: Marks, born_with: Iterable[str] = ()
) -> Callable[[int], None]:
    """Return a function that raises Precondition for a VMID that a new guest must not have.

    `marks` are those it is to have. Where a later step sets them, it is made with the tags
    `born_with`, and keeps these if that step never comes.
    """
    first = replace(marks, tags=frozenset(born_with))

    def check(vmid: int) -> None:
        refuse_new_rights(call, cluster, "the new guest", replace(marks, vmid=vmid))
        if not first.tags <= marks.tags:
            label = "the new guest, until its tags are set,"
            refuse_new_rights(call, cluster, label, replace(first, vmid=vmid))

    return check


def refuse_protecting_tags(call: Call, tags: Iterable[str]) -> None:
    """Raise Precondition for tags that protect guests: no key could touch such a guest again."""
    protected = {tag.casefold() for tag in call.settings.protected_tags}
    if refused := sorted(tag for tag in tags if tag.casefold() in protected):
        raise Precondition(
            f"With the tag {', '.join(refused)}, the guest would be protected from every key.",
            hint=f"Leave it out. {_ADMINISTRATOR}",
        )


def refuse_tag_changes(
    call: Call,
    guest: TargetGuest,
    before: Iterable[str],
    after: Iterable[str],
    source: str = "This call",
) -> None:
    """Raise Precondition for a change of a guest's tags by which a caller changes its own rights.

    `source` is what has the tags `after`, such as a backup, for the message. Case does not count,
    as on most clusters: a tag that differs in case only may be the same.
    """
    changed = {tag.casefold() for tag in before} ^ {tag.casefold() for tag in after}
    deciding = {*call.settings.protected_tags}
    for grant in call.caller.role.grants:
        deciding |= grant.resources.tags
    refused = sorted(tag for tag in deciding if tag.casefold() in changed)
    if refused:
        raise Precondition(
            f"{source} would add or remove the tag {', '.join(refused)} of {guest.label}, which "
            "decides what this key may do with it.",
            hint=_ADMINISTRATOR,
        )
