"""``/api/openapi.json``: what our routes take and answer, with examples. Gradio's own are not ours to promise."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi

from webui.core.request import Request

TITLE = "Darkroom"
JOB = "0123456789abcdef0123456789abcdef"
ERRORS = {
    "400": "The body cannot be read.",
    "401": "Log in, or send name and password as HTTP Basic.",
    "403": "Another site's page asks, or this server does not go by that name, or it is not for guests.",
    "404": "There is no such job, picture or name.",
    "409": "Not in the state that it is in, or the name is taken.",
    "411": "The length of the body is not said.",
    "413": "The body is larger than this route takes.",
    "422": "A value is missing, of another kind or out of bounds; the detail names it and says why.",
    "429": "More than one visitor may have at once or in an hour; `Retry-After` says when to come back.",
    "500": "A fault of the server, or the picture could not be drawn.",
    "503": "The queue is full, or the server ends; `Retry-After` may say when to come back.",
    "507": "The server's disk has no room.",
}
ALWAYS = ("401", "403", "422", "429", "503")
FOR_A_BODY = ("413", "507")
OF_MANY = (
    "/api/history/delete",
    "/api/history/restore",
    "/api/history/marks",
    "/api/history/zip",
    "/api/history/boards",
)

DRAWN = {
    **{"prompt": "string", "negative_prompt": "string", "seed": "integer", "steps": "integer", "cfg_scale": "number"},
    **{"width": "integer", "height": "integer", "sampler_name": "string", "batch_size": "integer", "n_iter": "integer"},
    **{"override_settings": "object", "send_images": "boolean", "save_images": "boolean"},
}
AS_TEXT = {"type": "string"}
AS_FILE = {"type": "string", "format": "binary"}


def _of(**kinds: str) -> dict[str, Any]:
    """An object of such fields, and of others, which A1111's clients send too."""
    return {"type": "object", "properties": {name: {"type": kind} for name, kind in kinds.items()}}


