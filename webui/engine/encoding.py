"""Prompts and start pictures as a model sees them, kept for as long as they may be wanted again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from cachetools import LRUCache

from webui.core.canvas import Canvas, drawn_part, make_canvas
from webui.core.files import ControlFile, ModelFile, VaeFile
from webui.core.images import Size
from webui.core.names import is_word
from webui.core.spans import Span
from webui.core.stages import Pass
from webui.core.tensor_file import BadFile
from webui.core.weight_files import hash_whole
from webui.engine.areas import as_tensor, shares
from webui.engine.embeddings import Embedding, find_bundled, fits, read_embedding
from webui.engine.families.base import Conditioning, Steering
from webui.engine.families.model import Model
from webui.engine.guide import Branch, are_whole
from webui.engine.latents import Encoded, encode
from webui.engine.lora.sets import Contributions
from webui.engine.lora.switcher import LoraSwitcher
from webui.engine.resident import LoadedControl
from webui.engine.run import Run

if TYPE_CHECKING:
    from webui.engine.controls.base import Control
    from webui.engine.controls.guides import Guides
    from webui.engine.controls.ip_adapter import Borrow, References

COVERED = (
    "The regions cover the whole picture, so the picture's prompt counts nowhere; [PROMPT] in a region's prompt puts it"
    " there."
)
CACHED_PROMPTS = 64
CACHED_PICTURE_BYTES = 128 * 2**20

PromptKey = tuple[tuple[ModelFile, ...], Contributions, str, int, bool, tuple[tuple[str, str], ...]]
"""The model, what of the LoRAs changes its text encoder, the text, clip skip, whether it is the negative one, and the
names and hashes of the embeddings in it."""
PictureKey = tuple[tuple[ModelFile, ...], VaeFile | None, str, Size]
"""The model, the autoencoder instead of its own, what it is shown, and the size of what is drawn."""
Picture = tuple[Canvas, Encoded]


def picture_nbytes(picture: Picture) -> int:
    """Memory that it holds."""
    canvas, encoded = picture
    return canvas.nbytes + encoded.nbytes


@dataclass(frozen=True)
class EncodedSpan:
    """What a model is told in a span of steps. ``negative`` is None where no unconditional branch runs."""

    positive: Sequence[Branch]
    negative: Conditioning | None
    guidance: float
    steering: Steering | None = None

    @property
    def told(self) -> list[Conditioning]:
        """All of it, in the order in which the model is asked; a term of weight 0 is not."""
        positive = [branch.conditioning for branch in self.positive if branch.weight]
        return positive if self.negative is None else [self.negative, *positive]


class Encoder:
    """Keeps the newest prompts, and start pictures up to ``CACHED_PICTURE_BYTES``."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._prompts: LRUCache[PromptKey, Conditioning] = LRUCache(CACHED_PROMPTS)
        self._pictures: LRUCache[PictureKey, Picture] = LRUCache(CACHED_PICTURE_BYTES, getsizeof=picture_nbytes)
        self._guides: Guides | None = None
        self._references: References | None = None

    def clear(self) -> None:
        """Lets go of everything."""
        self._prompts.clear()
        self._pictures.clear()
        self._guides = None
        self._references = None

    def controls(self, stage: Pass, networks: Mapping[ControlFile, LoadedControl]) -> Sequence["Control"]:
        """The controls of a pass, each with the map of its picture."""
        from webui.engine.controls.guides import Guides

        self._guides = self._guides or Guides(self._device)
        return self._guides.make(stage.controls, networks, stage.size)

    def encode(self, model: Model, loras: LoraSwitcher, stage: Pass, span: Span, run: Run) -> EncodedSpan:
        """All that a span of a pass tells its model, which has the span's LoRAs on."""

        def condition(text: str, negative: bool = False) -> Conditioning:
            prompt = self._prompt(model, loras, stage, text, negative, run)
            return model.condition(prompt, stage.size, stage.guidance, negative)

        positive = self._branches(model, stage, span, condition, run)
        guidance = 1.0 if model.guides_itself else stage.guidance
        guided = guidance != 1 or not are_whole(positive)
        negative = condition(span.negative, negative=True) if guided or stage.nag else None
        steering = None
        if stage.pag or stage.nag:
            steering = Steering(int(guided), bool(stage.pag), stage.nag, negative if stage.nag else None)
        return EncodedSpan(positive, negative if guided else None, guidance, steering)

    def _branches(
        self, model: Model, stage: Pass, span: Span, condition: Callable[[str], Conditioning], run: Run
    ) -> list[Branch]:
        """The terms, each where it counts; those that count nowhere are left out, and their words not read."""
        if not stage.regions:
            return [Branch(condition(term.text), term.weight) for term in span.terms]
        width, height = (side // model.latent_scale for side in stage.size)
        where = shares(stage.regions, (width, height), drawn_part(stage.init, stage.size))
        if (
            not where[0].any()
            and (own := stage.prompt.strip())
            and not any(own in part.prompt for part in stage.regions)
        ):
            run.warn(COVERED)
        return [
            Branch(condition(term.text), term.weight, as_tensor(share, self._device))
            for term in span.terms
            if (share := where[term.region]).any()
        ]

    def refer(
        self, words: EncodedSpan, stage: Pass, span: Span, model: Model, borrow: "Borrow", run: Run
    ) -> EncodedSpan:
        """The same with the reference pictures that act in the span; ``borrow`` has networks that see them."""
        if not span.references:
            return words
        from webui.engine.controls.ip_adapter import References

        self._references = self._references or References()
        uses = [(stage.references[place], weight) for place, weight in span.references]
        return self._references.tell(words, uses, model, borrow, run)

    @torch.inference_mode()
    def _prompt(
        self, model: Model, loras: LoraSwitcher, stage: Pass, text: str, negative: bool, run: Run
    ) -> Conditioning:
        embeddings = _find_embeddings(model, loras, stage, text, run)
        hashes = tuple((name, embedding.content_hash) for name, embedding in embeddings.items())
        key = (model.files, loras.text_key, text, stage.clip_skip, negative, hashes)
        if key not in self._prompts:
            self._prompts[key] = model.encode_prompt(text, stage.clip_skip, embeddings, negative)
        return self._prompts[key]

    def picture(self, model: Model, stage: Pass, keep: bool = True) -> Picture:
        """The picture that a pass begins from, fitted to what is drawn, and as latents."""
        assert stage.init
        if not keep:
            canvas = make_canvas(stage.init, stage.size)
            return canvas, encode(model, canvas, self._device)
        key = (model.files, stage.vae, stage.init.fingerprint, stage.size)
        if key not in self._pictures:
            found = self.picture(model, stage, keep=False)
            if picture_nbytes(found) > CACHED_PICTURE_BYTES:
                return found
            self._pictures[key] = found
        return self._pictures[key]


def _find_embeddings(model: Model, loras: LoraSwitcher, stage: Pass, text: str, run: Run) -> dict[str, Embedding]:
    """The textual inversions that the text may name; those for another kind of model are told and left out."""
    found, problems = find_bundled(text, loras.embeddings, model.text_widths)
    run.warn(*problems)
    taken = {name.casefold() for name in found}
    for use in stage.embeddings:
        name, path, forms = use.file.name, use.file.path, use.forms_in(text)
        if taken & {form.casefold() for form in forms}:
            run.warn(f"“{name}” stands for the embedding that a LoRA brings, not for the file.")
            forms = [form for form in forms if form.casefold() not in taken]
        elif not forms:
            continue
        problem = use.file.ambiguity if forms == [name] else ""
        try:
            embedding = read_embedding(name, path)
            if fits(embedding, model.text_widths):
                found |= dict.fromkeys(forms, embedding)
                run.hashes.want("embedding", name, partial(hash_whole, path))
            else:
                problem = f"Embedding {name} is for another kind of model and was read as plain words."
        except BadFile as error:
            problem = f"Embedding {name} was read as plain words: {path.name} {error}."
        if problem and any(is_word(form, text) for form in forms):
            run.warn(problem)
    return found
