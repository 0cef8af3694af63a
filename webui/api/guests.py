"""What guests may ask for. All else is not there for them: a new route is the owner's until it stands here.

``tests/api/test_guest_routes.py`` asks for a decision on every route of the server.
"""

import re
from collections.abc import Mapping

from starlette.routing import compile_path

_PAGE = "/ /config /svelte/{path:path} /static/{path:path} /assets/{path:path} /favicon.ico /theme.css /robots.txt"
_PAGE += " /pwa_icon /pwa_icon/{size} /manifest.json /manifest.webmanifest /icons/{name} /languages/{name}.js /logout"
_GRADIO = "theme.css app_id info user login_check startup-events heartbeat/{session_hash} queue/data upload_progress"
_GRADIO += " file={path_or_url:path} file/{path:path} call/{api_name}/{event_id} call/v2/{api_name}/{event_id}"
_API = "health jobs jobs/{job_id} jobs/{job_id}/events jobs/{job_id}/images/{index} models models/preview finders loras"
_API += " loras/preview presets presets/preview presets/file history history/{picture_id} workspace workspace/export"
_API += " history/{picture_id}/thumbnail history/{picture_id}/picture words words/tags models/vocabulary"
_API += " queue jobs/{job_id}/preview history/ids history/boards history/{picture_id}/differences/{other_id}"
_API += " presets/warnings controls controls/preprocessors controls/segmenters controls/pictures/{sha256}"
_SDAPI = "progress options sd-models samplers schedulers loras embeddings sd-vae scripts cmd-flags prompt-styles"
_SDAPI += " latent-upscale-modes hypernetworks face-restorers realesrgan-models script-info upscalers"


def _below(prefix: str, routes: str) -> list[str]:
    return [f"{prefix}{route}" for route in routes.split()]


GUESTS_MAY: Mapping[str, list[str]] = {
    "GET": [
        *_below("", _PAGE),
        *_below("/gradio_api/", _GRADIO),
        *_below("/api/", _API),
        *_below("/sdapi/v1/", _SDAPI),
        *_below("/controlnet/", "version settings model_list module_list control_types"),
    ],
    "POST": [
        "/login",
        "/controlnet/detect",
        *_below("/gradio_api/", "queue/join run/{api_name} cancel reset upload call/{api_name} call/v2/{api_name}"),
        *_below("/api/", "jobs info tokens presets presets/import history/{picture_id}/restore"),
        *_below("/api/controls/", "pictures map segment"),
        *_below("/api/jobs/{job_id}/", "again skip move without"),
        *_below("/api/history/", "delete restore marks zip"),
        *_below("/sdapi/v1/", "txt2img img2img extra-single-image extra-batch-images png-info interrupt skip options"),
    ],
    "PUT": ["/api/history/{picture_id}/favourite", "/api/history/boards"],
    "PATCH": ["/api/history/boards", "/api/presets"],
    "DELETE": [
        *_below("/api/", "jobs/{job_id} history/{picture_id} history/{picture_id}/favourite history/boards workspace"),
        "/api/presets",
    ],
}
_PLAIN = {method: frozenset(route for route in routes if "{" not in route) for method, routes in GUESTS_MAY.items()}
_PATTERNS: Mapping[str, list[re.Pattern[str]]] = {
    method: [compile_path(route)[0] for route in routes if "{" in route] for method, routes in GUESTS_MAY.items()
}


def may_ask(method: str, path: str) -> bool:
    """Whether guests have this route; ``path`` as ``route_of`` gives it."""
    method = "GET" if method == "HEAD" else method
    if path in _PLAIN.get(method, ()):
        return True
    return any(pattern.match(path) for pattern in _PATTERNS.get(method, ()))
