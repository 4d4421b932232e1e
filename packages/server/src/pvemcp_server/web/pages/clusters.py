"""Page Clusters: add, test, change, bind identities, run the doctor."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from starlette.datastructures import FormData

from pvemcp_server.admin import clusters, doctor, keys, roles
from pvemcp_server.clusters.checks import CERTIFICATE_COMMANDS
from pvemcp_server.errors import BadArgument
from pvemcp_server.store.records import ClusterKind, TlsMode
from pvemcp_server.web.pages.forms import text_of, texts_of, words
from pvemcp_server.web.session import Reading, SignedIn, Writing, may
from pvemcp_server.web.templates import Navigation, page, redirect, reload

router = APIRouter(prefix="/clusters")
navigation = Navigation(
    "Clusters",
    "/admin/clusters",
    operation="clusters.list",
    icon="M4 4h16v6H4zM4 14h16v6H4zM8 7h.01M8 17h.01",
)
Text = Annotated[str, Form()]
SECRET = "token_secret:"  # noqa: S105 - the prefix of a field's name
TLS = {
    TlsMode.PINNED: "Pin the certificate shown by the host",
    TlsMode.SYSTEM: "The system's certificate authorities",
    TlsMode.CA: "Your own certificate authority",
    TlsMode.INSECURE: "Do not check (the connection can be intercepted)",
}


@router.get("", dependencies=[may("clusters.list")])
async def show(request: Request, session: SignedIn, context: Reading) -> Response:
    return page(
        request,
        "clusters.html",
        session,
        here="clusters",
        clusters=await clusters.list_clusters(context),
        freezes=await clusters.list_freezes(context),
        modes=TLS,
    )


@router.post("/freeze", dependencies=[may("freezes.start_all")])
async def freeze_all(context: Writing, reason: Text = "") -> Response:
    await clusters.freeze_all(context, clusters.FreezeFields(reason=reason))
    return reload()


@router.post("/unfreeze", dependencies=[may("freezes.end_all")])
async def unfreeze_all(context: Writing) -> Response:
    await clusters.unfreeze_all(context)
    return reload()


@router.post("/{name}/freeze", dependencies=[may("freezes.start")])
async def freeze(context: Writing, name: str, reason: Text = "") -> Response:
    await clusters.freeze(context, name, clusters.FreezeFields(reason=reason))
    return reload()


@router.post("/{name}/unfreeze", dependencies=[may("freezes.end")])
async def unfreeze(context: Writing, name: str) -> Response:
    await clusters.unfreeze(context, name)
    return reload()


@router.get("/new", dependencies=[may("clusters.add")])
async def new(request: Request, session: SignedIn, context: Reading) -> Response:
    return page(
        request,
        "cluster_edit.html",
        session,
        here="clusters",
        cluster=None,
        modes=TLS,
        kinds=list(ClusterKind),
        roles=await roles.list_roles(context),
        made=None,
    )


@router.post("/fingerprints", dependencies=[may("clusters.fingerprints")])
async def fingerprints(
    request: Request,
    session: SignedIn,
    context: Writing,
    hosts: Text,
    kind: Annotated[ClusterKind, Form()] = ClusterKind.PVE,
) -> Response:
    """Show the hosts' current fingerprints, to compare with those on the nodes."""
    shown = await clusters.fingerprints(context, words(hosts), kind)
    command = CERTIFICATE_COMMANDS[kind]
    return page(request, "cluster_fingerprints.html", session, shown=shown, command=command)


@router.post("/account", dependencies=[may("clusters.make_account")])
async def make_account(request: Request, session: SignedIn, context: Writing) -> Response:
    """Make an account in Proxmox, and put its token into the form of the new cluster."""
    form = await request.form()
    pins = _fingerprints(form)
    if text_of(form, "tls_mode") not in {TlsMode.PINNED, TlsMode.SYSTEM}:
        raise BadArgument(
            "tls_mode", "a password is sent only where the certificate is pinned, or the system's."
        )
    names = ("user", "password", "code", "role")
    texts = {name: text for name in names if (text := text_of(form, name))}
    fields = {"hosts": words(text_of(form, "hosts")), "fingerprints": pins, **texts}
    made = await clusters.make_account(context, clusters.AccountFields.model_validate(fields))
    return page(request, "cluster_token.html", session, made=made)


@router.post("/try", dependencies=[may("clusters.try")])
async def try_out(request: Request, session: SignedIn, context: Writing) -> Response:
    check = await clusters.try_cluster(context, _fields(await request.form()))
    return page(request, "cluster_check.html", session, check=check, saved="")


@router.post("", dependencies=[may("clusters.add")])
async def add(request: Request, context: Writing) -> Response:
    await clusters.add_cluster(context, _fields(await request.form()))
    return redirect("/admin/clusters")


