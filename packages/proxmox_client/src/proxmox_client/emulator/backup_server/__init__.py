"""An emulated Proxmox Backup Server: its state, the paths that are read, and its listener."""
