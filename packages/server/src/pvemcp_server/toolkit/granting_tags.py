"""Tags that decide about rights: those that protect guests, and those that a role grants by."""

from collections.abc import Iterable

from pvemcp_server.errors import Precondition
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.write_target import TargetGuest


def refuse_granting_tags(
    call: Call,
    guest: TargetGuest,
    before: Iterable[str],
    after: Iterable[str],
    source: str = "This call",
) -> None:
    """Raise Precondition for a change of tags by which a caller changes its own rights.

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
            hint="An administrator can do that in Proxmox.",
        )
