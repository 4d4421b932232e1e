"""What can be asked of Proxmox, area by area."""
