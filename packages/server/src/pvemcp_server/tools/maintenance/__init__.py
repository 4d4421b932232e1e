"""The tools CheckMaintenance and EvacuateNode."""

from pvemcp_server.tools.maintenance import evacuation, maintenance

__all__ = ["evacuation", "maintenance"]
