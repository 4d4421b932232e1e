"""Connections of people: clients, consent, tokens, and Proxmox accounts (OAuth 2.1)."""
