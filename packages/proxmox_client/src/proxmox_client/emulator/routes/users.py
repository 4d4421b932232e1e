"""Users, their tokens and their second factors."""

import secrets
from typing import Any

from proxmox_client.emulator.auth import totp
from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import Call, route
from proxmox_client.emulator.state.people import SecondFactor, Token, User


@route("GET", "/access/users")
def users(call: Call) -> list[dict[str, Any]]:
    """GET /access/users."""
    sees_all = call.rights.has_any("/access/groups", "User.Modify", "Sys.Audit")
    return [
        _user_row(call, user)
        for user in call.state.people.users.values()
        if sees_all or (user.userid == call.caller.userid and not call.caller.token)
    ]


def _user_row(call: Call, user: User) -> dict[str, Any]:
    row: dict[str, Any] = {
        "userid": user.userid,
        "enable": int(user.enabled),
        "expire": user.expire,
        "realm-type": user.realm,
    }
    extra = {
        "comment": user.comment,
        "email": user.email,
        "firstname": user.firstname,
        "lastname": user.lastname,
    }
    row |= {key: value for key, value in extra.items() if value}
    if call.get("full"):
        row |= {
            "groups": ",".join(sorted(user.groups)),
            "tokens": [{"tokenid": name, **_token(token)} for name, token in user.tokens.items()],
        }
    return row


@route("POST", "/access/users")
def create_user(call: Call) -> None:
    """POST /access/users."""
    userid, people = call.params["userid"], call.state.people
    if userid in people.users:
        raise ApiError(f"create user failed: user '{userid}' already exists")
    people.users[userid] = user = User(userid, password=call.get("password", ""))
    _update(user, call)


@route("GET", "/access/users/{userid}")
def user(call: Call) -> dict[str, Any]:
    """GET /access/users/{userid}."""
    found = _user(call)
    shown = {"enable": int(found.enabled), "expire": found.expire, "groups": sorted(found.groups)}
    extra = {
        "comment": found.comment,
        "email": found.email,
        "firstname": found.firstname,
        "tokens": {name: _token(token) for name, token in found.tokens.items()},
    }
    return shown | {key: value for key, value in extra.items() if value}


@route("PUT", "/access/users/{userid}")
def update_user(call: Call) -> None:
    """PUT /access/users/{userid}."""
    _update(_user(call), call)


@route("DELETE", "/access/users/{userid}")
def delete_user(call: Call) -> None:
    """DELETE /access/users/{userid}."""
    found = _user(call)
    del call.state.people.users[found.userid]
    call.state.people.forget("user", found.userid)


@route("GET", "/access/users/{userid}/token")
def tokens(call: Call) -> list[dict[str, Any]]:
    """GET /access/users/{userid}/token."""
    found = _user(call)
    return [{"tokenid": name, **_token(token)} for name, token in found.tokens.items()]


@route("GET", "/access/users/{userid}/token/{tokenid}")
def token(call: Call) -> dict[str, Any]:
    """GET /access/users/{userid}/token/{tokenid}."""
    return _token(_find_token(call))


@route("POST", "/access/users/{userid}/token/{tokenid}")
def create_token(call: Call) -> dict[str, Any]:
    """POST /access/users/{userid}/token/{tokenid}: the secret is shown this once."""
    found, name = _user(call), call.params["tokenid"]
    if name in found.tokens:
        raise call.bad(tokenid="Token already exists.")
    text = secrets.token_hex(16)
    secret = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
    made = Token(name, secret, bool(call.get("privsep", True)), call.get("expire", 0))
    made.comment = call.get("comment", "")
    found.tokens[name] = made
    # Given values come back as they were sent, which is as texts
    info = {
        key: str(int(value))
        for key in ("privsep", "expire")
        if (value := call.get(key)) is not None
    }
    info.setdefault("privsep", "1")
    if made.comment:
        info["comment"] = made.comment
    return {"full-tokenid": f"{found.userid}!{name}", "info": info, "value": secret}


@route("DELETE", "/access/users/{userid}/token/{tokenid}")
def delete_token(call: Call) -> None:
    """DELETE /access/users/{userid}/token/{tokenid}."""
    found = _find_token(call)
    del _user(call).tokens[found.name]
    call.state.people.forget("token", f"{call.params['userid']}!{found.name}")


@route("GET", "/access/tfa")
def second_factors(call: Call) -> list[dict[str, Any]]:
    """GET /access/tfa."""
    return [
        {"userid": user.userid, "entries": [_factor(factor) for factor in user.factors]}
        for user in call.state.people.users.values()
        if user.factors
    ]


@route("GET", "/access/tfa/{userid}")
def second_factors_of(call: Call) -> list[dict[str, Any]]:
    """GET /access/tfa/{userid}."""
    return [_factor(factor) for factor in _user(call).factors]


@route("POST", "/access/tfa/{userid}")
def add_second_factor(call: Call) -> dict[str, Any]:
    """POST /access/tfa/{userid}."""
    found, kind = _user(call), call.params["type"]
    secret = totp.secret_of(call.get("totp", "")) if kind == "totp" else secrets.token_hex(8)
    if kind == "totp" and not totp.accepts(secret, call.get("value", ""), call.now):
        raise ApiError("failed to verify TOTP challenge", status=400)
    name = secrets.token_hex(16)
    found.factors.append(
        SecondFactor(name, kind, secret, call.get("description", ""), int(call.now))
    )
    return {"id": name} | ({"recovery": [secret]} if kind == "recovery" else {})


@route("DELETE", "/access/tfa/{userid}/{id}")
def remove_second_factor(call: Call) -> None:
    """DELETE /access/tfa/{userid}/{id}."""
    found = _user(call)
    kept = [factor for factor in found.factors if factor.id != call.params["id"]]
    if len(kept) == len(found.factors):
        raise ApiError(f"no such TFA entry '{call.params['id']}'")
    found.factors[:] = kept


def _factor(factor: SecondFactor) -> dict[str, Any]:
    return {
        "id": factor.id,
        "type": factor.kind,
        "description": factor.description,
        "created": factor.created,
    }


def _user(call: Call) -> User:
    userid = call.params["userid"]
    if userid not in call.state.people.users:
        raise ApiError(f"no such user ('{userid}')")
    return call.state.people.users[userid]


def _update(user: User, call: Call) -> None:
    user.enabled = call.get("enable", user.enabled)
    user.expire = call.get("expire", user.expire)
    for name in ("comment", "email", "firstname", "lastname"):
        setattr(user, name, call.get(name, getattr(user, name)))
    if "groups" in call.params:
        named = {name for name in str(call.params["groups"]).split(",") if name}
        user.groups = named | (user.groups if call.get("append") else set())


def _find_token(call: Call) -> Token:
    found, name = _user(call), call.params["tokenid"]
    if name not in found.tokens:
        raise ApiError(f"no such token '{name}' for user '{found.userid}'")
    return found.tokens[name]


def _token(token: Token) -> dict[str, Any]:
    shown: dict[str, Any] = {"privsep": int(token.privsep), "expire": token.expire}
    return shown | ({"comment": token.comment} if token.comment else {})
