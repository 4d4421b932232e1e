"""Static files of the admin pages, served from memory: a slow download holds no file open."""

import mimetypes
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER: Final = Path(__file__).with_name("static")


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file's content, its media type, and its hash in hexadecimal digits."""

    content: bytes
    media_type: str
    digest: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file."""
        content = path.read_bytes()
        media_type = mimetypes.guess_type(path.name)[0] or "text/plain"
        return cls(content, media_type, sha256(content).hexdigest())


FILES: Final = {path.name: StaticFile.read(path) for path in sorted(FOLDER.iterdir())}


def static_url(name: str) -> str:
    """Return a file's URL with a hash of its content, so that caches load a new release."""
    return f"/admin/static/{name}?v={FILES[name].digest[:8]}"


async def serve_static(request: Request) -> Response:
    """Answer with the file, or with 304 to a cache that has it."""
    file = FILES.get(request.path_params["name"])
    if file is None:
        raise HTTPException(404)
    headers = {"ETag": f'"{file.digest}"'}
    if headers["ETag"] in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


static_route: Final = Route("/static/{name}", serve_static)  # GET and HEAD
