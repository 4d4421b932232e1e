"""Build hook: a wheel that is built in a checkout takes the sibling packages from there."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Siblings(BuildHookInterface[Any]):
    """Adds the sibling packages as file URLs, so that `pip install ./packages/server` finds them.

    A source distribution names ranges only, because the hook runs for wheels; so does a wheel that
    is built from one, which has no siblings beside it. HATCH_BUILD_NO_HOOKS=true makes the same
    wheel in a checkout: those of a release are built so.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's
        """Add `name @ file://…` for each sibling; none to an editable install.

        They come first, because pip asks an index for a range as soon as it reads one without a
        URL before it.
        """
        sources = self.metadata.config["tool"]["uv"]["sources"]
        places = {name: Path(self.root, each["path"]).resolve() for name, each in sources.items()}
        is_checkout = all((place / "pyproject.toml").is_file() for place in places.values())
        if version == "standard" and is_checkout:
            urls = [f"{name} @ {place.as_uri()}" for name, place in places.items()]
            self.metadata.core.dependencies[:0] = urls
