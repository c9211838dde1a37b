"""The page at `/`: its files as they are, read once, with the headers that keep a browser from running anything else.

No sign-in is needed for them: they hold no data. What the page shows comes through the HTTP API, with the reader's own key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FOLDER = Path(__file__).parent
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    "": "text/plain; charset=utf-8",
}
"""What is served, by a file's suffix; licences have none."""
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dompurify"
)
"""Scripts and styles are files of this origin; a text becomes nodes through DOMPurify alone (CSP level 3; Trusted Types)."""
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page."""

    content: bytes
    media_type: str
    etag: str


def files() -> dict[str, PageFile]:
    """The page's files by their path under `/page/`."""
    pages = {}
    for path in sorted(_FOLDER.rglob("*")):
        if path.is_file() and path.suffix in _MEDIA_TYPES:
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            pages[path.relative_to(_FOLDER).as_posix()] = PageFile(content, _MEDIA_TYPES[path.suffix], etag)
    return pages


def routes() -> list[Route]:
    """The routes of `/` and `/page/…`; a path that is no file of the page is 404."""
    served = files()

    def response(file: PageFile | None, request: Request) -> Response:
        if file is None:
            return Response("Not found\n", 404, HEADERS, "text/plain; charset=utf-8")
        headers = HEADERS | {"ETag": file.etag}
        if file.etag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers, media_type=file.media_type)

    async def index(request: Request) -> Response:
        return response(served["index.html"], request)

    async def page_file(request: Request) -> Response:
        return response(served.get(request.path_params["path"]), request)

    return [Route("/", index), Route("/page/{path:path}", page_file)]
