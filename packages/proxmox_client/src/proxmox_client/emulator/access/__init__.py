"""Access control: roles, the ACL and the permission checks of the endpoints."""
