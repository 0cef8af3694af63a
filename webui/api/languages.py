"""``/languages``: the words of languages beside English, for pages. Nobody has to log in for them."""

from fastapi import APIRouter, HTTPException
from fastapi.responses import Response

from webui import languages

HEADERS = {"Cache-Control": "no-cache"}


def languages_router() -> APIRouter:
    """The routes, which are the same for everybody."""
    router = APIRouter(include_in_schema=False)
    scripts = {code: languages.script(code) for code in languages.names()} | {"choose": languages.choose()}

    @router.get("/languages/{name}.js")
    def words(name: str) -> Response:
        if name not in scripts:
            raise HTTPException(404, "there is no such file")
        return Response(scripts[name], media_type="text/javascript", headers=HEADERS)

    return router
