"""The options of the bridge, declared once for the fast path, the subcommands and the docs."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pvemcp_bridge import tls
from pvemcp_bridge.logs import LEVELS
from pvemcp_bridge.target import BadTarget, Target, target
from pvemcp_bridge.tls import Trust, normal_fingerprint

__all__ = ["OPTIONS", "Option", "Settings", "parse", "settings"]


@dataclass(frozen=True)
class Option:
    """One option: an argument and an environment variable."""

    name: str
    help: str
    metavar: str = ""
    short: str = ""
    many: bool = False

    @property
    def flags(self) -> tuple[str, ...]:
        long = "--" + self.name.replace("_", "-")
        return (long, self.short) if self.short else (long,)

    @property
    def variable(self) -> str:
        return "MCP_" + self.name.upper()

    @property
    def is_switch(self) -> bool:
        return not self.metavar


OPTIONS = (
    Option("url", "The server's MCP endpoint; one that holds the key is enough.", "URL", "-u"),
    Option("api_key", "The API key. Prefer the variable or a file.", "KEY", "-k"),
    Option("api_key_file", "A file with the API key in it.", "FILE"),
    Option("insecure", "Accept any TLS certificate.", short="-i"),
    Option("ca", "The certificate authority of the server, in PEM.", "FILE"),
    Option("fingerprint", "The SHA-256 of the only certificate to accept.", "SHA256"),
    Option("header", "A further HTTP header, 'Name: value'; repeatable.", "HEADER", many=True),
    Option("timeout", "Longest silence while a reply is awaited; 0: for ever. [120]", "SECONDS"),
    Option("log_file", "Write the log to this file too.", "FILE"),
    Option("log_level", "debug, info, warning or error. [warning]", "LEVEL"),
)

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Settings:
    """What the options come to."""

    target: Target
    log_file: Path | None
    log_level: str


def parse(arguments: Sequence[str]) -> Mapping[str, Any]:
    """The options given on the command line of a bridge that carries; a lone URL is one too."""
    parser = argparse.ArgumentParser(
        "pvemcp-bridge", add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    parser.add_argument("positional", nargs="?", metavar="URL")
    for option in OPTIONS:
        _add(parser, option)
    given = vars(parser.parse_args(arguments))
    alone = given.pop("positional", None)
    return {"url": alone, **given} if alone else given


def _add(parser: argparse.ArgumentParser, option: Option) -> None:
    action = "store_true" if option.is_switch else "append" if option.many else "store"
    parser.add_argument(*option.flags, dest=option.name, action=action)


def settings(given: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """The settings, arguments before environment; BadTarget says what cannot be used."""
    arguments = {name: value for name, value in given.items() if value}
    variables = _variables(environ)
    chosen = variables | arguments
    level = str(chosen.get("log_level", "warning")).lower()
    if level not in LEVELS:
        raise BadTarget(f"The log level is one of {', '.join(LEVELS)}.")
    server = target(
        chosen.get("url", ""),
        _key(arguments) or _key(variables),
        _headers(chosen.get("header", ())),
        _trust(chosen),
        _seconds(chosen.get("timeout", "120")),
    )
    log_file = chosen.get("log_file")
    return Settings(server, Path(log_file) if log_file else None, level)


def _variables(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for option in OPTIONS:
        text = environ.get(option.variable, "").strip()
        if option.is_switch:
            values[option.name] = _switch(option, text)
        elif text:
            values[option.name] = text.splitlines() if option.many else text
    return values


def _switch(option: Option, text: str) -> bool:
    if text.lower() not in (*_TRUE, *_FALSE):
        raise BadTarget(f"{option.variable} is true or false.")
    return text.lower() in _TRUE


def _key(source: Mapping[str, Any]) -> str:
    if key := source.get("api_key"):
        return str(key).strip()
    file = source.get("api_key_file")
    if not file:
        return ""
    try:
        return Path(file).read_text("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadTarget(f"The API key file cannot be read: {error}.") from None


def _headers(lines: Sequence[str]) -> dict[str, str]:
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not (colon and name.strip() and value.strip().isprintable()):
            raise BadTarget("A header is written 'Name: value'.")
        headers[name.strip()] = value.strip()
    return headers


def _trust(chosen: Mapping[str, Any]) -> Trust:
    ca_file = Path(chosen["ca"]) if "ca" in chosen else None
    if ca_file and not ca_file.is_file():
        raise BadTarget(f"There is no CA file {ca_file}.")
    if ca_file and not tls.is_authority(ca_file):
        raise BadTarget(f"{ca_file} holds no certificate in PEM.")
    try:
        pin = normal_fingerprint(chosen["fingerprint"]) if "fingerprint" in chosen else ""
    except ValueError as error:
        raise BadTarget(str(error)) from None
    return Trust(ca_file, pin, chosen["insecure"])


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise BadTarget("The timeout is a number of seconds.") from None
    if not 0 <= seconds <= 86_400:
        raise BadTarget("The timeout is between 0 and 86400 seconds.")
    return seconds
