"""Clusters, Proxmox identities and bindings."""

import pytest
from sqlalchemy import text

from proxmox_client.emulator.certificates import CertificateAuthority
from pvemcp_server.access import Access, Grant
from pvemcp_server.errors import BadArgument, CallError, UnknownName
from pvemcp_server.store import Store, Topic
from pvemcp_server.store.records import TlsMode

pytestmark = pytest.mark.anyio

TOKEN = {"token_id": "root@pam!pvemcp", "secret": "planted"}
AUTHORITY = CertificateAuthority("lab").pem
PIN = ":".join(["ab"] * 32)


@pytest.fixture
async def lab(access: Access) -> None:
    await access.clusters.create("lab", ["pve1", "pve2:8006"], **TOKEN)


async def test_a_cluster_comes_with_its_default_identity(access: Access, lab: None, store: Store):
    cluster = await access.clusters.get("lab")
    assert (cluster.hosts, cluster.tls_mode) == (["pve1", "pve2:8006"], TlsMode.SYSTEM)
    [identity] = await access.clusters.identities("lab")
    assert (identity.name, identity.token_id, identity.is_default) == (
        "default",
        "root@pam!pvemcp",
        True,
    )
    assert await store.identities.secret(identity, cluster) == "planted"
    assert "planted" not in repr(identity)


