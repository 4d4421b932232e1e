"""Masking of secrets in arguments and texts before they are stored."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import isfinite
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, SecretBytes, SecretStr

from pvemcp_server.store.key_format import KEY_LIKE, PREFIX

MASK = "***"
DEEPEST: Final = 32  # levels of nesting; no argument has more, and hundreds exceed the stack
LONGEST: Final = 25_000  # characters that are searched; what is stored or shown is shorter
MOST_ITEMS: Final = 3_000  # members and entries at any depth: each takes time, however short it is
_CUT: Final = "…"
# the length of a scheme is bounded; otherwise a long word takes quadratic time
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}+://[^\s\"'<>]+")
# names of what is secret, at the end of a longer one too: `vncticket`, `AWS_SECRET_ACCESS_KEY`
NAMES_OF_VALUES: Final = (
    r"passw(?:or)?d|passphrase|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|credentials?"
    r"|authorization|cookie|csrf\w{0,30}+|\bpsk|ticket"
)
# a text in quotes, also one that was cut or is in JSON within JSON, or a word
VALUE: Final = r"(?:\\+[\"'][^\"']*|\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?|[^\s\"',;&]+)"
# a quick test, because most texts contain no secret
SUSPECT: Final = re.compile(
    rf"://|{PREFIX}_|PVE|PRIVATE KEY|authorization|cookie|![\w.-]{{1,64}}+[=:]"
    rf"|(?:{NAMES_OF_VALUES})(?:\s{{0,3}}=|\\*[\"'])",
    re.IGNORECASE,
)
# lengths are bounded where a long text could take quadratic time; *** is masked already
_PATTERNS: Final = (
    (re.compile(r"(password=)\S+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"(PVEAPIToken=[^\s=]+=)\S+", re.IGNORECASE), rf"\1{MASK}"),
    (
        re.compile(r"(![\w.-]{1,64}+[=:] ?)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        rf"\1{MASK}",
    ),
    (re.compile(r"\bPVE(?:VNC|TUNNEL)?:[^\s:]+:[0-9A-F]{8}::\S+"), MASK),  # a ticket of Proxmox
    (
        re.compile(
            r"(?s)-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?"
            r"(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)"
        ),
        MASK,
    ),
    (
        re.compile(
            r"((?:authorization|cookie)\\*[\"']?\s{0,3}[:=]\s{0,3}\\*[\"']?)"
            r"(?!PVEAPIToken=|\*{3})[^\s\"'][^\r\n\"']*",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (
        re.compile(
            rf"((?:{NAMES_OF_VALUES})(?:\s{{0,3}}=\s{{0,3}}|\\*[\"']\s{{0,3}}[:=]\s{{0,3}}))"
            rf"(?!\*{{3}}|[^\s=]{{1,100}}=\*{{3}}){VALUE}",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (KEY_LIKE, rf"\1{MASK}"),
)
# of members that no tool declares: parameters of CallApi, and what a model invents. `token` alone
# is none: changes by administrators record its id under that name
_SECRET_MEMBER: Final = re.compile(
    r"(?:.*[-_./])?(?:pass(?:word|wd|phrase)?|secret|(?:api|access|auth|private)[-_]?key|ticket"
    r"|(?:api|access|auth|bearer|id|refresh|session)[-_]?token|authorization|cookie|t?otp"
    r"|credentials?|psk)|cipassword",
    re.IGNORECASE,
)
# of members of calls by clients; changes by administrators record the id of a token by that name
SECRET_OF_CLIENTS: Final = frozenset({"token"})
# of parameters of Proxmox's API, and of values in what it answers
SECRET_PARAMETER: Final = re.compile(
    r"(?:.*[-_./])?(?:pass(?:word|wd|phrase)?|secret"
    r"|(?:api|auth|priv|private|secret|access|encryption|hmac)?[-_]?key"
    r"|ticket|cookie|token|t?otp|credentials?|psk)|cipassword|csrfpreventiontoken|keyring|recovery"
    r"|yubico|otel-headers|keys",  # the keys of a user are those of one-time passwords
    re.IGNORECASE,
)
_PARAMETERS: Final = "parameters"  # the argument with parameters of Proxmox's API
_PAIR: Final = re.compile(r"\s*([^\s=]{1,100}+)\s*=")
# of those too, if they have a name beside them: headers and body of a webhook, credentials of a DNS
# API. A record may lack the name beside, so it never has their values.
SECRET_BESIDE: Final[Mapping[str, frozenset[str]]] = {
    "url": frozenset({"header", "body"}),
    "plugin": frozenset({"data"}),
    "api": frozenset({"data"}),
}
_NEVER_RECORDED: Final = frozenset[str]().union(*SECRET_BESIDE.values())

# an item of a list, as of the arguments of a program
_SECRET_OPTION: Final = re.compile(rf"--?[\w-]{{0,60}}?(?:{NAMES_OF_VALUES})", re.IGNORECASE)


def mask(value: Any, secret_fields: Collection[str] = (), levels: int = DEEPEST) -> Any:
    """Mask secrets: fields that are declared or named so, and what `mask_text` finds in texts.

    `secret_fields` are names of arguments, at any depth; `secret_fields_of` returns those of a
    model. Values nested deeper than `levels` are masked as a whole, and NaN and the infinities are
    texts. What is beyond the first LONGEST characters or MOST_ITEMS items is left out. The function
    is idempotent, but at the end of what is cut.
    """
    return _Masker(secret_fields).value(value, levels)


@dataclass
class _Masker:
    """Masks one value with all that it holds, in a time that is bounded."""

    secret_fields: Collection[str]
    left: int = LONGEST  # characters
    items: int = MOST_ITEMS  # members of mappings and entries of lists

    def value(self, value: Any, levels: int, *, of_api: bool = False) -> Any:
        if isinstance(value, Mapping):
            members = {}
            for name, inner in value.items():
                self.items -= 1
                if self.items < 0:
                    members[_CUT] = _CUT
                    break
                members[self.text(str(name))] = (
                    MASK
                    if not levels or self._is_secret(str(name), of_api=of_api)
                    else self.value(inner, levels - 1, of_api=of_api or name == _PARAMETERS)
                )
            return members
        if isinstance(value, list | tuple | set | frozenset):
            return list(self._items(value, levels - 1, of_api=of_api))
        if isinstance(value, str):
            pair = _PAIR.match(value) if of_api else None
            if pair and self._is_secret(pair[1], of_api=True):
                return self.text(f"{pair[1]}={MASK}")
            return self.text(value)
        if isinstance(value, SecretStr | SecretBytes):
            return MASK
        if isinstance(value, float) and not isfinite(value):
            return str(value)  # JSON has no such number, so readers would drop the whole entry
        return value

    def _is_secret(self, name: str, *, of_api: bool) -> bool:
        if of_api and (name in _NEVER_RECORDED or SECRET_PARAMETER.fullmatch(name)):
            return True
        return name in self.secret_fields or _SECRET_MEMBER.fullmatch(name) is not None

    def _items(self, items: Iterable[Any], levels: int, *, of_api: bool) -> Iterator[Any]:
        """Yield the items; the one after an option is its value: `--password`, then the secret."""
        follows = False
        for item in items:
            self.items -= 1
            if self.items < 0:
                yield _CUT
                break
            is_value = levels < 0 or (follows and isinstance(item, str))
            yield MASK if is_value else self.value(item, levels, of_api=of_api)
            follows = isinstance(item, str) and bool(_SECRET_OPTION.fullmatch(item))

    def text(self, text: str) -> str:
        masked = mask_text(text, self.left)
        self.left = max(0, self.left - len(text))
        return masked


@cache
def secret_fields_of(model: type[BaseModel]) -> frozenset[str]:
    """Return the names of the model's secret fields: SecretStr or `writeOnly`."""
    return frozenset(_secret_names(model.model_json_schema()))


