"""Secrets in what Proxmox's API answers and takes: masked by names of values, and by their form."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pvemcp_server.audit.log_secrets import mask_line
from pvemcp_server.audit.mask import MASK, SECRET_BESIDE, SECRET_PARAMETER
from pvemcp_server.tables.config_options import shown

_OF_OPTION: Final = {"value", "pending"}  # beside "key" or "name", which then names an option
# In the text of a whole configuration, as that of a backup
_LINE: Final = re.compile(r"(?m)^([ \t]{0,8}([\w.-]{1,60}+)[ \t]{0,8}=[ \t]{0,8})\S.*$")
_ARGUMENTS: Final = re.compile(r"(?m)^args\s{0,3}[:=].+$")
_ENVIRONMENT: Final = re.compile(r"(?m)^((?:env|lxc\.environment[\w.]*)\s{0,3}[:=]).+$")


def is_secret(name: str, beside: Iterable[str] = ()) -> bool:
    """Return whether a value is secret by its name, or by one of the names beside it."""
    by_name = SECRET_PARAMETER.fullmatch(name) is not None
    return by_name or any(name in SECRET_BESIDE.get(other, ()) for other in beside)


def masked(data: Any, name: str = "") -> Any:
    """Return the data without secrets: by the names of values, and by their form."""
    if data is not None and is_secret(name):
        return MASK
    if isinstance(data, Mapping):
        named = data.keys() & _OF_OPTION
        option = (data.get("key") or data.get("name")) if named else None
        return {
            key: value
            if option and key == "key"
            else MASK
            if value is not None and is_secret(key, data)
            else masked(value, str(option) if option and key in _OF_OPTION else key)
            for key, value in data.items()
        }
    if isinstance(data, Sequence) and not isinstance(data, str):
        data = shown(name, data)
        return [masked(item, name) for item in data]
    data = shown(name, data)
    if not isinstance(data, str):
        return data
    text = _ARGUMENTS.sub(lambda match: shown("args", match[0]), mask_line(data))
    return _LINE.sub(_masked_line, _ENVIRONMENT.sub(rf"\1{MASK}", text))


def _masked_line(match: re.Match[str]) -> str:
    """Return a line of a configuration, as `key = AQB…`, without a value that is a secret."""
    return f"{match[1]}{MASK}" if is_secret(match[2]) else match[0]
