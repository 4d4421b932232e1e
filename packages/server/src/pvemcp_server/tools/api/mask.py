"""Secrets in what Proxmox's API answers and takes: masked by names of values, and by their form."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pvemcp_server.audit.log_secrets import mask_line
from pvemcp_server.audit.mask import MASK, SECRET_PARAMETER
from pvemcp_server.tables.config_options import shown

_OF_OPTION: Final = {"value", "pending"}  # beside "key" or "name", which then names an option
# By the names beside them: headers and body of a webhook, credentials of a DNS API
_SECRET_BESIDE: Final[Mapping[str, frozenset[str]]] = {
    "url": frozenset({"header", "body"}),
    "plugin": frozenset({"data"}),
    "api": frozenset({"data"}),
}
# In the text of a whole configuration, as that of a backup
_ENVIRONMENT: Final = re.compile(r"(?m)^((?:env|lxc\.environment[\w.]*)\s{0,3}[:=]).+$")


def masked(data: Any, name: str = "") -> Any:
    """Return the data without secrets: by the names of values, and by their form."""
    if data is not None and SECRET_PARAMETER.fullmatch(name):
        return MASK
    if isinstance(data, Mapping):
        named = data.keys() & _OF_OPTION
        option = (data.get("key") or data.get("name")) if named else None
        beside = [names for name, names in _SECRET_BESIDE.items() if name in data]
        return {
            key: MASK
            if any(key in names for names in beside)
            else value
            if option and key == "key"
            else masked(value, str(option) if option and key in _OF_OPTION else key)
            for key, value in data.items()
        }
    if isinstance(data, Sequence) and not isinstance(data, str):
        data = shown(name, data)
        return [masked(item, name) for item in data]
    data = shown(name, data)
    return _ENVIRONMENT.sub(rf"\1{MASK}", mask_line(data)) if isinstance(data, str) else data
