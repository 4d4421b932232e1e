"""Grants as JSON, as the database, the command line and the admin API hold them."""

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pvemcp_server.access.guest_lists import wrong_entry
from pvemcp_server.access.model import GUEST_LISTS, RESOURCE_KINDS, Grant, Resources
from pvemcp_server.errors import BadArgument, value_fact

GRANTS = TypeAdapter(tuple[Grant, ...])


def grants_from_json(value: object) -> tuple[Grant, ...]:
    """Parse grants; raise BadArgument for unknown fields, empty grants and wrong entries."""
    try:
        grants = GRANTS.validate_python(value)
    except ValidationError as invalid:
        error = invalid.errors(include_url=False)[0]
        where = ".".join(str(part) for part in ("grants", *error["loc"]))
        raise BadArgument(where, value_fact(error)) from None
    for index, grant in enumerate(grants):
        for name in ("tools", "clusters", "resources"):
            if not getattr(grant, name):
                raise BadArgument(f"grants.{index}.{name}", "must not be empty.")
        for kind in GUEST_LISTS:
            for wrong in filter(None, (wrong_entry(kind, e) for e in sorted(getattr(grant, kind)))):
                raise BadArgument(f"grants.{index}.{kind}", wrong)
    return grants


def grants_to_json(grants: Sequence[Grant]) -> list[dict[str, Any]]:
    """Return the grants as JSON, sorted and without empty fields: equal grants are equal text."""
    return [
        {
            "tools": sorted(grant.tools),
            "clusters": sorted(grant.clusters),
            "resources": resources_to_json(grant.resources),
            **{kind: sorted(names) for kind in GUEST_LISTS if (names := getattr(grant, kind))},
        }
        for grant in grants
    ]


def resources_to_json(resources: Resources) -> dict[str, Any]:
    """Return the resources as JSON, without empty sets."""
    if resources.everything:
        return {"everything": True}
    sets = {kind: sorted(getattr(resources, kind)) for kind in RESOURCE_KINDS}
    return {kind: ids for kind, ids in sets.items() if ids}
