"""Container templates that nodes can download from Proxmox's index."""

from typing import Annotated, ClassVar

from proxmox_client import Node
from proxmox_client.api.nodes import Appliance
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.per_node import node_table, rows_of_nodes
from pvemcp_server.tables.registry import LoadRequest
from pvemcp_server.tables.rows import Caveat, Col, Row


class AvailableTemplate(Row):
    """A container template of the index of a node."""

    minimal: ClassVar[tuple[str, ...]] = ("node", "template", "os", "version", "title")

    node: Annotated[str, Col("Node whose index has it")]
    template: Annotated[
        str,
        Col(
            "File name, which DownloadIso takes as source",
            aliases=("name",),
            caveat=Caveat("Nodes fetch the index once a day; that of a new node is empty."),
        ),
    ]
    os: Annotated[str, Col("Distribution: debian-13, alpine …")]
    version: Annotated[str, Col("Version of the template")]
    section: Annotated[str, Col("system, turnkeylinux …")]
    package: Annotated[str, Col("Name without version: debian-13-standard")]
    architecture: Annotated[str | None, Col("amd64 …")]
    title: Annotated[str | None, Col("Short description")]
    location: Annotated[str | None, Col("URL that the node downloads")]
    page: Annotated[str | None, Col("Page about it")]
    checksum: Annotated[
        str | None, Col("SHA-512, or MD5, of the index, which Proxmox compares the file with")
    ]


@node_table("available_templates", tool="ListTemplates")
async def available_templates(cluster: Cluster, request: LoadRequest) -> list[AvailableTemplate]:
    """Container templates of Proxmox's index, which DownloadIso can download."""
    return await rows_of_nodes(cluster, request, Node.appliances, _row, "templates of node")


def _row(node: str, appliance: Appliance) -> AvailableTemplate:
    return AvailableTemplate(
        node=node,
        template=appliance.template,
        os=appliance.os,
        version=appliance.version,
        section=appliance.section,
        package=appliance.package,
        architecture=appliance.architecture,
        title=appliance.headline,
        location=appliance.location,
        page=appliance.infopage,
        checksum=appliance.sha512 or appliance.md5,
    )
