"""What a request leaves open, decided: names as the tables spell them, size, seed. Nothing here imports torch."""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from PIL.Image import Image as PilImage

from webui.core import samplers
from webui.core.abilities import check_abilities, suited_sampler
from webui.core.block_weights import left_out
from webui.core.canvas import drawn_size, fitted
from webui.core.errors import Mend, RequestError, show, show_some
from webui.core.files import ModelFile
from webui.core.finder_file import check_finder
from webui.core.grid import Grid
from webui.core.groups.detail import Detail
from webui.core.groups.hires import Hires, are_alike
from webui.core.groups.init import Init
from webui.core.groups.upscale import Upscale
from webui.core.latent_filters import LATENT_FILTERS
from webui.core.names import (
    FINDERS,
    LANCZOS,
    PAINTED,
    PREVIOUS,
    SUBJECT,
    choose_file,
    choose_finder,
    choose_upscaler,
)
from webui.core.order import Order, plan
from webui.core.prompt import (
    check_chunks,
    check_terms,
    parse_weights,
    split_loras,
)
from webui.core.request import DRAWN_SEED_LIMIT, Request
from webui.core.schedule import split_terms
from webui.core.stages import LoraSchedule, LoraUse
from webui.core.tensor_file import BadFile, read_header
from webui.core.upscaler_file import check_upscaler
from webui.core.uses import check_parts, check_vae, choose_text_encoder
from webui.core.work import Work
from webui.jobs.controls import resolve_controls
from webui.jobs.loras import resolve_loras
from webui.jobs.regions import check_regions
from webui.jobs.texts import draw_pictures
from webui.jobs.token_counts import check_lengths
from webui.library.library import Snapshot


def plan_job(work: Work, library: Snapshot) -> tuple[list[Order], Grid | None]:
    """As ``plan_work``, for a job, in which a mask that is black all over is a slip; raises RequestError."""
    if any(request.init and request.init.nothing_masked for request in work.requests):
        raise RequestError("The mask is empty, so nothing would be drawn: mask the part to replace", field="mask")
    return plan_work(work, library)


def plan_work(work: Work, library: Snapshot) -> tuple[list[Order], Grid | None]:
    """The orders of all that is asked for, and the grid with nothing left open where it is one; raises RequestError."""
    if not isinstance(work, Grid):
        return [order for request in work.requests for order in make_orders(request, library)], None
    fitted: dict[object, PilImage] = {}
    cells = [[order for request in cell for order in _make_cell(request, library, fitted)] for cell in work.cells]
    resolved = tuple(tuple(order.request for order in cell) for cell in cells)
    return [order for cell in cells for order in cell], replace(work, cells=resolved)


def _make_cell(request: Request, library: Snapshot, fitted: dict[object, PilImage]) -> tuple[Order, ...]:
    """The orders of a grid's cell. A start picture is brought to its size once for all cells that have the same."""
    if (init := request.init) is None:
        return make_orders(request, library)
    key = id(init.image), id(init.mask), init.resize, init.background, request.width, request.height
    if key in fitted:
        fields = {name: getattr(init, name) for name in Init.model_fields}  # a copy would keep the fingerprint
        request = request.model_copy(update={"init": Init(**fields | {"image": fitted[key]})})
    orders = make_orders(request, library)
    if made := orders[0].request.init:
        fitted[key] = made.image
    return orders


def make_orders(request: Request, library: Snapshot) -> tuple[Order, ...]:
    """All that a request comes to, which is one order, or one for each picture where it leaves words to chance.

    Raises RequestError for what cannot be drawn.
    """
    if request.only_enlarges:
        return (make_order(request, library),)
    request = with_seeds(request)
    pictures, said = draw_pictures(request, library)
    first = make_order(pictures[0] if pictures else request, library)
    start = {"init": first.request.init}  # brought to its size once, for all of them
    others = (make_order(picture.model_copy(update=start), library) for picture in pictures[1:])
    return replace(first, warnings=(*said, *first.warnings)), *others


def make_order(request: Request, library: Snapshot) -> Order:
    """The order of a request that leaves no words to chance; raises RequestError for what cannot be drawn.

    Its warnings also tell of what was asked for and is off, for a resolved request does not know of it any more.
    """
    resolved = resolve(request, library)
    order = plan(resolved, library)
    check_lengths(order)
    return replace(order, warnings=(*order.warnings, *_left_out(order), *_asked_in_vain(request, resolved)))