BODIES: Mapping[tuple[str, str], tuple[Mapping[str, Any], Any]] = {
    ("post", "/api/jobs"): (
        {"anyOf": [{"$ref": "#/components/schemas/Request"}, {"$ref": "#/components/schemas/Grid"}]},
        {"prompt": "a red apple, flat style", "steps": 20},
    ),
    ("post", "/api/tokens"): (_of(prompt="string", model="string"), {"prompt": "a red apple", "model": "demo"}),
    ("post", "/sdapi/v1/txt2img"): (
        _of(**DRAWN),
        {"prompt": "a red apple", "steps": 20, "width": 128, "height": 128},
    ),
    ("post", "/sdapi/v1/img2img"): (
        _of(**DRAWN, init_images="array", mask="string", denoising_strength="number", inpainting_fill="integer"),
        {"prompt": "a red apple", "init_images": ["BASE64"], "denoising_strength": 0.6},
    ),
    ("post", "/sdapi/v1/options"): (_of(sd_model_checkpoint="string"), {"sd_model_checkpoint": "demo"}),
    ("post", "/sdapi/v1/png-info"): (_of(image="string"), {"image": "BASE64"}),
    ("post", "/controlnet/detect"): (
        _of(controlnet_module="string", controlnet_input_images="array", controlnet_processor_res="integer"),
        {"controlnet_module": "canny", "controlnet_input_images": ["BASE64"]},
    ),
    ("put", "/api/models/files"): (AS_FILE, None),
    ("post", "/api/models/files/check"): (AS_FILE, None),
    ("post", "/api/presets/import"): (AS_TEXT, 'name,prompt,negative_prompt\nflat,"{prompt}, flat style",blurry'),
    ("post", "/api/controls/pictures"): (AS_FILE, None),
    ("post", "/api/info"): (AS_TEXT, "a red apple\nSteps: 20, Sampler: Euler a, Seed: 12"),
}
"""By method and route: the body's schema and an example of it."""
ANSWERS: Mapping[tuple[str, str], Any] = {
    ("get", "/api/health"): {"status": "ok", "device": "CPU", "model": "demo", "waiting": 0, "running": False},
    ("post", "/api/jobs"): {"id": JOB},
    ("get", "/api/jobs"): [{"id": JOB, "state": "queued", "position": 1}],
    ("get", "/api/jobs/{job_id}"): {"id": JOB, "state": "done", "request": {"prompt": "a red apple"}, "images": []},
    ("delete", "/api/jobs/{job_id}"): {"id": JOB},
    ("post", "/api/jobs/{job_id}/again"): {"id": JOB},
    ("post", "/api/jobs/{job_id}/skip"): {"id": JOB},
    ("post", "/api/jobs/{job_id}/move"): {"id": JOB, "position": 1},
    ("post", "/api/jobs/{job_id}/without"): {"id": JOB},
    ("get", "/api/queue"): [
        {
            **{"id": JOB, "state": "running", "position": None, "ahead": 0, "progress": 0.5, "task": "txt2img"},
            **{"prompt": "a red apple", "size": [128, 128], "pictures": 2, "finished": 1, "preview": "9f0c"},
            "workers": ["cpu 1", "cpu 2"],
        }
    ],
    ("post", "/api/tokens"): {"tokens": 3, "room": 75, "unbalanced": [], "unsupported": []},
    ("get", "/api/controls"): [
        {
            **{"name": "control_v11p_sd15_canny", "form": "ControlNet", "family": "SD 1.x", "problem": ""},
            **{"about": "ControlNet for SD 1.x", "misfit": ""},
        }
    ],
    ("get", "/api/controls/segmenters"): {"names": ["mobile_sam"], "problem": ""},
    ("post", "/api/controls/pictures"): {"sha256": "00" * 32, "width": 128, "height": 128},
    ("post", "/api/presets"): {"name": "My settings"},
    ("post", "/api/presets/import"): {"names": ["flat"], "notices": []},
    ("get", "/api/presets/warnings"): {"warnings": []},
    ("get", "/api/words"): {
        "embeddings": [],
        "wildcards": [{"name": "colour", "texts": 5, "some": ["red", "green", "blue"]}],
        "tags": [{"name": "danbooru", "version": "18c-5d2f", "tags": 140_000, "problem": ""}],
    },
    ("post", "/controlnet/detect"): {"images": ["BASE64"], "info": "Success", "poses": []},
    ("post", "/sdapi/v1/txt2img"): {"images": ["BASE64"], "parameters": {}, "info": "{}"},
    ("post", "/sdapi/v1/img2img"): {"images": ["BASE64"], "parameters": {}, "info": "{}"},
}
PARAMETERS: Mapping[str, Any] = {
    "job_id": JOB,
    "sha256": "00" * 32,
    "picture_id": "0123456789abcdef01234567",
    "addition_id": JOB,
    "size_bytes": 1000,
    "other_id": "0123456789abcdef01234567",
    "index": 0,
    "name": "demo",
    "id": [JOB],
    "last-event-id": 0,
}
PICTURES = ("image/png", "image/jpeg", "image/webp")
OTHER_ANSWERS: Mapping[str, Sequence[str]] = {
    "/api/jobs/{job_id}/events": ["text/event-stream"],
    "/api/jobs/{job_id}/images/{index}": ["image/png"],
    "/api/jobs/{job_id}/preview": ["image/jpeg"],
    "/api/metrics": ["text/plain", "application/openmetrics-text"],
    "/api/models/preview": PICTURES,
    "/api/loras/preview": PICTURES,
    "/api/presets/preview": PICTURES,
    "/api/controls/pictures/{sha256}": ["image/png"],
    "/api/controls/map": ["image/png"],
    "/api/controls/segment": ["image/png"],
    "/api/presets/file": ["application/toml"],
    "/api/words/tags": ["text/plain"],
    "/api/history/zip": ["application/zip"],
    "/api/history/{picture_id}/thumbnail": PICTURES,
    "/api/history/{picture_id}/picture": PICTURES,
}
"""What is no JSON."""


