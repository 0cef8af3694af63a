"""The controls of a request: names made those of files, what is none for the model refused."""

from collections.abc import Sequence

from webui.core.control_file import ControlKind, misfit, read_control
from webui.core.errors import Mend, RequestError, show
from webui.core.files import Files, ModelFile
from webui.core.groups.control import MAP_KINDS, NO_MAP, Control, alike
from webui.core.ip_adapter_file import choose_encoder, ip_adapter_of
from webui.core.maps import choose_map
from webui.core.names import choose_file
from webui.core.request import Request
from webui.core.tensor_file import BadFile


def resolve_controls(request: Request, models: Sequence[ModelFile], files: Files) -> tuple[Control, ...]:
    """All of them, for a request whose passes are drawn with these models, the first pass with the first of them.

    Raises RequestError for what cannot be drawn. A pass with a model of another kind has no controls.
    """
    models = [model for model in models if alike(model, models[0])]
    return tuple(
        _resolve(number, control, request, models, files) for number, control in enumerate(request.controls, start=1)
    )


def _resolve(number: int, control: Control, request: Request, models: Sequence[ModelFile], files: Files) -> Control:
    place = f"controls.{number}"
    try:
        name = choose_file("control", control.model, files.controls, "model")
        file = files.controls[name]
        try:
            kind = read_control(file)
        except BadFile as error:
            raise RequestError(f"{show(name)!r}: {file.path.name} {error}", "model") from None
        for model in models:
            if reason := misfit(name, kind, model):
                raise RequestError(reason, "model")
        if control.image is None and request.init is None:
            raise RequestError("there is no picture, and no start picture either", "image")
        if kind.form == "IP-Adapter":
            _check_ip_adapter(name, control, files)
        _check_kind(name, kind, control)
        row = choose_map(control.preprocessor)
        row.read(control.options)
        row.find_networks(files.annotators)
        if row.needs_mask and not _is_masked(control, request):
            reason = "needs a mask: paint one over the start picture, or give a picture with transparent parts"
            raise RequestError(f"the preprocessor {row.name} {reason}", "preprocessor", Mend("use", NO_MAP))
    except RequestError as error:
        raise RequestError(f"control {number}: {error}", f"{place}.{error.field}", error.mend) from None
    mode = kind.mode if control.mode == "auto" else control.mode
    return control.model_copy(update={"model": name, "preprocessor": row.name, "mode": mode})


def _check_kind(name: str, kind: ControlKind, control: Control) -> None:
    """Raises RequestError for a kind of map that is told to what knows none, or not this one."""
    if not kind.kinds:
        if control.kind != "auto":
            reason = f"{show(name)} is no ControlNet Union, which alone is told a kind of map"
            raise RequestError(reason, "kind", Mend("use", "auto"))
        return
    if control.map_kind is not None and control.map_kind >= kind.kinds:
        reason = f"{show(name)} knows {kind.kinds} kinds of map, and {MAP_KINDS[control.map_kind]} is none of them"
        raise RequestError(
            f"{reason}; its ProMax version knows it", "kind" if control.kind != "auto" else "preprocessor"
        )


def _check_ip_adapter(name: str, control: Control, files: Files) -> None:
    """Raises RequestError for what it cannot be asked for, and where no image encoder is here that it can see with."""
    if control.preprocessor != NO_MAP:
        reason = f"{show(name)} is an IP-Adapter, which sees the picture as it is: it takes no preprocessor"
        raise RequestError(reason, "preprocessor", Mend("use", NO_MAP))
    if control.mode not in ("auto", "balanced"):
        reason = (
            f"{show(name)} is an IP-Adapter, which has no other mode than balanced; its weight says how much it counts"
        )
        raise RequestError(reason, "mode", Mend("use", "balanced"))
    adapter = ip_adapter_of(files.controls[name])
    if adapter and choose_encoder(adapter, files.image_encoders) is None:
        raise RequestError(f"{show(name)} {adapter.encoder_line}", "model")


def _is_masked(control: Control, request: Request) -> bool:
    own = control.image is not None and "A" in control.image.getbands()
    return own or (request.init is not None and request.init.masked)