def _left_out(order: Order) -> Iterator[str]:
    """What lists of weights by block do not name of their LoRAs."""
    loras: list[LoraUse | LoraSchedule] = []
    for stage in order.passes:
        loras += [*stage.loras, *stage.lora_schedules]
    for lora in loras:
        if lora.blocks and (blocks := left_out(lora.blocks, read_header(lora.file.path).shapes)):
            yield (
                f"LoRA {lora.file.name}: {str(lora.blocks)[1:]} has no value for {show_some(blocks)}, which this file"
                " changes too: they count 0."
            )


def plan_again(request: Request, library: Snapshot) -> Order:
    """The order of a request that was resolved earlier; raises RequestError naming a file that is gone since."""
    try:
        return plan(request, library)
    except KeyError as error:
        raise RequestError(f"“{show(str(error.args[0]))}” is no longer there") from None


def _asked_in_vain(request: Request, resolved: Request) -> Iterator[str]:
    if request.guidance_until < resolved.guidance_until:
        yield "“Stop guidance after” has no effect on a model that guides itself."
    if request.init and resolved.init and request.init.softness > resolved.init.softness:
        yield "“Soft inpainting” has no effect on a model for inpainting, which draws all that is masked."
    if request.variation and request.variation.seed >= 0 and not request.varied:
        yield "A variation seed has no effect at variation strength 0."


def resolve(request: Request, library: Snapshot) -> Request:
    """The same request with nothing left open; raises RequestError for what cannot be drawn.

    What was not asked for is what suits the model, and what it cannot do is off. LoRA tags move from the prompt to
    ``loras``. Strict pictures are batches of one.
    """
    upscale = request.upscale and _resolve_upscale(request.upscale, library)
    if request.only_enlarges:
        if request.init is None:
            raise RequestError("upscale.only: there is no start picture to enlarge", field="upscale")
        return request.model_copy(update={"upscale": upscale, "seed": max(request.seed, 0), "count": 1, "repeat": 1})
    for place, text in request.texts.items():
        check_chunks(1 + sum(words.starts_chunk for words in parse_weights(text)), place)
        if request.syntax > 1 and place.endswith("prompt"):
            check_terms(len(split_terms(text)), place)
        if place.endswith("negative") and split_loras(text)[1]:
            raise RequestError(f"{place}: a LoRA acts on the whole picture; put its tag into the prompt", field=place)
    file = _in_form(request.form, _choose_model("model", _model_of(request, library.models), library))
    asked = {name: getattr(request, name) for name in request.model_fields_set}
    suited = {name: value for name, value in vars(file.defaults).items() if name not in asked}
    check_abilities(request, file)
    sampler, schedule = suited_sampler(file, *({**vars(request), **suited}[name] for name in ("sampler", "schedule")))
    width, height = request.width or file.native_px, request.height or file.native_px
    if request.init is not None:
        width, height = drawn_size(request.init, request.width, request.height, file.native_px)
    check_regions(request, (width, height))
    request = with_seeds(request)
    names = {"model": file.name, "form": _form_of(file), "sampler": sampler, "schedule": schedule}
    names["prediction"] = _resolve_prediction(request, file, sampler)
    names["vae"] = choose_file("VAE", request.vae, library.vaes, "vae") if request.vae else ""
    if names["vae"]:
        check_vae(library.vaes[names["vae"]], file, library)
    names["text_encoder"] = choose_text_encoder(request.text_encoder, file, library)
    names["refiner"] = _resolve_refiner(request.refiner, file, library)
    hires = _resolve_hires(request.hires, request, file, (sampler, schedule), library) if request.hires else None
    further = [library.models[name] for name in (names["refiner"], hires.model if hires else "") if name]
    return request.model_copy(
        update=suited
        | names
        | {"width": width, "height": height, "variation": request.varied, "syntax": request.syntax_of_drawn}
        | {"upscale": upscale, "init": request.init and fitted(_suited_init(request.init, file), (width, height))}
        | (
            {}
            if request.steers or _can_stop_guiding(file, names["refiner"], library.models)
            else {"guidance_until": 1.0}
        )
        | ({"count": 1, "repeat": request.image_count} if request.strict else {})
        | resolve_loras(request.prompt, request.loras, request, file, lambda: library.loras)
        | ({"hires": hires} if hires else {})
        | {"controls": resolve_controls(request, (file, *further), library)}
        | {"detail": _resolve_details(request, file, library)}
    )