def mask_text(text: str, longest: int = LONGEST) -> str:
    """Mask what looks like a secret in a text: by its form, its header or the name before it.

    These are API keys, tokens and tickets of Proxmox, private keys, `password=…` and its kind, and
    user, query and fragment of URLs. A colon after a name is no assignment here, as it is in a log:
    sentences have one. The cost is linear in the length, and a longer text is cut.
    """
    if len(text) > longest:
        text = f"{text[:longest]}…"
    if not SUSPECT.search(text):
        return text
    for pattern, masked in _PATTERNS:
        text = pattern.sub(masked, text)
    return URL.sub(lambda match: _mask_url(match.group()), text)


def _mask_url(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # it only begins like a URL
        return MASK
    _, at, host = parts.netloc.rpartition("@")
    netloc = f"{MASK}@{host}" if at else host
    query, fragment = (MASK if secret else "" for secret in (parts.query, parts.fragment))
    return urlunsplit((parts.scheme, netloc, parts.path, query, fragment))


def _secret_names(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for inner in schema:
            yield from _secret_names(inner)
    elif isinstance(schema, dict):
        for name, inner in schema.get("properties", {}).items():
            if _is_secret(inner):
                yield name
        for inner in schema.values():
            yield from _secret_names(inner)


def _is_secret(schema: Mapping[str, Any]) -> bool:
    """Return whether any of the types is secret: an optional secret is a secret."""
    return bool(schema.get("writeOnly")) or any(map(_is_secret, schema.get("anyOf", ())))
