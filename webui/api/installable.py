"""What a browser needs to install the page as an application: a manifest and icons. Nobody has to log in for them."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, JSONResponse

ICONS = Path(__file__).with_name("static") / "icons"
SIZES = (192, 512)
MANIFEST: dict[str, Any] = {
    "name": "Darkroom",
    "short_name": "Darkroom",
    "description": "Draws pictures with Stable Diffusion, on this machine.",
    "id": "./",
    "start_url": "./",
    "scope": "./",
    "display": "standalone",
    "background_color": "#151312",
    "theme_color": "#151312",
    "categories": ["graphics", "photo"],
    "icons": [
        {"src": "icons/icon.svg", "sizes": "any", "type": "image/svg+xml"},
        *({"src": f"icons/icon-{size}.png", "sizes": f"{size}x{size}", "type": "image/png"} for size in SIZES),
        {"src": "icons/maskable-512.png", "sizes": "512x512", "type": "image/png", "purpose": "maskable"},
    ],
}
"""Its addresses are relative to its own: it holds below a path too."""
NAMES = {icon["src"].removeprefix("icons/"): icon["type"] for icon in MANIFEST["icons"]}
HEADERS = {"Cache-Control": "public, max-age=86400"}


def installable_router() -> APIRouter:
    """The routes, which are the same for everybody."""
    router = APIRouter(include_in_schema=False)

    @router.get("/manifest.webmanifest")
    def manifest() -> JSONResponse:
        return JSONResponse(MANIFEST, media_type="application/manifest+json", headers=HEADERS)

    @router.get("/icons/{name}")
    def icon(name: str) -> FileResponse:
        if name not in NAMES:
            raise HTTPException(404, "there is no such file")
        return FileResponse(ICONS / name, media_type=NAMES[name], headers=HEADERS)

    return router