def _suited_init(init: Init, file: ModelFile) -> Init:
    """A model for inpainting is shown what is masked in black and white."""
    if not init.softness or file.checkpoint is None or not file.checkpoint.inpaints:
        return init
    fields = {name: getattr(init, name) for name in Init.model_fields}  # a copy would keep the fingerprint
    return Init(**fields | {"softness": 0.0})


def _resolve_details(request: Request, file: ModelFile, library: Snapshot) -> tuple[Detail, ...]:
    """The details of a request that is drawn with this model."""
    resolved: list[Detail] = []
    for number, detail in enumerate(request.detail, start=1):
        with _about("detail", f"detail.{number}"):
            finder = choose_finder(detail.finder, library.finders, "finder")
            if finder == PREVIOUS and not resolved:
                reason = "is what the detail before found, and there is none before the first"
                raise RequestError(f"{PREVIOUS} {reason}", "finder", Mend("use", SUBJECT))
            if finder == PAINTED and not (request.init and request.init.masked):
                reason = "is what was painted over the start picture, and there is no mask"
                raise RequestError(f"{PAINTED} {reason}", "finder", Mend("use", SUBJECT))
            if found := library.finders.get(finder) if finder not in FINDERS else None:
                try:
                    check_finder(found)
                except BadFile as error:
                    raise RequestError(f"finder {finder[:80]!r}: {found.path.name} {error}", "finder") from None
            loras = resolve_loras(detail.prompt, detail.loras, request, file, lambda: library.loras, keep=True)
            resolved.append(detail.model_copy(update={"finder": finder} | loras))
    return tuple(resolved)


def _resolve_hires(
    hires: Hires, request: Request, first: ModelFile, drawn_with: tuple[str, str], library: Snapshot
) -> Hires:
    """A hires pass behind a first one with this model and these names of sampler and schedule."""
    with _about("hires", "hires"):
        upscaler = _resolve_upscaler(hires, library, LATENT_FILTERS)
        model = _choose_model("model", hires.model, library) if hires.model else first
        model = first if model.name == first.name else model
    if model != first:  # what is asked of it is in fields of the request's own
        check_abilities(request.model_copy(update={"prediction": "auto"}), model)
    with _about("hires", "hires"):
        if upscaler in LATENT_FILTERS and not are_alike(model, first):
            kinds = [file.checkpoint.family for file in (model, first) if file.checkpoint]
            raise RequestError(
                f"model {model.name!r} is {kinds[0]} and cannot go on with the latents of {kinds[1]}; choose another"
                " upscaler than Latent",
                "upscaler",
                Mend("use", LANCZOS),
            )
        sampler, schedule = suited_sampler(model, hires.sampler or drawn_with[0], hires.schedule or drawn_with[1])
        _resolve_prediction(
            request if model == first else request.model_copy(update={"prediction": "auto"}), model, sampler
        )
        names = {"upscaler": upscaler, "model": model.name if hires.model else ""}
        names |= {"sampler": sampler} if hires.sampler else {}
        names |= {"schedule": schedule} if hires.schedule or hires.sampler and schedule != drawn_with[1] else {}
        loras = resolve_loras(hires.prompt, hires.loras, request, model, lambda: library.loras, keep=True)
        return hires.model_copy(update=names | loras)


@contextmanager
def _about(group: str, place: str) -> Iterator[None]:
    """What is wrong with a group of the request says so."""
    try:
        yield
    except RequestError as error:
        raise RequestError(f"{group}: {error}", f"{place}.{error.field}", error.mend) from None


def _resolve_upscale(upscale: Upscale, library: Snapshot) -> Upscale:
    try:
        return upscale.model_copy(update={"upscaler": _resolve_upscaler(upscale, library)})
    except RequestError as error:
        raise RequestError(str(error), f"upscale.{error.field}", error.mend) from None


def _resolve_upscaler(group: Upscale | Hires, library: Snapshot, filters: Iterable[str] = ()) -> str:
    name = choose_upscaler(_upscaler_of(group, library), library.upscalers, "upscaler", filters)
    if file := library.upscalers.get(name):
        try:
            check_upscaler(file)
        except BadFile as error:
            raise RequestError(f"upscaler {name[:80]!r}: {file.path.name} {error}", "upscaler") from None
    return name


