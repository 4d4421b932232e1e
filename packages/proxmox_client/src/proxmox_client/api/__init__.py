"""Calls of the Proxmox VE API and their answers, one module per area."""
