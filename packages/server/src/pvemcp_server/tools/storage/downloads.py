"""Downloads by a node: of a URL, a template of Proxmox's index, or an image of a registry."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Final

from pydantic import Field

from proxmox_client import Task
from proxmox_client.api.storage import ChecksumAlgorithm, DownloadKind, Storage
from pvemcp_server.access.model import Area, Effect, Toolset
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import BadArgument, Precondition, UnknownName
from pvemcp_server.shown_names import shown_name
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import ItsCluster, NodeName, Rule, StorageName
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.download_urls import DownloadRules, check_download, host_of, is_listed
from pvemcp_server.toolkit.needs import RequiredPrivilege
from pvemcp_server.toolkit.next_call import NextCall
from pvemcp_server.toolkit.oci_images import OciImage
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.room import room_on_storages
from pvemcp_server.toolkit.undo import LeftVolume, Undo
from pvemcp_server.toolkit.write_target import require_content, writable_cluster, writable_storage

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

Source = Annotated[
    str,
    Field(
        max_length=2048,
        description="https:// address, template of the table available_templates, or OCI image "
        "with tag, as ghcr.io/app/web:1.2 (Proxmox 9.1)",
    ),
]
FileName = Annotated[
    str | None,
    Field(
        max_length=200,
        pattern=rf"^{_NAME.pattern}$",
        description="Name to store it under; that of the source when absent",
    ),
    Rule("a file name has letters, digits, dots, hyphens and underscores"),
]
Checksum = Annotated[
    str | None,
    Field(pattern=r"^[0-9A-Fa-f]{32,128}$", description="Of a URL's file: MD5 or SHA, in hex"),
    Rule("a checksum has 32 to 128 hexadecimal digits"),
]
Verify = Annotated[bool, Field(description="Check the server's certificate")]

_BY_LENGTH: Final[Mapping[int, ChecksumAlgorithm]] = {
    32: "md5",
    40: "sha1",
    56: "sha224",
    64: "sha256",
    96: "sha384",
    128: "sha512",
}
_ENDINGS: Final[Mapping[DownloadKind, tuple[str, ...]]] = {
    "iso": (".iso", ".img"),
    "vztmpl": (".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2"),
    "import": (".qcow2", ".raw", ".vmdk", ".ova"),
}
_OCI_SINCE: Final = (9, 1)
_TAGS: Final = 10  # that an error names


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
    source: Source,
    filename: FileName = None,
    checksum: Checksum = None,
    verify_certificates: Verify = True,
) -> Plan:
    """Let a node download an ISO, disk image or container template to one of its storages."""
    cluster = await writable_cluster(call, cluster_name, nodes=[node])
    place = await writable_storage(cluster, storage, node)
    target = _Target(cluster, node, storage, _rules(call))
    if "://" in source:
        download = _of_url(target, source, filename, checksum, verify_certificates)
    else:
        if checksum is not None:
            raise BadArgument("checksum", "only an https:// address has one; leave it out.")
        if not verify_certificates:
            raise BadArgument("verify_certificates", "false is for an https:// address only.")
        of_others = _of_index if {"/", ":"}.isdisjoint(source) else _of_registry
        download = of_others(target, source, filename)
    view = await cluster.inventory_view()
    require_content(place, download.kind, (row for row in view.storages if row.node == node))
    volid = f"{storage}:{download.kind}/{download.name}"
    api = cluster.pve.storage(node, storage)
    if volid in {volume.volid for volume in await api.content(download.kind)}:
        raise Precondition(f"{volid} exists already.", hint=download.hint)
    discloses, *warnings = await download.check()
    delete = "DeleteIso" if download.kind == "iso" else "DeleteStorageContent"
    ids = {"node": node, "storage": storage, "volid": volid}
    return Plan(
        cluster=cluster,
        would=f"Let node {node} of {cluster.name} download {download.origin} to {volid}.",
        discloses=discloses,
        ids=ids,
        act=download.start,
        warnings=tuple(warnings),
        needs=(needs.STORAGES, needs.TEMPLATES, *download.needs),
        undo=(undo := Undo(NextCall(delete, {"cluster_name": cluster.name, **ids}))),
        read_undo=partial(_read_undo, api, undo, download.kind, volid),
        # the size of the file is not known: a dry run asks no host for it
        room=await room_on_storages(cluster, node, [(storage, None)]),
    )


async def _read_undo(api: Storage, planned: Undo, kind: DownloadKind, volid: str) -> Undo:
    """Return the undo of this file, and of no later one with its name."""
    file = {each.volid: each for each in await api.content(kind)}.get(volid)
    if file is None:
        return planned
    return replace(planned, volume=LeftVolume(api.node, volid, file.size, file.created))


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a file is downloaded to, and the hosts that it may come from."""

    cluster: Cluster
    node: str
    storage: str
    rules: DownloadRules


@dataclass(frozen=True, slots=True)
class _Download:
    """A file to download; `origin` is where it is from, in words."""

    kind: DownloadKind
    name: str
    origin: str
    check: Callable[[], Awaitable[tuple[str, ...]]]
    """Returns what is disclosed, or "", and warnings; raises CallError if it is not allowed."""
    start: Callable[[], Awaitable[Task]]
    needs: tuple[RequiredPrivilege, ...] = ()
    hint: str = "Choose another filename."


