"""Clusters, their Proxmox identities and who is bound to them, over REST."""

from fastapi import APIRouter

from pvemcp_server.admin import clusters
from pvemcp_server.clusters import Check
from pvemcp_server.web.api.answers import CREATED, GONE
from pvemcp_server.web.session import Reading, Writing

router = APIRouter(tags=["Clusters"])


@router.get("/clusters")
async def list_clusters(context: Reading) -> list[clusters.Cluster]:
    """The configured clusters, without asking them."""
    return await clusters.list_clusters(context)


@router.post("/clusters", status_code=CREATED)
async def add_cluster(context: Writing, new: clusters.ClusterFields) -> clusters.Cluster:
    """Tried first; saved when it answers."""
    return (await clusters.add_cluster(context, new))[0]


@router.post("/clusters/try")
async def try_cluster(_: Writing, fields: clusters.ClusterFields) -> Check:
    """What a cluster answers with these fields, without saving it."""
    return await clusters.try_cluster(fields)


@router.post("/clusters/fingerprints")
async def fingerprints(_: Writing, hosts: list[str]) -> list[clusters.Shown]:
    """The SHA-256 of the certificate that each host shows now, to compare before pinning."""
    return await clusters.fingerprints(hosts)


@router.get("/clusters/{name}")
async def get_cluster(context: Reading, name: str) -> clusters.Cluster:
    """A cluster with its Proxmox identities and who is bound to them."""
    return await clusters.get_cluster(context, name)


@router.patch("/clusters/{name}")
async def change_cluster(
    context: Writing, name: str, changes: clusters.ClusterChanges
) -> clusters.Cluster:
    """Change what is given; the rest stays."""
    return await clusters.change_cluster(context, name, changes)


@router.delete("/clusters/{name}", status_code=GONE)
async def remove_cluster(context: Writing, name: str) -> None:
    """Forget a cluster, its tokens and bindings; Proxmox is not asked."""
    await clusters.remove_cluster(context, name)


@router.post("/clusters/{name}/test")
async def check_cluster(context: Writing, name: str, identity: str | None = None) -> Check:
    """Ask a saved cluster for its version and what the token may."""
    return await clusters.check_cluster(context, name, identity)


@router.post("/clusters/{name}/identities", status_code=CREATED)
async def add_identity(
    context: Writing, name: str, new: clusters.IdentityFields
) -> clusters.Cluster:
    """Add a Proxmox API token to a cluster."""
    return await clusters.add_identity(context, name, new)


@router.put("/clusters/{name}/identities")
async def renew_identity(
    context: Writing, name: str, new: clusters.IdentityFields
) -> clusters.Cluster:
    """Another token, or another secret, under the same name."""
    return await clusters.renew_identity(context, name, new)


@router.delete("/clusters/{name}/identities/{identity}", status_code=GONE)
async def remove_identity(context: Writing, name: str, identity: str) -> None:
    """Remove a token that nobody is bound to."""
    await clusters.remove_identity(context, name, identity)


@router.post("/clusters/{name}/identities/{identity}/default")
async def make_default(context: Writing, name: str, identity: str) -> clusters.Cluster:
    """Make this the token of everyone who is bound to no other."""
    return await clusters.make_default(context, name, identity)


@router.post("/clusters/{name}/identities/{identity}/bindings")
async def bind(
    context: Writing, name: str, identity: str, to: clusters.Binding
) -> clusters.Cluster:
    """Let a key, or all keys of a role, reach the cluster with this token."""
    return await clusters.bind(context, name, identity, to)


@router.post("/clusters/{name}/unbind")
async def unbind(context: Writing, name: str, whom: clusters.Binding) -> clusters.Cluster:
    """Let a key or role reach the cluster with its default token again."""
    return await clusters.unbind(context, name, whom)