def _upscaler_of(group: Upscale | Hires, library: Snapshot) -> str:
    """Where none was named it is the usual one, or, for whoever may not use that, the filter."""
    is_named = "upscaler" in group.model_fields_set or group.upscaler in library.upscalers
    return group.upscaler if is_named else LANCZOS


def with_seeds(request: Request) -> Request:
    """The same with the seeds drawn that it leaves open; that of a variation only where it does something."""
    varied = request.varied and request.varied.model_copy(update={"seed": _draw_seed(request.varied.seed)})
    return request.model_copy(update={"seed": _draw_seed(request.seed)} | ({"variation": varied} if varied else {}))


def _draw_seed(seed: int) -> int:
    return seed if seed >= 0 else secrets.randbelow(DRAWN_SEED_LIMIT)


def _model_of(request: Request, models: Mapping[str, ModelFile]) -> str:
    """Where none was named it is the usual one, or, for whoever may not use that, the first one there is."""
    if "model" in request.model_fields_set or request.model in models:
        return request.model
    return next(iter(models), request.model)


def _choose_model(field: str, name: str, library: Snapshot) -> ModelFile:
    file = library.models[choose_file("model", name, library.models, field)]
    if file.checkpoint is None:
        raise RequestError(f"{field} {name[:80]!r}: {file.path.name} {file.problem}", field=field)
    check_parts(file, library, field)
    return file


def _in_form(form: str, file: ModelFile) -> ModelFile:
    """The model in the form that was asked for, whatever its files say; RequestError for one that its kind has not."""
    if form == "auto" or file.checkpoint is None:
        return file
    forms = [known.name for known in file.checkpoint.row.forms]
    name = next((known for known in forms if known.casefold() == form.casefold()), None)
    if name is None:
        kind, known = f"{file.checkpoint.family}, as {file.name!r} is,", ", ".join(["auto", *forms])
        raise RequestError(f"form: {kind} has no form {form[:80]!r}; there is {known}", "form", Mend("use", "auto"))
    return file.in_form(name)


def _form_of(file: ModelFile) -> str:
    """The name of its form; ``auto`` for a folder whose configurations are none's: its own schedule is right."""
    form = file.checkpoint.formed if file.checkpoint else None
    is_own = file.checkpoint is not None and not file.checkpoint.form and file.path.is_dir()
    return form.name if form and not is_own else "auto"


def _resolve_prediction(request: Request, file: ModelFile, sampler: str) -> str:
    """What the file says, unless it was chosen; zero terminal SNR needs a sampler that can start from pure noise."""
    checkpoint = file.checkpoint
    assert checkpoint
    prediction: str = request.prediction
    if checkpoint.prediction == "flow":  # it has no other
        return prediction
    if prediction == "auto":
        prediction = checkpoint.prediction_name
    if prediction == "v zero-SNR" and sampler not in samplers.FROM_PURE_NOISE:
        able = ", ".join(samplers.FROM_PURE_NOISE)
        raise RequestError(
            f"sampler {sampler!r} cannot start from pure noise, as {file.name!r} with zero SNR needs; {able} can",
            "sampler",
            Mend("use", "Euler"),
        )
    return prediction


def _resolve_refiner(name: str, file: ModelFile, library: Snapshot) -> str:
    if not name:
        return ""
    refiner = _choose_model("refiner", name, library)
    if refiner.checkpoint and refiner.checkpoint.inpaints:
        reason = f"refiner {refiner.name!r} is for inpainting and cannot go on from latents"
        raise RequestError(reason, "refiner", Mend("use", ""))
    if not are_alike(file, refiner):
        kinds = [model.checkpoint.family for model in (refiner, file) if model.checkpoint]
        raise RequestError(
            f"refiner {refiner.name!r} is {kinds[0]} and cannot go on with the latents of {kinds[1]}",
            "refiner",
            Mend("use", ""),
        )
    return refiner.name


def _can_stop_guiding(file: ModelFile, refiner: str, models: Mapping[str, ModelFile]) -> bool:
    """Whether ``guidance_until`` changes anything: models that guide themselves have no second half to leave out."""
    used = (file, models[refiner]) if refiner else (file,)
    return any(model.checkpoint is not None and not model.checkpoint.guides_itself for model in used)
