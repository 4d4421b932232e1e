"""Users, API tokens and second factors."""

import secrets
from typing import Any
from uuid import uuid4

from proxmox_client.emulator.auth import totp
from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.state.user_config import SecondFactor, Token, User


@route("GET", "/access/users")
def list_users(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /access/users."""
    sees_all = request.rights.has_any("/access/groups", "User.Modify", "Sys.Audit")
    return [
        _user_row(request, user)
        for user in request.state.user_config.users.values()
        if sees_all or (user.userid == request.principal.userid and not request.principal.token)
    ]


def _user_row(request: ApiRequest, user: User) -> dict[str, Any]:
    row: dict[str, Any] = {
        "userid": user.userid,
        "enable": int(user.enabled),
        "expire": user.expire,
    }
    if realm := request.state.user_config.realms.get(user.realm):
        row["realm-type"] = realm.type
    row |= _lock(user, request.now)
    extra = {
        "comment": user.comment,
        "email": user.email,
        "firstname": user.firstname,
        "lastname": user.lastname,
    }
    row |= {key: value for key, value in extra.items() if value}
    if request.get("full"):
        row |= {
            "groups": ",".join(sorted(user.groups)),
            "tokens": [
                {"tokenid": name, **_token_row(token)} for name, token in user.tokens.items()
            ]
            or None,
        }
    return row


@route("POST", "/access/users")
def create_user(request: ApiRequest) -> None:
    """POST /access/users."""
    userid, config = request.params["userid"], request.state.user_config
    if userid in config.users:
        raise ApiError(f"create user failed: user '{userid}' already exists")
    groups = [name for name in str(request.get("groups", "")).split(",") if name]
    if missing := next((name for name in groups if name not in config.groups), None):
        raise ApiError(f"create user failed: no such group '{missing}'")
    config.users[userid] = user = User(userid, password=request.get("password", ""))
    _update(user, request)


@route("GET", "/access/users/{userid}")
def get_user(request: ApiRequest) -> dict[str, Any]:
    """GET /access/users/{userid}."""
    user = _user(request)
    details = {"enable": int(user.enabled), "expire": user.expire, "groups": sorted(user.groups)}
    extra = {
        "comment": user.comment,
        "email": user.email,
        "firstname": user.firstname,
    }
    tokens = {name: _token_row(token) for name, token in user.tokens.items()}
    details |= {key: value for key, value in extra.items() if value}
    return details | {"tokens": tokens or None}


@route("PUT", "/access/users/{userid}")
def update_user(request: ApiRequest) -> None:
    """PUT /access/users/{userid}."""
    _update(_user(request, "update user failed: "), request)


@route("DELETE", "/access/users/{userid}")
def delete_user(request: ApiRequest) -> None:
    """DELETE /access/users/{userid}."""
    userid, config = request.params["userid"], request.state.user_config
    config.users.pop(userid, None)
    config.remove_acl("user", userid)


@route("GET", "/access/users/{userid}/token")
def list_tokens(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /access/users/{userid}/token."""
    user = _user(request)
    return [{"tokenid": name, **_token_row(token)} for name, token in user.tokens.items()]


@route("GET", "/access/users/{userid}/token/{tokenid}")
def get_token(request: ApiRequest) -> dict[str, Any]:
    """GET /access/users/{userid}/token/{tokenid}."""
    return _token_row(_find_token(request))


@route("POST", "/access/users/{userid}/token/{tokenid}")
def create_token(request: ApiRequest) -> dict[str, Any]:
    """POST /access/users/{userid}/token/{tokenid}: the only response with the secret."""
    user, name = _user(request), request.params["tokenid"]
    if name in user.tokens:
        raise request.invalid(tokenid="Token already exists.")
    secret = str(uuid4())
    token = Token(name, secret, bool(request.get("privsep", True)), request.get("expire", 0))
    token.comment = request.get("comment", "")
    user.tokens[name] = token
    # The response repeats the parameters of the request as text
    info = {
        key: str(int(value))
        for key in ("privsep", "expire")
        if (value := request.get(key)) is not None
    }
    info.setdefault("privsep", "1")
    if token.comment:
        info["comment"] = token.comment
    return {"full-tokenid": f"{user.userid}!{name}", "info": info, "value": secret}


@route("PUT", "/access/users/{userid}/token/{tokenid}")
def update_token(request: ApiRequest) -> dict[str, Any]:
    """PUT /access/users/{userid}/token/{tokenid}; with regenerate=1 the secret is replaced."""
    token = _find_token(request)
    token.comment = request.get("comment", token.comment)
    token.expire = request.get("expire", token.expire)
    token.privsep = request.get("privsep", token.privsep)
    row = _token_row(token)
    if "expire" in request.params:
        row["expire"] = str(token.expire)
    if request.get("regenerate"):
        token.secret = str(uuid4())
        row |= {"value": token.secret}
        row["full-tokenid"] = f"{request.params['userid']}!{token.name}"
    return row


@route("DELETE", "/access/users/{userid}/token/{tokenid}")
def delete_token(request: ApiRequest) -> None:
    """DELETE /access/users/{userid}/token/{tokenid}."""
    token = _find_token(request)
    del _user(request).tokens[token.name]
    request.state.user_config.remove_acl("token", f"{request.params['userid']}!{token.name}")


@route("GET", "/access/tfa")
def second_factors(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /access/tfa."""
    sees_all = request.rights.has_any("/access/groups", "User.Modify", "Sys.Audit")
    return [
        {"userid": user.userid, "entries": [_factor_row(factor) for factor in user.factors]}
        | _lock(user, request.now)
        for user in request.state.user_config.users.values()
        if user.factors and (sees_all or user.userid == request.principal.name)
    ]


@route("GET", "/access/tfa/{userid}")
def second_factors_of(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /access/tfa/{userid}."""
    return [_factor_row(factor) for factor in _user(request).factors]


@route("POST", "/access/tfa/{userid}")
def add_second_factor(request: ApiRequest) -> dict[str, Any]:
    """POST /access/tfa/{userid}."""
    user, kind = _user(request), request.params["type"]
    secret = totp.secret_of(request.get("totp", "")) if kind == "totp" else _recovery_keys()
    if kind == "totp" and not totp.period_of(secret, request.get("value", ""), request.now):
        raise ApiError("failed to verify TOTP challenge", status=400)
    name = secrets.token_hex(16)
    user.factors.append(
        SecondFactor(name, kind, secret, request.get("description", ""), int(request.now))
    )
    return {"id": name} | ({"recovery": secret.split()} if kind == "recovery" else {})


@route("DELETE", "/access/tfa/{userid}/{id}")
def remove_second_factor(request: ApiRequest) -> None:
    """DELETE /access/tfa/{userid}/{id}."""
    user = _user(request)
    remaining = [factor for factor in user.factors if factor.id != request.params["id"]]
    if len(remaining) == len(user.factors):
        raise ApiError(f"no such TFA entry '{request.params['id']}'")
    user.factors[:] = remaining


@route("PUT", "/access/users/{userid}/unlock-tfa")
def unlock_second_factors(request: ApiRequest) -> int:
    """PUT /access/users/{userid}/unlock-tfa: whether they were locked."""
    user = _user(request)
    was_locked = bool(_lock(user, request.now))
    user.totp_locked, user.totp_failures = False, 0
    user.tfa_locked_until, user.tfa_failures = 0.0, 0
    return int(was_locked)


def _lock(user: User, now: float) -> dict[str, Any]:
    is_locked = now < user.tfa_locked_until
    until = {"tfa-locked-until": int(user.tfa_locked_until)} if is_locked else {}
    return until | ({"totp-locked": 1} if user.totp_locked else {})


def _recovery_keys() -> str:
    """Return ten new recovery keys like 01ab-23cd-45ef-6789."""
    groups = [[secrets.token_hex(2) for _ in range(4)] for _ in range(10)]
    return " ".join("-".join(group) for group in groups)


def _factor_row(factor: SecondFactor) -> dict[str, Any]:
    return {
        "id": factor.id,
        "type": factor.kind,
        "description": factor.description,
        "created": factor.created,
    }


def _user(request: ApiRequest, beginning: str = "") -> User:
    userid = request.params["userid"]
    if userid not in request.state.user_config.users:
        raise ApiError(f"{beginning}no such user ('{userid}')")
    return request.state.user_config.users[userid]


def _update(user: User, request: ApiRequest) -> None:
    user.enabled = request.get("enable", user.enabled)
    user.expire = request.get("expire", user.expire)
    for name in ("comment", "email", "firstname", "lastname"):
        setattr(user, name, request.get(name, getattr(user, name)))
    if "groups" in request.params:
        groups = {name for name in str(request.params["groups"]).split(",") if name}
        user.groups = groups | (user.groups if request.get("append") else set())


def _find_token(request: ApiRequest) -> Token:
    user, name = _user(request), request.params["tokenid"]
    if name not in user.tokens:
        raise ApiError(f"no such token '{name}' for user '{user.userid}'")
    return user.tokens[name]


def _token_row(token: Token) -> dict[str, Any]:
    details: dict[str, Any] = {"privsep": int(token.privsep), "expire": token.expire}
    return details | ({"comment": token.comment} if token.comment else {})
