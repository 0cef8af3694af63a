"""Preview pictures of files: where the page finds them, and how they are sent."""

from urllib.parse import urlencode

from fastapi import HTTPException, Response

from webui.core.files import LoraFile, ModelFile
from webui.library.lora_info import read_preview

# A stranger's picture is a picture, whatever else its bytes would make of it.
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=300"}


def preview_url(prefix: str, name: str) -> str:
    """Relative, so that it holds behind a proxy that serves the page below a path."""
    return f"{prefix.lstrip('/')}/preview?{urlencode({'name': name})}"


def answer_preview(file: LoraFile | ModelFile | None) -> Response:
    """The file's picture; 404 where there is none."""
    picture = read_preview(file) if file else None
    if picture is None:
        raise HTTPException(404, "there is no preview picture with this name")
    return Response(picture[0], media_type=picture[1], headers=HEADERS)
