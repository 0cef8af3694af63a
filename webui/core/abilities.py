"""What some kinds of models cannot do: what a request asks of it, and which of its fields that are."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from webui.core import samplers
from webui.core.errors import Mend, RequestError
from webui.core.files import ModelFile
from webui.core.kinds.kind import Ability, Kind
from webui.core.request import Request


@dataclass(frozen=True)
class Asked:
    """``field`` is the request's, a group's or one of its own; ``by`` says whether a request asks for it."""

    field: str
    by: Callable[[Request], object]


ASKED: Mapping[Ability, Asked] = {
    "negative prompt": Asked("negative", lambda request: request.negative.strip()),
    "clip skip": Asked("clip_skip", lambda request: request.clip_skip > 1),
    "text encoder": Asked("text_encoder", lambda request: request.text_encoder),
    "prediction": Asked("prediction", lambda request: request.prediction != "auto"),
    "masks": Asked("mask", lambda request: request.init and request.init.masked),
    "hires": Asked("hires", lambda request: request.hires),
    "details": Asked("detail", lambda request: request.detail),
    "refiner": Asked("refiner", lambda request: request.refiner),
    "token merging": Asked("token_merging", lambda request: request.token_merging > 0),
    "reuse": Asked("reuse", lambda request: request.reuse > 1),
    "int8": Asked("int8", lambda request: request.int8),
    "pag": Asked("pag", lambda request: request.pag and request.pag.acts),
    "nag": Asked("nag", lambda request: request.nag and request.nag.acts),
}
"""Emphasis and embeddings are not among them: where there are none, brackets and names are plain words."""
NAMES: Mapping[Ability, str] = {
    "hires": "hires pass",
    "reuse": "way to reuse parts of its network",
    "int8": "way to compute in 8 bits",
    "prediction": "choice of prediction",
    "text encoder": "text encoder in a file of its own",
    "pag": "perturbed attention",
    "nag": "negative prompt in attention",
}


def check_abilities(request: Request, file: ModelFile) -> None:
    """Raises RequestError naming the field for the first thing that a request asks of a model whose kind lacks it."""
    assert file.checkpoint
    kind = file.checkpoint.row
    for ability, asked in ASKED.items():
        if ability in _lacks(kind) and asked.by(request):
            what = NAMES.get(ability, ability)
            reason = f"{asked.field}: {kind.name}, as {file.name!r} is, has no {what}"
            info = Request.model_fields.get(asked.field)
            is_plain = info is not None and isinstance(info.default, str | int | float)
            raise RequestError(reason, asked.field, Mend("use", info.default) if info and is_plain else None)
    if request.int8 and file.checkpoint.small_weights:
        reason = (
            f"int8: {file.name!r} keeps its weights as {file.checkpoint.small_weights}; 8 bits are made of dense ones"
        )
        raise RequestError(reason, "int8", Mend("use", False))
    if "negative prompt" in _lacks(kind):
        for field in _later_negatives(request):
            raise RequestError(f"{field}: {kind.name}, as {file.name!r} is, has no negative prompt", field)


def _later_negatives(request: Request) -> Iterator[str]:
    """Fields with a negative prompt of their own for a later pass on the same model."""
    if request.hires and not request.hires.model and request.hires.negative.strip():
        yield "hires.negative"
    for number, detail in enumerate(request.detail, start=1):
        if detail.negative.strip():
            yield f"detail.{number}.negative"


def lacking(kind: Kind) -> tuple[str, ...]:
    """The fields of a request that mean nothing to a kind of models."""
    return tuple(asked.field for ability, asked in ASKED.items() if ability in _lacks(kind))


def _lacks(kind: Kind) -> frozenset[Ability]:
    lacks: set[Ability] = {"prediction"} if kind.prediction == "flow" else set()
    return kind.lacks | lacks | (set() if any(role.startswith("text") for role in kind.networks) else {"text encoder"})


def suited_sampler(file: ModelFile, sampler: str, schedule: str) -> tuple[str, str]:
    """A sampler and its schedule as the table spells them; RequestError for those that do not go with this model."""
    sampler, schedule = samplers.resolve(sampler, schedule)
    if file.checkpoint is None or file.checkpoint.prediction != "flow":
        return sampler, schedule
    if sampler not in samplers.FLOWING:
        raise RequestError(
            f"sampler {sampler!r} cannot draw with {file.name!r}, which predicts flow;"
            f" {', '.join(samplers.FLOWING)} can",
            "sampler",
            Mend("use", "Euler"),
        )
    if schedule != "Default":
        raise RequestError(
            f"schedule “{schedule}” does not go with {file.name!r}, which predicts flow and has its own: Default",
            "schedule",
            Mend("use", "Default"),
        )
    return sampler, schedule