def _rules(call: Call) -> DownloadRules:
    settings = call.settings
    return DownloadRules(
        hosts=tuple(settings.download_hosts),
        plain_http=settings.allow_http_downloads,
        private=settings.allow_private_downloads,
    )


def _of_url(
    target: _Target, url: str, filename: str | None, checksum: str | None, verify: bool
) -> _Download:
    name = filename or re.split("[?#]", url, maxsplit=1)[0].rpartition("/")[2]
    kinds = (kind for kind, endings in _ENDINGS.items() if name.lower().endswith(endings))
    kind = next(kinds, None)
    if kind is None or not _NAME.fullmatch(name):
        endings = ", ".join(ending for endings in _ENDINGS.values() for ending in endings)
        raise BadArgument(
            "filename",
            f"it has letters, digits, dots, hyphens and underscores, and ends in one of {endings}.",
        )
    algorithm = _algorithm(checksum)

    async def check() -> tuple[str, ...]:
        discloses = await check_download(url, target.rules)
        warnings = [
            f"Node {target.node} downloads it itself, from its own network, and follows redirects."
        ]
        if checksum is None:
            warnings.append(
                "Not verified: no checksum is given. Publishers list it beside the file, mostly in "
                "SHA256SUMS, SHA512SUMS or a file with .sha256 at the end of its name: give the "
                "digits as checksum."
            )
        if not verify:
            warnings.append("The server's certificate is not checked.")
        return discloses, *warnings

    start = partial(
        target.cluster.pve.storage(target.node, target.storage).download_url,
        url,
        name,
        content=kind,
        checksum=checksum,
        checksum_algorithm=algorithm,
        verify_certificates=verify,
    )
    return _Download(kind, name, url, check, start, needs=(needs.NETWORK,))


def _of_index(target: _Target, template: str, filename: str | None) -> _Download:
    """Describe a template of Proxmox's index; the node has its address, and fetches it anyway.

    So the user is not asked, and only a list of hosts bounds it: its URL is none of the caller's.
    """
    if filename is not None:
        raise BadArgument("filename", "a template keeps its name; leave it out.")
    api = target.cluster.pve.node(target.node)

    async def check() -> tuple[str, ...]:
        index = {each.template: each for each in await api.appliances()}
        if template not in index:
            similar = [name for name in index if template in name]
            is_image = not similar and ".tar" not in template  # of Docker Hub, perhaps
            tag = f", and an OCI image has a tag: {template}:latest" if is_image else ""
            raise UnknownName(
                "template",
                template,
                similar or index,
                where=f"in the index of {target.node}{tag}",
                blind="Its index is empty: nodes fetch it once a day, and with `pveam update`.",
            )
        is_listed(host_of(index[template].location or ""), target.rules)
        return ("",)

    return _Download(
        "vztmpl",
        template,
        f"template {shown_name(template)}, checked with the checksum of its index,",
        check,
        partial(api.download_appliance, template, target.storage),
        hint="CreateContainer takes it.",
    )


def _of_registry(target: _Target, source: str, filename: str | None) -> _Download:
    image = OciImage.parse(source)
    if image is None:
        raise BadArgument("source", f"{source!r} is no address, template or OCI image.")
    pve = target.cluster.pve
    stem = (filename or image.reference.rpartition("/")[2].replace(":", "_")).removesuffix(".tar")

    async def check() -> tuple[str, ...]:
        version = await pve.version()
        if version.number < _OCI_SINCE:
            raise Precondition(
                f"OCI images need Proxmox VE 9.1; {target.cluster.name} has {version.version}."
            )
        discloses = await check_download(image.url, target.rules)
        # a dry run asks no other host
        tags = [] if discloses else await pve.node(target.node).oci_tags(image.repository)
        if not image.tag:
            newest = ", ".join(tags[-_TAGS:] or ["latest"])
            raise BadArgument("source", f"add a tag to {image.repository}, as {newest}.")
        if not discloses and image.tag not in tags:
            raise UnknownName("tag", image.tag, tags, where=f"of {image.repository}")
        pulls = f"Node {target.node} pulls it itself, from its own network, and from each host that"
        unverified = "Not verified: a tag can be moved, and Proxmox takes no checksum of an image."
        return discloses, f"{pulls} {image.registry} names.", unverified

    return _Download(
        "vztmpl",
        f"{stem}.tar",
        f"OCI image {image.reference} of {image.registry}",
        check,
        partial(pve.storage(target.node, target.storage).pull_oci_image, image.reference, stem),
        needs=(needs.REGISTRIES,),
    )


def _algorithm(checksum: str | None) -> ChecksumAlgorithm | None:
    """Return the algorithm of a checksum by its length, since Proxmox requires both or none."""
    if checksum is None:
        return None
    if algorithm := _BY_LENGTH.get(len(checksum)):
        return algorithm
    raise BadArgument("checksum", f"{len(checksum)} digits are no known checksum.")
