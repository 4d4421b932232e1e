"""OpenID sign-ins: the state that each node keeps, and the provider that users sign in at."""

import json
import secrets
from dataclasses import dataclass
from html import escape
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

from proxmox_client.emulator.http.messages import Response
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.node import Node
from proxmox_client.emulator.state.user_config import Realm

STATE_SECONDS: Final = 600
PAGE: Final = "/openid/authorize"
"""The provider's page, for realms without an issuer of their own."""
_HTML: Final = "text/html;charset=UTF-8"


@dataclass(frozen=True, slots=True)
class _Pending:
    """A sign-in that waits at the provider."""

    realm: str
    node: str
    redirect_url: str
    expires: float


class OpenId:
    """The OpenID sign-ins of one cluster."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._pending: dict[str, _Pending] = {}
        self._codes: dict[str, tuple[str, str]] = {}  # the user and the redirect URL of each

    def begin(self, realm: Realm, redirect_url: str, node: Node) -> str:
        """Return the URL of the provider for a new sign-in through a node."""
        token = secrets.token_urlsafe(16)
        expires = self._state.now + STATE_SECONDS
        self._pending[token] = _Pending(realm.realm, node.name, redirect_url, expires)
        query = {
            "response_type": "code",
            "client_id": realm.client_id,
            "state": json.dumps({"csrf_token": token, "realm": realm.realm}),
            "code_challenge": secrets.token_urlsafe(32),
            "code_challenge_method": "S256",
            "redirect_uri": redirect_url,
            "scope": "openid email profile",
            "nonce": secrets.token_urlsafe(16),
        }
        issuer = realm.issuer_url.rstrip("/")
        page = f"{issuer}/authorize" if issuer else f"https://127.0.0.1:{node.port}{PAGE}"
        return f"{page}?{urlencode(query)}"

    def finish(self, state: str, code: str, redirect_url: str, node: str) -> str | None:
        """Return the ID of the user who signed in, or None; state and code are valid once."""
        try:
            token = str(json.loads(state)["csrf_token"])
        except (ValueError, TypeError, KeyError):
            return None
        pending = self._pending.get(token)
        if pending is None or pending.node != node:
            return None
        del self._pending[token]
        name, used_url = self._codes.pop(code, ("", ""))
        is_same = pending.redirect_url == used_url == redirect_url
        if not name or not is_same or self._state.now > pending.expires:
            return None
        return f"{name}@{pending.realm}"

    def sign_in(self, url: str, name: str) -> str:
        """Sign a user in at the provider; return the URL that it redirects the browser to."""
        query = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
        code = secrets.token_urlsafe(24)
        redirect_url = query["redirect_uri"]
        self._codes[code] = (name, redirect_url)
        separator = "&" if urlsplit(redirect_url).query else "?"
        sent = {"code": code, "state": query["state"]}
        return f"{redirect_url}{separator}{urlencode(sent)}"

    def page(self, query: str) -> Response:
        """Answer a browser at the provider: the users to choose from, or the redirect of one."""
        values = parse_qs(query)
        if "redirect_uri" not in values or "state" not in values:
            return Response(400, content_type=_HTML)
        if name := values.get("login", [""])[0]:
            location = self.sign_in(f"{PAGE}?{query}", name)
            return Response(302, headers=(("Location", location),), content_type=None)
        try:
            realm = json.loads(values["state"][0])["realm"]
        except (ValueError, TypeError, KeyError):
            return Response(400, content_type=_HTML)
        users = self._state.user_config.users.values()
        names = [user.userid.rpartition("@")[0] for user in users if user.realm == realm]
        targets = {name: f"{PAGE}?{query}&{urlencode({'login': name})}" for name in names}
        links = "".join(
            f'<li><a href="{escape(target)}">{escape(name)}</a></li>'
            for name, target in targets.items()
        )
        page = f"<!DOCTYPE html><title>Sign in</title><h1>Sign in as</h1><ul>{links}</ul>"
        return Response(body=page.encode(), content_type=_HTML)
