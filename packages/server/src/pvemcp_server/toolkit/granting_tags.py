"""Tags that decide about rights: those that protect guests, and those that a role grants by."""

from collections.abc import Iterable

from pvemcp_server.errors import Precondition
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.write_target import TargetGuest


def refuse_granting_tags(
    call: Call, guest: TargetGuest, before: Iterable[str], after: Iterable[str]
) -> None:
    """Raise Precondition for a change of tags by which a caller changes its own rights.

    Case does not count, as on most clusters: a tag that differs in case only may be the same.
    """
    changed = {tag.casefold() for tag in before} ^ {tag.casefold() for tag in after}
    deciding = {*call.settings.protected_tags}
    for grant in call.caller.role.grants:
        deciding |= grant.resources.tags
    refused = sorted(tag for tag in deciding if tag.casefold() in changed)
    if refused:
        raise Precondition(
            f"The tag {', '.join(refused)} decides what this key may do with {guest.label}, so it "
            "cannot add or remove it.",
            hint="An administrator changes it in Proxmox.",
        )
