"""The truth of an emulated cluster: nodes, guests, storages, people and jobs."""
