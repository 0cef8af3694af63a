"""The controls of a request: names made those of files, what is none for the model refused."""

from webui.core.control_file import misfit, read_control
from webui.core.errors import Mend, RequestError, show
from webui.core.files import Files, ModelFile
from webui.core.groups.control import NO_MAP, Control
from webui.core.maps import choose_map
from webui.core.names import choose_file
from webui.core.request import Request
from webui.core.tensor_file import BadFile


def resolve_controls(request: Request, model: ModelFile, files: Files) -> tuple[Control, ...]:
    """All of them, for a request that is drawn with this model; raises RequestError for what cannot be drawn."""
    return tuple(
        _resolve(number, control, request, model, files) for number, control in enumerate(request.controls, start=1)
    )


def _resolve(number: int, control: Control, request: Request, model: ModelFile, files: Files) -> Control:
    place = f"controls.{number}"
    try:
        name = choose_file("control", control.model, files.controls, "model")
        file = files.controls[name]
        try:
            kind = read_control(file)
        except BadFile as error:
            raise RequestError(f"{show(name)!r}: {file.path.name} {error}", "model") from None
        if reason := misfit(name, kind, model):
            raise RequestError(reason, "model")
        if control.image is None and request.init is None:
            raise RequestError("there is no picture, and no start picture either", "image")
        row = choose_map(control.preprocessor)
        row.read(control.options)
        row.find_networks(files.annotators)
        if row.needs_mask and not _is_masked(control, request):
            reason = "needs a mask: paint one over the start picture, or give a picture with transparent parts"
            raise RequestError(f"the preprocessor {row.name} {reason}", "preprocessor", Mend("use", NO_MAP))
    except RequestError as error:
        raise RequestError(f"control {number}: {error}", f"{place}.{error.field}", error.mend) from None
    return control.model_copy(update={"model": name, "preprocessor": row.name})


def _is_masked(control: Control, request: Request) -> bool:
    own = control.image is not None and "A" in control.image.getbands()
    return own or (request.init is not None and request.init.masked)
