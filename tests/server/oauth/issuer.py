"""An external authorization server for tests: metadata, keys and tokens, without a socket."""

import json
import time
from typing import Any

import httpx2 as httpx
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

ISSUER = "http://127.0.0.1:9/realms/office"
KEYS = "http://127.0.0.1:9/keys"


class Issuer:
    """Answers requests through `transport`, and signs tokens with its keys by kid."""

    now: int | None = None  # Unix time of its tokens: the present one

    def __init__(self) -> None:
        self.private = {"one": RSAKey.generate_key(2048, {"kid": "one"})}
        self.metadata: dict[str, Any] = {"issuer": ISSUER, "jwks_uri": KEYS}
        self.requests: list[str] = []
        self.answers: dict[str, httpx.Response] = {}  # in place of the usual ones
        self.transport = httpx.MockTransport(self._answer)

    def add_key(self, kid: str) -> None:
        """Publish a further key."""
        self.private[kid] = ECKey.generate_key("P-256", {"kid": kid})

    @property
    def jwks(self) -> dict[str, Any]:
        return {"keys": [key.as_dict(private=False) for key in self.private.values()]}

    def token(self, kid: str = "one", header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Return a token; a claim of None is left out."""
        key = self.private[kid]
        algorithm = "RS256" if isinstance(key, RSAKey) else "ES256"
        whole = {"alg": algorithm, "kid": kid, "typ": "at+jwt"} | (header or {})
        whole = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(whole, self.claims(**claims), key, algorithms=[whole["alg"]])

    def claims(self, **claims: Any) -> dict[str, Any]:
        now = int(time.time()) if self.now is None else self.now
        usual = {"iss": ISSUER, "aud": "https://mcp.example/mcp", "sub": "u-1", "azp": "claude"}
        usual |= {"exp": now + 300, "iat": now, "preferred_username": "alice", "groups": ["ops"]}
        return {name: value for name, value in (usual | claims).items() if value is not None}

    def _answer(self, request: httpx.Request) -> httpx.Response:
        url = str(request.url)
        self.requests.append(url)
        if url in self.answers:
            return self.answers[url]
        documents = {f"{ISSUER}/.well-known/openid-configuration": self.metadata, KEYS: self.jwks}
        if url not in documents:
            return httpx.Response(404)
        return httpx.Response(200, stream=Body(json.dumps(documents[url]).encode()))


class Body(httpx.AsyncByteStream):
    """A body that was not read yet, as that of a real answer."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    async def __aiter__(self):
        yield self.text