def description_router(routers: Sequence[APIRouter]) -> APIRouter:
    """The route over all others of ours."""
    router = APIRouter()

    @cache
    def document() -> dict[str, Any]:
        return describe(routers)

    @router.get("/api/openapi.json", include_in_schema=False)
    def description() -> dict[str, Any]:
        return document()

    return router


def describe(routers: Sequence[APIRouter]) -> dict[str, Any]:
    """The document, in OpenAPI 3.1."""
    routes = [route for router in routers for route in router.routes]
    found = get_openapi(title=TITLE, version="1", routes=routes, description=f"Pictures drawn by {TITLE}, over HTTP.")
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    request = Request.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= request.pop("$defs", {}) | {"Request": request, "Grid": _GRID, "Error": _ERROR}
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            _complete(operation, method, path)
    return found


def _complete(operation: dict[str, Any], method: str, path: str) -> None:
    """Body, answers, errors and examples of one operation."""
    if body := BODIES.get((method, path)):
        operation["requestBody"] = {"required": True, "content": _body(*body)}
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in PARAMETERS:
            parameter["example"] = PARAMETERS[parameter["name"]]
    answers = operation["responses"]
    content = next(answer for code, answer in answers.items() if code.startswith("2")).setdefault("content", {})
    if kinds := OTHER_ANSWERS.get(path):
        content.clear()
        content |= {kind: {"schema": {"type": "string"}} for kind in kinds}
    elif (example := ANSWERS.get((method, path))) is not None:
        content.setdefault("application/json", {})["example"] = example
    codes = [*ALWAYS, *(FOR_A_BODY if "requestBody" in operation else ()), *(("404",) if "{" in path else ())]
    codes += ["404"] if any(parameter["name"] == "name" for parameter in operation.get("parameters", ())) else []
    codes += ["409"] if path.endswith(("/again", "/skip", "/move", "/without")) else []
    codes += ["409"] if "requestBody" in operation and path.startswith("/sdapi") else []
    codes += ["409", "411"] if path.startswith("/api/models/files") and "requestBody" in operation else []
    codes += ["404", "500"] if path.startswith("/sdapi") else []
    codes += ["400", "404"] if path in OF_MANY else []
    for code in codes:
        answers[code] = {
            "description": ERRORS[code],
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }


def _body(schema: Mapping[str, Any], example: Any) -> dict[str, Any]:
    if schema is AS_FILE:
        return {"application/octet-stream": {"schema": schema}}
    if schema is AS_TEXT:  # settings as text, or a picture's file
        binary = {"schema": {"type": "string", "format": "binary"}}
        return {"text/plain": {"schema": schema, "example": example}, "application/octet-stream": binary}
    return {"application/json": {"schema": schema, "example": example}}


_AXIS = {
    "type": "object",
    "required": ["field", "values"],
    "properties": {
        "field": {"type": "string"},
        "values": {"anyOf": [{"type": "array", "items": {}}, {"type": "string"}]},
    },
    "example": {"field": "steps", "values": [10, 20]},
}
_GRID = {
    "type": "object",
    "required": ["request"],
    "properties": {
        "request": {"$ref": "#/components/schemas/Request"},
        **dict.fromkeys(("x", "y", "z"), _AXIS),
        "yes": {"type": "boolean", "description": "also more than 500 pictures"},
    },
    "additionalProperties": False,
}
_ERROR = {
    "type": "object",
    "required": ["error", "detail"],
    "properties": {
        "error": {"type": "string", "description": "what kind of error, in a word or two"},
        "detail": {"type": "string", "description": "what is wrong, for people"},
        "body": {"type": "string", "description": "below /sdapi and /controlnet, empty"},
        "errors": {"type": "string", "description": "below /sdapi and /controlnet, as detail"},
    },
    "example": {"error": "bad input", "detail": "steps must be at most 150, not 151"},
}
