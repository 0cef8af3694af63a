"""How many tokens a prompt takes, counted while the device is busy and before the engine is there."""

import contextlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from webui.core.errors import RequestError
from webui.core.files import EmbeddingFile, LoraFile
from webui.core.lora_files import bundled_rows
from webui.core.names import choose_lora
from webui.core.order import Order
from webui.core.prompt import MAX_CHUNKS, split_loras
from webui.core.request import LoraRef
from webui.core.schedule import texts_of
from webui.core.spans import spans
from webui.core.stages import Detail, Pass
from webui.core.tensor_file import BadFile, read_header
from webui.library.library import Snapshot

if TYPE_CHECKING:
    from webui.engine.tokens import Tokenizer


def count_tokens(model: str, prompt: str, steps: int, library: Snapshot) -> tuple[int, int]:
    """As the model's tokenizer counts, without LoRA tags; embeddings, also those in tagged LoRAs, by their rows.

    Returns the tokens, and how many the prompt's chunks hold: of the longest text where it changes over the steps or
    is several prompts in one; it has ``steps`` then.
    """
    from webui.engine import tokens

    loras: tuple[LoraRef, ...] = ()
    with contextlib.suppress(RequestError):  # a tag that cannot be read yet is still being typed
        prompt, loras = split_loras(prompt)
    file = library.models.get(model)
    if file and file.checkpoint and (kind := file.checkpoint.row).vocabulary != "clip":
        from webui.engine.text.vocabularies import count

        has_emphasis = "emphasis" not in kind.lacks
        return max(count(kind.vocabulary, text, has_emphasis) for text in texts_of(prompt, steps))
    tokenizer = _tokenizer(file.path, file.stamp) if file else _tokenizer()
    named = {
        form: _embedding_rows(library.embeddings[name])
        for name, forms in library.embeddings_in(prompt).items()
        for form in forms
    }
    for ref in loras:
        with contextlib.suppress(RequestError, BadFile):
            named |= bundled_rows(library.loras[choose_lora(ref.name, library.loras)].path)
    room = tokenizer.length - 2
    known = {name: rows for name, rows in named.items() if 0 < rows <= room}
    return max(tokens.count_tokens(text, tokenizer, known) for text in texts_of(prompt, steps))


def check_lengths(order: Order) -> None:
    """RequestError for a prompt that is surely longer than its model reads, by its place in the request.

    A name that may be an embedding's counts as one token. Where no text can be too long, no vocabulary is read.
    """
    texts = order.request.in_syntax(2).texts
    for stage in order.stages:
        stage = stage.each if isinstance(stage, Detail) else stage
        if isinstance(stage, Pass) and any(map(_may_be_long, _prompts(stage))):
            _check_pass(stage, texts)


def _prompts(stage: Pass) -> tuple[str, ...]:
    return stage.negative, stage.prompt, *(region.prompt for region in stage.regions)


def _may_be_long(text: str) -> bool:
    """Whether it may have too many chunks: a token takes a byte at least, and a chunk is cut behind 56 or BREAK."""
    least = 56
    return len(text.encode("utf-8", "replace")) + least * text.count("BREAK") > least * (MAX_CHUNKS - 1)


def _check_pass(stage: Pass, texts: Mapping[str, str]) -> None:
    """The same of all that a pass is told in its steps."""
    from webui.engine import tokens
    from webui.engine.text import vocabularies

    usual = ("negative", "prompt", *(f"regions.{number}.prompt" for number, _ in enumerate(stage.regions, start=1)))
    known = {text: place for place, text in reversed(list(texts.items()))}
    negative, *prompts = (known.get(*pair) for pair in zip(_prompts(stage), usual, strict=True))
    told = {
        (text, place)
        for span in spans(stage)
        for text, place in ((span.negative, negative), *((term.text, prompts[term.region]) for term in span.terms))
    }
    kind = stage.model.checkpoint.row if stage.model.checkpoint else None
    named = {name for file in stage.lora_files for name in _bundled(file)}
    for text, place in sorted(told):
        if kind and kind.vocabulary != "clip":
            number, _ = vocabularies.count(kind.vocabulary, text, "emphasis" not in kind.lacks)
            vocabularies.check_length(number, place)
        else:
            forms = named.union(*(use.forms_in(text) for use in stage.embeddings))
            tokens.count_tokens(text, _tokenizer(stage.model.path, stage.model.stamp), dict.fromkeys(forms, 1), place)


def _bundled(file: LoraFile) -> Mapping[str, int]:
    """The embeddings that it brings; none where it cannot be read, which is said where it is drawn."""
    with contextlib.suppress(BadFile):
        return bundled_rows(file.path)
    return {}


@lru_cache(maxsize=8)
def _tokenizer(model: Path | None = None, _stamp: int = 0) -> "Tokenizer":
    """The tokenizer of a folder; CLIP's for single files, and where the folder's cannot be read."""
    from webui.engine.tokens import Tokenizer

    for folder in (model / "tokenizer", model / "tokenizer_2") if model else ():
        if folder.is_dir():
            with contextlib.suppress(OSError, ValueError):
                return Tokenizer.from_folder(folder)
    return Tokenizer.clip()


def _embedding_rows(file: EmbeddingFile) -> int:
    """How many tokens it stands for, by its header; 0 where that cannot be read."""
    with contextlib.suppress(BadFile):
        shape = next(iter(read_header(file.path).shapes.values()), ())
        return shape[0] if len(shape) > 1 else len(shape)
    return 0
