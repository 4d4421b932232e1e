"""Sign-in through an OpenID provider."""

from typing import Any

from proxmox_client.emulator.auth import sign_in
from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.routes.access import signed_in_answer
from proxmox_client.emulator.state.user_config import User


@route("POST", "/access/openid/auth-url")
def auth_url(request: ApiRequest) -> str:
    """POST /access/openid/auth-url."""
    name = request.params["realm"]
    realm = request.state.user_config.realms.get(name)
    if realm is None:
        raise ApiError(f"authentication domain '{name}' does not exist")
    if realm.type != "openid":
        raise ApiError(f"wrong realm type ({realm.type} != openid)")
    return request.backend.openid.begin(realm, request.params["redirect-url"], request.local_node)


@route("POST", "/access/openid/login")
def login(request: ApiRequest) -> dict[str, Any]:
    """POST /access/openid/login."""
    params, config = request.params, request.state.user_config
    userid = request.backend.openid.finish(
        params["state"], params["code"], params["redirect-url"], request.local_node.name
    )
    if userid is None:
        raise sign_in.refusal()
    realm = config.realms.get(userid.rpartition("@")[2])
    if userid not in config.users and realm is not None and realm.autocreate:
        config.users[userid] = User(userid)
    return signed_in_answer(request, sign_in.active_user(request.state, userid).userid)
