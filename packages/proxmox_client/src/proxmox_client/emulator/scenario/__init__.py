"""Scenarios: the clusters to emulate, built from a size, a YAML file or a demo."""
