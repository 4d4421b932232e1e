"""Entry point of `python -m proxmox_client.emulator`."""

from proxmox_client.emulator.cli import main

main()