@pytest.mark.parametrize(
    ("values", "argument"),
    [
        ({"name": "../x"}, "name"),
        ({"hosts": []}, "hosts"),
        ({"hosts": ["https://pve1"]}, "hosts"),
        ({"hosts": ["root@pve1"]}, "hosts"),
        ({"tls_mode": "trusting"}, "tls_mode"),
        ({"tls_mode": "pinned"}, "fingerprints"),
        ({"tls_mode": "ca"}, "ca_pem"),
        ({"tls_mode": "ca", "ca_pem": "hello"}, "ca_pem"),
        ({"tls_mode": "ca", "ca_pem": "schön"}, "ca_pem"),
        ({"tls_mode": "pinned", "fingerprints": [":".join(["AB"] * 20)]}, "fingerprints"),
        ({"tls_mode": "pinned", "fingerprints": ["ab:cd"]}, "fingerprints"),
        ({"token_id": "root@pam"}, "token_id"),
        ({"secret": " "}, "secret"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value),
)
async def test_an_invalid_field_of_a_cluster_is_named(access: Access, values: dict, argument: str):
    with pytest.raises(BadArgument) as refused:
        await access.clusters.create(**{"name": "lab", "hosts": ["pve1"], **TOKEN, **values})
    assert refused.value.argument == argument
    assert await access.clusters.all() == []


async def test_single_fields_of_a_cluster_can_be_changed(access: Access, lab: None):
    again = {"default": "planted"}
    changed = await access.clusters.change(
        "lab", tls_mode="pinned", fingerprints=[PIN], secrets=again
    )
    assert (changed.tls_mode, changed.fingerprints) == (TlsMode.PINNED, [PIN.upper()])
    assert changed.hosts == ["pve1", "pve2:8006"]
    with pytest.raises(BadArgument, match="fingerprints"):
        await access.clusters.change("lab", fingerprints=[])
    with pytest.raises(BadArgument, match="colour"):
        await access.clusters.change("lab", colour="blue")
    with pytest.raises(UnknownName, match="Did you mean lab"):
        await access.clusters.change("lap", description="x")


DESTINATIONS = [
    {"hosts": ["pve1", "evil"]},
    {"hosts": ["pve1:8007", "pve2:8006"]},
    {"tls_mode": "insecure"},
    {"tls_mode": "pinned", "fingerprints": [PIN]},
    {"tls_mode": "ca", "ca_pem": AUTHORITY},
]


@pytest.mark.parametrize("destination", DESTINATIONS, ids=lambda values: "-".join(values))
async def test_a_new_destination_needs_the_secret_of_every_token(
    access: Access, lab: None, store: Store, destination: dict
):
    await access.clusters.add_identity("lab", "narrow", token_id="n@pve!nn", secret="n")
    before = await access.clusters.get("lab")
    for given in ({}, {"default": "planted"}):
        with pytest.raises(BadArgument, match=r"need the secret of each token .* narrow"):
            await access.clusters.change("lab", secrets=given, **destination)
    with pytest.raises(UnknownName, match="identity 'other'"):
        await access.clusters.change("lab", secrets={"other": "x"}, **destination)
    assert await access.clusters.get("lab") == before
    secrets = {"default": "planted", "narrow": "n"}
    after = await access.clusters.change("lab", secrets=secrets, **destination)
    for identity in await access.clusters.identities("lab"):
        assert await store.identities.secret(identity, after) == secrets[identity.name]
        with pytest.raises(CallError, match="was not given for the present hosts"):
            await store.identities.secret(identity, before)


async def test_a_change_that_keeps_the_destination_needs_no_secret(access: Access, lab: None):
    same = {"hosts": ["pve2:8006", "pve1"], "ca_pem": AUTHORITY, "protected": True}
    assert (await access.clusters.change("lab", name="home", **same)).name == "home"


@pytest.mark.parametrize(
    ("column", "value"),
    [("hosts", '["evil:8006"]'), ("tls_mode", "insecure")],
)
async def test_a_destination_written_to_the_database_gets_no_secret(
    access: Access, lab: None, store: Store, column: str, value: str
):
    async with store.database.writing() as connection:
        await connection.execute(text(f"UPDATE clusters SET {column} = '{value}'"))  # noqa: S608 - our own values
    [identity] = await access.clusters.identities("lab")
    with pytest.raises(CallError, match="it is not sent"):
        await store.identities.secret(identity, await access.clusters.get("lab"))


async def test_a_renamed_cluster_keeps_exactly_its_grants(access: Access, lab: None):
    _, secret = await access.keys.create("narrow", clusters=["lab"])
    await access.clusters.bind("lab", "default", key="narrow")
    await access.clusters.change("lab", name="home")
    await access.clusters.create("lab", ["pve9"], **TOKEN)
    caller = await access.authenticator.authenticate(secret, "::1")
    assert caller.clusters == {"home"}
    assert list(caller.identities) == ["home"]


async def test_grants_follow_the_new_name_of_a_cluster(access: Access, lab: None):
    await access.roles.create("narrow", [Grant(frozenset({"*"}), frozenset({"lab", "prod"}))])
    await access.clusters.change("lab", name="home")
    [grant] = (await access.roles.get("narrow")).grants
    assert grant.clusters == {"home", "prod"}


async def test_the_binding_of_a_key_overrides_that_of_its_role(access: Access, lab: None):
    await access.clusters.add_identity("lab", "readers", token_id="r@pve!rr", secret="r")
    await access.clusters.add_identity("lab", "mine", token_id="m@pve!mm", secret="m")
    ids = {identity.name: identity.id for identity in await access.clusters.identities("lab")}
    key, _ = await access.keys.create("laptop")

    async def bound() -> dict[str, int]:
        return (await access.authenticator.caller(key.id)).identities

    assert await bound() == {}
    await access.clusters.bind("lab", "mine", key="laptop")
    await access.clusters.bind("lab", "readers", role="Read-only")
    assert await bound() == {"lab": ids["mine"]}
    await access.clusters.bind("lab", "default", key=key.id)
    assert await bound() == {"lab": ids["default"]}
    await access.clusters.unbind("lab", key="laptop")
    assert await bound() == {"lab": ids["readers"]}
    await access.clusters.unbind("lab", role="Read-only")
    assert await bound() == {}


async def test_a_binding_names_a_key_or_a_role(access: Access, lab: None):
    with pytest.raises(BadArgument, match="either a key or a role"):
        await access.clusters.bind("lab", "default")
    with pytest.raises(UnknownName, match="key 'missing'"):
        await access.clusters.bind("lab", "default", key="missing")
    with pytest.raises(UnknownName, match="identity 'missing'"):
        await access.clusters.bind("lab", "missing", role="Read-only")


async def test_a_bound_or_default_identity_is_not_removed(access: Access, lab: None):
    await access.clusters.add_identity("lab", "narrow", token_id="n@pve!nn", secret="n")
    await access.clusters.bind("lab", "narrow", role="Read-only")
    with pytest.raises(BadArgument, match="bound"):
        await access.clusters.remove_identity("lab", "narrow")
    with pytest.raises(BadArgument, match="default"):
        await access.clusters.remove_identity("lab", "default")
    await access.clusters.make_default("lab", "narrow")
    await access.clusters.remove_identity("lab", "default")
    [left] = await access.clusters.identities("lab")
    assert (left.name, left.is_default) == ("narrow", True)


async def test_the_id_of_a_removed_identity_is_never_reused(access: Access, lab: None):
    for name in ("one", "two"):
        added = await access.clusters.add_identity("lab", name, token_id="n@pve!nn", secret="n")
        await access.clusters.remove_identity("lab", name)
        if name == "one":
            first = added.id
    assert added.id > first


async def test_a_new_secret_reaches_other_processes(access: Access, lab: None, other_store: Store):
    calls = []

    async def listener() -> None:
        calls.append("changed")

    await other_store.watch.poll()
    other_store.watch.on_change(Topic.CLUSTERS, listener)
    await access.clusters.change_identity("lab", "default", secret="renewed")
    await other_store.watch.poll()
    assert calls == ["changed"]
    [identity], [cluster] = await other_store.identities.all(), await other_store.clusters.all()
    assert await other_store.identities.secret(identity, cluster) == "renewed"


async def test_removing_a_cluster_removes_its_tokens_and_bindings(
    access: Access, lab: None, store: Store
):
    await access.clusters.bind("lab", "default", role="Read-only")
    await access.clusters.remove("lab")
    assert await store.identities.all() == []
    assert await store.bindings.all() == []


async def test_a_token_id_can_be_changed_without_the_secret(
    access: Access, lab: None, store: Store
):
    await access.clusters.change_identity("lab", "default", token_id="root@pam!renewed")
    [identity] = await access.clusters.identities("lab")
    assert identity.token_id == "root@pam!renewed"
    assert await store.identities.secret(identity, await access.clusters.get("lab")) == "planted"


async def test_bindings_can_be_listed(access: Access, lab: None):
    key, _ = await access.keys.create("laptop")
    await access.clusters.bind("lab", "default", key="laptop")
    [binding] = await access.clusters.bindings("lab")
    assert (binding.key_id, binding.role_id) == (key.id, None)


async def test_two_clusters_may_not_share_a_name(access: Access, lab: None):
    with pytest.raises(BadArgument, match="'lab' is already among the clusters"):
        await access.clusters.create("lab", ["pve9"], **TOKEN)
    await access.clusters.create("prod", ["pve9"], **TOKEN)
    with pytest.raises(BadArgument, match="'lab' is already among the clusters"):
        await access.clusters.change("prod", name="lab")


@pytest.mark.parametrize("secret", ["", "two\nlines", "caf\u00e9", "x" * 300], ids=["none", *"abc"])
async def test_a_secret_that_no_request_could_carry_is_refused(
    access: Access, lab: None, secret: str
):
    for save in (
        access.clusters.add_identity("lab", "narrow", token_id="n@pve!nn", secret=secret),
        access.clusters.change_identity("lab", "default", secret=secret),
    ):
        with pytest.raises(BadArgument, match=r"secret: must be the line that Proxmox shows"):
            await save
