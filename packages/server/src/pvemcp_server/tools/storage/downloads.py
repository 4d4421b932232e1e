"""Downloads of installation images by a node."""

from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from proxmox_client.api.storage import ChecksumAlgorithm, Storage
from pvemcp_server.access.model import Area, Effect, Toolset
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import BadArgument, Precondition
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import ItsCluster, NodeName, Rule, StorageName
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.download_urls import DownloadRules, check_download
from pvemcp_server.toolkit.next_call import NextCall
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.room import room_on_storages
from pvemcp_server.toolkit.undo import LeftVolume, Undo
from pvemcp_server.toolkit.write_target import require_content, writable_cluster, writable_storage

Url = Annotated[str, Field(max_length=2048, description="https:// address of the image")]
FileName = Annotated[
    str,
    Field(
        max_length=200,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\.([iI][sS][oO]|[iI][mM][gG])$",
        description="Name to store it under, ending in .iso or .img",
    ),
    Rule("a file name has letters, digits, dots, hyphens, underscores, and ends in .iso or .img"),
]
Checksum = Annotated[
    str | None,
    Field(pattern=r"^[0-9A-Fa-f]{32,128}$", description="In hex"),
    Rule("a checksum has 32 to 128 hexadecimal digits"),
]
Algorithm = Annotated[
    Literal["md5", "sha1", "sha224", "sha256", "sha384", "sha512"] | None,
    Field(description="Of the checksum; by its length when absent"),
]
Verify = Annotated[bool, Field(description="Check the server's certificate")]

_BY_LENGTH: dict[int, ChecksumAlgorithm] = {
    32: "md5",
    40: "sha1",
    56: "sha224",
    64: "sha256",
    96: "sha384",
    128: "sha512",
}


@tool(
    "DownloadIso",
    title="Download ISO",
    area=Area.STORAGE,
    effect=Effect.WRITE,
    toolset=Toolset.CONTENT,
    open_world=True,
    needs=(needs.STORAGES, needs.TEMPLATES, needs.NETWORK),
)
async def download_iso(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    node: NodeName,
    storage: StorageName,
    url: Url,
    filename: FileName,
    checksum: Checksum = None,
    checksum_algorithm: Algorithm = None,
    verify_certificates: Verify = True,
) -> Plan:
    """Let a node download an ISO image from the internet to one of its storages."""
    cluster = await writable_cluster(call, cluster_name, nodes=[node])
    place = await writable_storage(cluster, storage, node)
    view = await cluster.inventory_view()
    require_content(place, "iso", (row for row in view.storages if row.node == node))
    algorithm = _algorithm(checksum, checksum_algorithm)
    settings = call.settings
    rules = DownloadRules(
        hosts=tuple(settings.download_hosts),
        plain_http=settings.allow_http_downloads,
        private=settings.allow_private_downloads,
    )
    discloses = await check_download(url, rules)
    warnings = [f"Node {node} downloads it itself, from its own network, and follows redirects."]
    if checksum is None:
        warnings.append("Without a checksum the content is not verified.")
    if not verify_certificates:
        warnings.append("The server's certificate is not checked.")
    api = cluster.pve.storage(node, storage)
    volid = f"{storage}:iso/{filename}"
    if volid in {volume.volid for volume in await api.content("iso")}:
        raise Precondition(f"{volid} exists already.", hint="Choose another filename.")
    return Plan(
        cluster=cluster,
        would=f"Let node {node} of {cluster.name} download {url} to {volid}.",
        discloses=discloses,
        ids={"node": node, "storage": storage, "volid": volid},
        act=partial(
            api.download_url,
            url,
            filename,
            checksum=checksum,
            checksum_algorithm=algorithm,
            verify_certificates=verify_certificates,
        ),
        warnings=tuple(warnings),
        undo=(undo := _undo(cluster, node, storage, volid)),
        read_undo=partial(_read_undo, api, undo, volid),
        # the size of the image is not known: a dry run asks no host for it
        room=await room_on_storages(cluster, node, [(storage, None)]),
    )


def _undo(cluster: Cluster, node: str, storage: str, volid: str) -> Undo:
    place = {"cluster_name": cluster.name, "node": node, "storage": storage, "volid": volid}
    return Undo(NextCall("DeleteIso", place))


async def _read_undo(api: Storage, planned: Undo, volid: str) -> Undo:
    """Return the undo of this file, and of no later one with its name."""
    file = {each.volid: each for each in await api.content("iso")}.get(volid)
    if file is None:
        return planned
    return replace(planned, volume=LeftVolume(api.node, volid, file.size, file.created))


def _algorithm(checksum: str | None, named: ChecksumAlgorithm | None) -> ChecksumAlgorithm | None:
    """Return the algorithm of a checksum by its length, since Proxmox requires both or none."""
    if checksum is None:
        if named is not None:
            raise BadArgument("checksum", f"give the {named} checksum too, or leave both out.")
        return None
    by_length = _BY_LENGTH.get(len(checksum))
    if by_length is None or (named is not None and named != by_length):
        raise BadArgument("checksum", f"{len(checksum)} digits are no {named or 'known'} checksum.")
    return by_length
