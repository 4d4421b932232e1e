"""Write the tables of docs/reference/configuration.md from Config and Settings.

python scripts/make_docs_configuration.py           update them
python scripts/make_docs_configuration.py --check   fail when they are outdated
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from pages import renew_or_check
from pvemcp_server.config import Config
from pvemcp_server.settings import declared_settings

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "configuration.md"


def page(text: str) -> str:
    """Return the page with both tables replaced by the current ones."""
    for name, table in (("environment", _environment()), ("settings", _settings())):
        begin, end = f"<!-- {name}: generated -->", f"<!-- end of {name} -->"
        head, _, rest = text.partition(begin)
        text = "\n".join([head + begin, "", *table, "", end + rest.partition(end)[2]])
    return text


def _environment() -> Iterator[str]:
    yield "| variable | default | |"
    yield "|---|---|---|"
    for name, field in Config.model_fields.items():
        secret = SecretStr in (field.annotation, *get_args(field.annotation))
        mark = " (secret)" if secret else ""
        default = _default(field.default)
        yield f"| `PVEMCP_{name.upper()}` | {default} | {field.description}{mark} |"


def _settings() -> Iterator[str]:
    yield "| setting | default | values | |"
    yield "|---|---|---|---|"
    for setting in declared_settings():
        values = _values(setting.schema)
        text = f"**{setting.title}**: {setting.description}"
        yield f"| `{setting.name}` | {_default(setting.default)} | {values} | {text} |"


def _values(schema: Any) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "minimum" in schema:
        return f"{schema['minimum']:,} to {schema['maximum']:,}"
    return {"boolean": "`true`, `false`", "array": "a list of words"}.get(schema["type"], "text")


def _default(default: Any) -> str:
    if default is PydanticUndefined or default in (None, (), ""):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{', '.join(default) if isinstance(default, tuple) else default}`"


if __name__ == "__main__":
    renew_or_check(PAGE, page(PAGE.read_text()))