@router.get("/{name}/edit", dependencies=[may("clusters.change")])
async def edit(request: Request, session: SignedIn, context: Reading, name: str) -> Response:
    return page(
        request,
        "cluster_edit.html",
        session,
        here="clusters",
        cluster=await clusters.get_cluster(context, name),
        modes=TLS,
        keys=await keys.list_keys(context),
        roles=await roles.list_roles(context),
    )


@router.post("/{name}/change", dependencies=[may("clusters.change")])
async def change(request: Request, context: Writing, name: str) -> Response:
    form = await request.form()
    values = _connection(form) | {"token_secrets": _token_secrets(form)}
    await clusters.change_cluster(context, name, clusters.ClusterChanges(**values))
    return redirect("/admin/clusters")


@router.post("/{name}/remove", dependencies=[may("clusters.remove")])
async def remove(context: Writing, name: str) -> Response:
    await clusters.remove_cluster(context, name)
    return redirect("/admin/clusters")


@router.post("/{name}/test", dependencies=[may("clusters.test")])
async def check(
    request: Request,
    session: SignedIn,
    context: Writing,
    name: str,
    identity: Annotated[str | None, Query()] = None,
) -> Response:
    check = await clusters.check_cluster(context, name, identity)
    return page(request, "cluster_check.html", session, check=check, saved=identity or name)


@router.post("/{name}/doctor", dependencies=[may("doctor")])
async def examine(
    request: Request, session: SignedIn, context: Writing, name: str, key: Text = ""
) -> Response:
    return page(
        request,
        "doctor.html",
        session,
        reports=await doctor.examine(context, name, key),
        name=name,
        path=request.url.path,
        keys=await keys.list_keys(context),
        chosen=key,
    )


@router.post("/{name}/identities", dependencies=[may("clusters.add_identity")])
async def put_identity(request: Request, context: Writing, name: str) -> Response:
    """Add a token, or replace the secret of the identity with that name."""
    form = await request.form()
    fields = clusters.IdentityFields.model_validate(
        {field: text_of(form, field) for field in ("name", "token_id", "token_secret")}
    )
    existing = {
        identity.name for identity in (await clusters.get_cluster(context, name)).identities
    }
    put = clusters.renew_identity if fields.name in existing else clusters.add_identity
    await put(context, name, fields)
    return reload()


@router.post("/{name}/identities/{identity}/default", dependencies=[may("clusters.make_default")])
async def make_default(context: Writing, name: str, identity: str) -> Response:
    await clusters.make_default(context, name, identity)
    return reload()


@router.post("/{name}/identities/{identity}/remove", dependencies=[may("clusters.remove_identity")])
async def remove_identity(context: Writing, name: str, identity: str) -> Response:
    await clusters.remove_identity(context, name, identity)
    return reload()


@router.post("/{name}/bind", dependencies=[may("clusters.bind")])
async def bind(context: Writing, name: str, identity: Text, holder: Text) -> Response:
    await clusters.bind(context, name, identity, _holder(holder))
    return reload()


@router.post("/{name}/unbind", dependencies=[may("clusters.unbind")])
async def unbind(context: Writing, name: str, holder: Text) -> Response:
    await clusters.unbind(context, name, _holder(holder))
    return reload()


def _holder(text: str) -> clusters.Binding:
    """Parse `key:laptop` or `role:Operator`; raise BadArgument."""
    kind, _, name = text.partition(":")
    if kind not in {"key", "role"}:
        raise BadArgument("holder", "choose a key or a role.")
    return clusters.Binding(**{kind: name})


def _fields(form: FormData) -> clusters.ClusterFields:
    names = ("token_id", "token_secret")
    kind = text_of(form, "kind") or ClusterKind.PVE
    token = {name: text_of(form, name) for name in names}
    return clusters.ClusterFields.model_validate({"kind": kind, **_connection(form), **token})


def _token_secrets(form: FormData) -> dict[str, str]:
    """Read the secrets that were entered, by the names of their identities."""
    secrets = {
        field.removeprefix(SECRET): text_of(form, field)
        for field in form
        if field.startswith(SECRET)
    }
    return {identity: secret for identity, secret in secrets.items() if secret}


def _connection(form: FormData) -> dict[str, Any]:
    """Read the fields of a cluster without its token."""
    return {
        "name": text_of(form, "name"),
        "description": text_of(form, "description"),
        "hosts": words(text_of(form, "hosts")),
        "tls_mode": text_of(form, "tls_mode"),
        "ca_pem": text_of(form, "ca_pem"),
        "fingerprints": _fingerprints(form),
        "protected": text_of(form, "protected") == "true",
    }


def _fingerprints(form: FormData) -> list[str]:
    """Return the fingerprints that were ticked or entered; raise BadArgument if one is needed."""
    pins = [word for text in texts_of(form, "fingerprint") for word in words(text)]
    if text_of(form, "tls_mode") == TlsMode.PINNED and not pins:
        raise BadArgument(
            "fingerprints",
            "show the hosts' certificates, compare them and tick those to be pinned.",
        )
    return pins
