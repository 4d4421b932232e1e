"""The definition of one parameter."""

from typing import Any, Literal

import msgspec

Type = Literal["string", "integer", "number", "boolean", "array", "object", "null"]


class Parameter(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """Type, limits and format of one parameter, or of one part of a property string."""

    type: Type = "string"
    optional: bool = False
    enum: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    format: str | None = None
    """The name of a format, like `pve-vmid`."""
    parts: dict[str, "Parameter"] | None = None
    """The parts of a property string, like `virtio=…,bridge=vmbr0`."""
    default: Any = None
    requires: str | None = None
    """Another parameter that is required together with this one."""
    is_default_key: bool = False
    """Whether this part may be written without its name."""
    alias: str | None = None
    """The part that this one is an alternative name for."""
    key_alias: str | None = None
    """The part whose value is the name that was used for the aliased part."""
    items: "Parameter | None" = None
    one_of: tuple["Parameter", ...] = ()
