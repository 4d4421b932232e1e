"""References of images in registries, as `ghcr.io/owner/app:1.2`."""

import re
from dataclasses import dataclass
from typing import Final, Self

_DOCKER: Final = "docker.io"
_PART = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_REGISTRY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True)
class OciImage:
    """A reference; `registry` is the host that has it, also where the reference leaves it out."""

    repository: str  # as it is written: with the registry, if it names one
    registry: str
    tag: str  # empty if the reference has none

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse a reference; return None for anything else.

        The first part is a registry where it has a dot or a port, is localhost or has a capital, as
        in containers/image; other references are of Docker Hub.
        """
        folders, slash, last = text.rpartition("/")
        name, colon, tag = last.partition(":")
        repository = f"{folders}{slash}{name}"
        first, has_path, path = repository.partition("/")
        if not has_path or _is_of_docker_hub(first):
            first, path = _DOCKER, repository
        if (
            not _REGISTRY.fullmatch(first)
            or not all(map(_PART.fullmatch, path.split("/")))
            or (colon and not _TAG.fullmatch(tag))
        ):
            return None
        return cls(repository, first, tag)

    @property
    def reference(self) -> str:
        return f"{self.repository}:{self.tag}"

    @property
    def url(self) -> str:
        """The address whose host a node contacts first."""
        return f"https://{self.registry}/v2/"


def _is_of_docker_hub(first: str) -> bool:
    return not any(ch in first for ch in ".:") and first == first.lower() and first != "localhost"
