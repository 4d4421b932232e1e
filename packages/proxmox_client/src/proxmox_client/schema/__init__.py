"""Schema of the Proxmox VE API: its endpoints and their parameters, by version.

Derived from the published schemas by `scripts/make_schema.py`; names, types and limits only.
"""

from proxmox_client.schema.facts import VERSIONS, load
from proxmox_client.schema.model import ApiSchema, Endpoint
from proxmox_client.schema.parameter import Parameter

__all__ = ["VERSIONS", "ApiSchema", "Endpoint", "Parameter", "load"]
