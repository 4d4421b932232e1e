"""The state of an emulated cluster: nodes, guests, storages, users, jobs and tasks."""
