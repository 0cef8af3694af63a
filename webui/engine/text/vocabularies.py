"""Vocabularies that ship with Darkroom, and those of diffusers' folders, as the ``tokenizers`` library reads them."""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import tokenizers

from webui.core.errors import RequestError
from webui.core.prompt import Words, parse_weights
from webui.core.tensor_file import BadFile

_VOCABULARIES = Path(__file__).parent / "vocabulary"

MOST_TOKENS = 4096
"""Of one prompt, with what stands around it: others cut it at 512, here it is read whole."""
USUAL = 512
"""Tokens of a prompt, with the one that ends it: what T5's readers were trained on."""


@dataclass(frozen=True)
class Reading:
    """A text's token ids, and the weight that each one's words have."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def is_weighted(self) -> bool:
        """Whether any weight is not 1."""
        return any(weight != 1 for weight in self.weights)


@lru_cache(maxsize=4)
def shipped(name: str) -> tokenizers.Tokenizer:
    """The vocabulary ``qwen3`` or ``t5``; read once."""
    return tokenizers.Tokenizer.from_str(gzip.decompress((_VOCABULARIES / f"{name}.json.gz").read_bytes()).decode())


def in_folder(folder: Path) -> tokenizers.Tokenizer | None:
    """The ``tokenizer.json`` of a diffusers folder, or None where it has none. Raises ValueError."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        found = tokenizers.Tokenizer.from_str(path.read_text("utf-8"))
    except Exception as error:  # the only class it raises
        raise ValueError(f"{folder.name}/tokenizer.json cannot be read: {error}") from error
    found.no_padding()
    found.no_truncation()
    return found


def fitting(vocabulary: tokenizers.Tokenizer, words: int) -> tokenizers.Tokenizer:
    """The same vocabulary; BadFile where an encoder of so many ``words`` does not know all of its own."""
    if (own := vocabulary.get_vocab_size()) > words:
        raise BadFile(f"has a text encoder of {words:,} words, where its vocabulary has {own:,}")
    return vocabulary


def check_length(tokens: int, field: str = "prompt") -> None:
    """RequestError for a prompt that is too long."""
    if tokens > MOST_TOKENS:
        raise RequestError(f"{field}: it has {tokens:,} tokens; {MOST_TOKENS:,} are the most", field)


def whole_letters(text: str) -> str:
    """Without half a character of two, as JSON can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def count(name: str, text: str, has_emphasis: bool = True) -> tuple[int, int]:
    """How many tokens a prompt takes in the vocabulary of this name, and how many are usual: more are read as well.

    Without emphasis its brackets are words. What ends a text counts to none.
    """
    ids, end = read(shipped(name), parse_weights(text) if has_emphasis else [Words(text)]).ids, int(name == "t5")
    return len(ids) - end, max(USUAL, len(ids)) - end


def read(tokenizer: tokenizers.Tokenizer, words: Sequence[Words]) -> Reading:
    """The words as one text, so that weights change nothing but weights.

    A token has the weight of its last letter: T5's tokens begin with the space before their word. BREAK means nothing
    to encoders that read a text as a whole; it is a space.
    """
    text, weights = "", []
    for part in words:
        own = f" {part.text}" if part.starts_chunk and text else part.text
        own = whole_letters(own)
        text += own
        weights += [part.weight] * len(own)
    encoded = tokenizer.encode(text)
    marks = zip(encoded.offsets, encoded.special_tokens_mask, strict=True)
    return Reading(
        tuple(encoded.ids), tuple(1.0 if added or not end else weights[end - 1] for (_, end), added in marks)
    )
