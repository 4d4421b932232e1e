"""Routes of the admin REST API; each is one call of the administration."""

from typing import Any

from fastapi import APIRouter, status

from pvemcp_server.clusters import Check
from pvemcp_server.web.administration import admins, clusters, keys, roles, settings
from pvemcp_server.web.session import Reading, Writing

router = APIRouter()
CREATED = status.HTTP_201_CREATED
GONE = status.HTTP_204_NO_CONTENT


@router.get("/keys", tags=["keys"])
async def list_keys(acting: Reading) -> list[keys.Key]:
    return await keys.list_keys(acting)


@router.post("/keys", tags=["keys"], status_code=CREATED)
async def create_key(acting: Writing, new: keys.KeyFields) -> keys.ShownKey:
    """The secret is in this answer and nowhere else."""
    return await keys.create_key(acting, new)


@router.get("/keys/{key}", tags=["keys"])
async def get_key(acting: Reading, key: str) -> keys.Key:
    return await keys.get_key(acting, key)


@router.patch("/keys/{key}", tags=["keys"])
async def change_key(acting: Writing, key: str, changes: keys.KeyChanges) -> keys.Key:
    return await keys.change_key(acting, key, changes)


@router.post("/keys/{key}/regenerate", tags=["keys"])
async def regenerate_key(acting: Writing, key: str) -> keys.ShownKey:
    """A new secret; the old one is refused at once."""
    return await keys.regenerate_key(acting, key)


@router.delete("/keys/{key}", tags=["keys"], status_code=GONE)
async def remove_key(acting: Writing, key: str) -> None:
    await keys.remove_key(acting, key)


@router.get("/keys/{key}/rights", tags=["keys"])
async def effective_rights(acting: Reading, key: str) -> list[keys.ToolRight]:
    return await keys.effective_rights(acting, key)


@router.get("/roles", tags=["roles"])
async def list_roles(acting: Reading) -> list[roles.Role]:
    return await roles.list_roles(acting)


@router.post("/roles", tags=["roles"], status_code=CREATED)
async def create_role(acting: Writing, new: roles.RoleFields) -> roles.Role:
    return await roles.create_role(acting, new)


@router.get("/roles/{name}", tags=["roles"])
async def get_role(acting: Reading, name: str) -> roles.Role:
    return await roles.get_role(acting, name)


@router.patch("/roles/{name}", tags=["roles"])
async def change_role(acting: Writing, name: str, changes: roles.RoleChanges) -> roles.Role:
    return await roles.change_role(acting, name, changes)


@router.delete("/roles/{name}", tags=["roles"], status_code=GONE)
async def remove_role(acting: Writing, name: str) -> None:
    await roles.remove_role(acting, name)


@router.get("/clusters", tags=["clusters"])
async def list_clusters(acting: Reading) -> list[clusters.Cluster]:
    return await clusters.list_clusters(acting)


@router.post("/clusters", tags=["clusters"], status_code=CREATED)
async def add_cluster(acting: Writing, new: clusters.ClusterFields) -> clusters.Cluster:
    """Tried first; saved when it answers."""
    return (await clusters.add_cluster(acting, new))[0]


@router.get("/clusters/{name}", tags=["clusters"])
async def get_cluster(acting: Reading, name: str) -> clusters.Cluster:
    return await clusters.get_cluster(acting, name)


@router.patch("/clusters/{name}", tags=["clusters"])
async def change_cluster(
    acting: Writing, name: str, changes: clusters.ClusterChanges
) -> clusters.Cluster:
    return await clusters.change_cluster(acting, name, changes)


@router.delete("/clusters/{name}", tags=["clusters"], status_code=GONE)
async def remove_cluster(acting: Writing, name: str) -> None:
    await clusters.remove_cluster(acting, name)


@router.post("/clusters/{name}/test", tags=["clusters"])
async def check_cluster(acting: Writing, name: str, identity: str | None = None) -> Check:
    return await clusters.check_cluster(acting, name, identity)


@router.post("/clusters/{name}/identities", tags=["clusters"], status_code=CREATED)
async def add_identity(
    acting: Writing, name: str, new: clusters.IdentityFields
) -> clusters.Cluster:
    return await clusters.add_identity(acting, name, new)


@router.put("/clusters/{name}/identities", tags=["clusters"])
async def renew_identity(
    acting: Writing, name: str, new: clusters.IdentityFields
) -> clusters.Cluster:
    return await clusters.renew_identity(acting, name, new)


@router.delete("/clusters/{name}/identities/{identity}", tags=["clusters"], status_code=GONE)
async def remove_identity(acting: Writing, name: str, identity: str) -> None:
    await clusters.remove_identity(acting, name, identity)


@router.post("/clusters/{name}/identities/{identity}/default", tags=["clusters"])
async def make_default(acting: Writing, name: str, identity: str) -> clusters.Cluster:
    return await clusters.make_default(acting, name, identity)


@router.post("/clusters/{name}/identities/{identity}/bindings", tags=["clusters"])
async def bind(acting: Writing, name: str, identity: str, to: clusters.Binding) -> clusters.Cluster:
    return await clusters.bind(acting, name, identity, to)


@router.post("/clusters/{name}/unbind", tags=["clusters"])
async def unbind(acting: Writing, name: str, whom: clusters.Binding) -> clusters.Cluster:
    return await clusters.unbind(acting, name, whom)


@router.get("/settings", tags=["settings"])
async def list_settings(acting: Reading) -> list[settings.Setting]:
    return await settings.list_settings(acting)


@router.patch("/settings", tags=["settings"])
async def change_settings(acting: Writing, values: dict[str, Any]) -> list[settings.Setting]:
    """All or none."""
    return await settings.change_settings(acting, values)


@router.get("/admins", tags=["administrators"])
async def list_admins(acting: Reading) -> list[admins.Admin]:
    return await admins.list_admins(acting)


@router.post("/admins", tags=["administrators"], status_code=CREATED)
async def add_admin(acting: Writing, new: admins.AdminFields) -> admins.ShownAdmin:
    return await admins.add_admin(acting, new)


@router.post("/admins/{name}/reset-password", tags=["administrators"])
async def reset_password(acting: Writing, name: str) -> admins.ShownAdmin:
    return await admins.reset_password(acting, name)


@router.put("/admins/{name}/enabled", tags=["administrators"])
async def set_enabled(acting: Writing, name: str, enabled: bool) -> admins.Admin:
    return await admins.set_enabled(acting, name, enabled=enabled)


@router.delete("/admins/{name}", tags=["administrators"], status_code=GONE)
async def remove_admin(acting: Writing, name: str) -> None:
    await admins.remove_admin(acting, name)
