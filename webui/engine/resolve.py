"""What a request leaves open, decided: names as the tables spell them, size, seed. Nothing here imports torch."""

import secrets
from collections.abc import Mapping

from webui.core.canvas import drawn_size
from webui.core.library import ModelFile, choose
from webui.core.request import DRAWN_SEED_LIMIT, Request, RequestError
from webui.engine import samplers


def resolve(request: Request, models: Mapping[str, ModelFile]) -> Request:
    """The same request with nothing left open; raises RequestError for what cannot be drawn."""
    if request.loras:
        raise RequestError("loras: this version cannot apply LoRAs yet", field="loras")
    file = models[choose("model", request.model, models)]
    sampler, schedule = samplers.resolve(request.sampler, request.schedule)
    width, height = request.width or file.native_px, request.height or file.native_px
    if request.init is not None:
        width, height = drawn_size(request.init, request.width, request.height, file.native_px)
    seed = request.seed if request.seed >= 0 else secrets.randbelow(DRAWN_SEED_LIMIT)
    names = {"model": file.name, "sampler": sampler, "schedule": schedule}
    return request.model_copy(update=names | {"width": width, "height": height, "seed": seed})
