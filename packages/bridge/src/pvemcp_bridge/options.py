"""Options of the bridge, declared once for the bridge itself, the subcommands and the docs."""

import argparse
import codecs
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pvemcp_bridge import tls
from pvemcp_bridge.logs import LEVELS, printable
from pvemcp_bridge.target import BadTarget, Target, target
from pvemcp_bridge.tls import Trust, normalize_fingerprint

__all__ = ["OPTIONS", "Option", "Parser", "Settings", "first_positional", "parse", "settings"]


@dataclass(frozen=True)
class Option:
    """One option, as a command line argument and as an environment variable."""

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
    Option("url", "The server's MCP endpoint; may contain the key.", "URL", "-u"),
    Option("api_key", "The API key. Prefer the variable or a file.", "KEY", "-k"),
    Option("api_key_file", "A file that contains the API key.", "FILE"),
    Option("insecure", "Accept any TLS certificate.", short="-i"),
    Option("ca", "The server's certificate authority, in PEM.", "FILE"),
    Option("fingerprint", "The SHA-256 of the only certificate to accept.", "SHA256"),
    Option("header", "An additional HTTP header, 'Name: value'; repeatable.", "HEADER", many=True),
    Option("timeout", "Longest time without data from the server; 0: no limit. [120]", "SECONDS"),
    Option("log_file", "Also write the log to this file.", "FILE"),
    Option("log_level", "debug, info, warning or error. [warning]", "LEVEL"),
)

# What a host of Claude Desktop extensions passes for a setting without a value
_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)  # of a header: a token of RFC 9110
_UNSET = re.compile(r"\A\$\{user_config\.\w+\}\Z")
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Settings:
    """Settings that result from the options."""

    target: Target
    log_file: Path | None
    log_level: str


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and exit with 2."""
        self.exit(2, f"pvemcp-bridge: {printable(message)}. See {self.prog} --help.\n")


def parse(arguments: Sequence[str]) -> Mapping[str, Any]:
    """Parse the command line of the bridge itself; the URL may be the only argument."""
    parser = Parser(
        "pvemcp-bridge", add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    parser.add_argument("positional", nargs="?", metavar="URL")
    for option in OPTIONS:
        action = "store_true" if option.is_switch else "append" if option.many else "store"
        parser.add_argument(*option.flags, dest=option.name, action=action)
    values = vars(parser.parse_args(arguments))
    url = values.pop("positional", None)
    if url and "url" in values:
        parser.error(f"unexpected argument: {url}")
    return {"url": url, **values} if url else values


def first_positional(arguments: Sequence[str]) -> str:
    """Return the first argument that is neither an option nor its value; empty without one."""
    with_value = {flag for option in OPTIONS if not option.is_switch for flag in option.flags}
    rest = iter(arguments)
    for argument in rest:
        if argument in with_value:
            next(rest, None)
        elif not argument.startswith("-"):
            return argument
    return ""


def settings(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Return the settings; arguments override the environment. Raise BadTarget for a bad value."""
    arguments = {name: value for name, value in arguments.items() if value}
    variables = _variables(environ)
    values = variables | arguments
    level = str(values.get("log_level", "warning")).lower()
    if level not in LEVELS:
        raise BadTarget(f"The log level must be one of {', '.join(LEVELS)}.")
    server = target(
        values.get("url", ""),
        _key(arguments) or _key(variables),
        _headers(values.get("header", ())),
        _trust(values),
        _seconds(values.get("timeout", "120")),
    )
    log_file = values.get("log_file")
    return Settings(server, Path(log_file) if log_file else None, level)


def _variables(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for option in OPTIONS:
        text = _UNSET.sub("", environ.get(option.variable, "").strip())
        if option.is_switch:
            if text.lower() not in (*_TRUE, *_FALSE):
                raise BadTarget(f"{option.variable} must be true or false.")
            values[option.name] = text.lower() in _TRUE
        elif text:
            values[option.name] = text.splitlines() if option.many else text
    return values


def _key(values: Mapping[str, Any]) -> str:
    if key := values.get("api_key"):
        return str(key).strip()
    file = values.get("api_key_file")
    if not file:
        return ""
    try:
        content = Path(file).read_bytes()
        is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # of PowerShell
        key = content.decode("utf-16" if is_wide else "utf-8-sig").strip()
    except OSError as error:
        raise BadTarget(f"The API key file {file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise BadTarget(f"The API key file {file} is not text in UTF-8; save it so.") from None
    if not key:
        raise BadTarget(f"The API key file {file} is empty.")
    return key


def unwritable_log(settings: Settings, error: OSError) -> str:
    """Return why the log file of these settings was not opened."""
    return f"The log file {settings.log_file} cannot be written: {error.strerror or error}."


def _headers(lines: Sequence[str]) -> dict[str, str]:
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not (colon and _NAME.fullmatch(name.strip()) and value.strip().isprintable()):
            raise BadTarget("A header must be written 'Name: value'.")
        headers[name.strip()] = value.strip()
    return headers


def _trust(values: Mapping[str, Any]) -> Trust:
    ca_file = Path(values["ca"]) if "ca" in values else None
    if ca_file and not ca_file.is_file():
        problem = "is a folder; name a file" if ca_file.is_dir() else "does not exist"
        raise BadTarget(f"The CA file {ca_file} {problem}.")
    if ca_file and not tls.is_ca_file(ca_file):
        raise BadTarget(f"{ca_file} contains no certificate in PEM.")
    try:
        fingerprint = (
            normalize_fingerprint(values["fingerprint"]) if "fingerprint" in values else ""
        )
    except ValueError as error:
        raise BadTarget(str(error)) from None
    return Trust(ca_file, fingerprint, values["insecure"])


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise BadTarget("The timeout must be a number of seconds.") from None
    if not 0 <= seconds <= 86_400:
        raise BadTarget("The timeout must be between 0 and 86400 seconds.")
    return seconds
