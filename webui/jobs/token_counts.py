"""How many tokens a prompt takes, counted while the device is busy and before the engine is there."""

import contextlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from webui.core.errors import RequestError
from webui.core.files import EmbeddingFile
from webui.core.lora_files import bundled_rows
from webui.core.names import choose_lora
from webui.core.prompt import split_loras
from webui.core.request import LoraRef
from webui.core.schedule import texts_of
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
