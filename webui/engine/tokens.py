"""Prompt text as token ids, in chunks of what CLIP's text encoder reads at once, cut where A1111 cuts them."""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers

from webui.core.prompt import check_chunks, parse_weights

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77
COMMA_REACH = 20
"""So many tokens before a chunk's end are searched for a comma to cut it at."""

_MERGES = Path(__file__).parent / "clip_vocabulary" / "merges.txt.gz"
_WORD = Regex(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")

Slot = tuple[int, float, tuple[str, int] | None]
"""A token's id, its weight and, for a row of an embedding, that one's name and the row."""


class Tokenizer:
    """CLIP's tokenizer: ids of text, those that start, end and pad a chunk, and a chunk's length with all of them."""

    def __init__(self, backend: tokenizers.Tokenizer, start: int, end: int, pad: int, length: int = LENGTH) -> None:
        self._backend = backend
        self.start, self.end, self.pad, self.length = start, end, pad, length
        self.comma: int | None = backend.token_to_id(",</w>")

    def ids(self, text: str) -> list[int]:
        """The text's ids alone, as many as there are."""
        whole = text.encode("utf-8", "replace").decode("utf-8")  # half a character of two, as JSON can hold
        return self._backend.encode(whole, add_special_tokens=False).ids

    @classmethod
    def from_folder(cls, path: Path) -> "Tokenizer":
        """From the ``tokenizer`` folder of a diffusers model; raises OSError or ValueError."""
        try:
            vocabulary, merges, added = _read_vocabulary(path)
            settings = _read_json(path / "tokenizer_config.json") | _read_json(path / "special_tokens_map.json")
            start, end = _read_token(settings, "bos_token", START), _read_token(settings, "eos_token", END)
            pad, unknown = _read_token(settings, "pad_token", end), _read_token(settings, "unk_token", end)
            length = settings.get("model_max_length", LENGTH)
            length = length if isinstance(length, int) and 2 < length < 2**16 else LENGTH  # 1e30: it was not known
            new = {token: number for token, number in added.items() if token not in vocabulary}
            vocabulary |= new
            backend = _build(vocabulary, merges, unknown, special=[start, end], added=list(new))
            return cls(backend, vocabulary[start], vocabulary[end], vocabulary[pad], length)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the tokenizer cannot be read: {error!r}") from error

    @classmethod
    def clip(cls, pad: int | None = None) -> "Tokenizer":
        """With OpenAI's vocabulary, for files that bring none; ``pad`` is the end token, if not given."""
        merges = [_split_merge(line) for line in gzip.decompress(_MERGES.read_bytes()).decode("utf-8").splitlines()]
        letters = _byte_letters()
        words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge) for merge in merges), START, END]
        vocabulary = {word: number for number, word in enumerate(words)}
        start, end = vocabulary[START], vocabulary[END]
        return cls(_build(vocabulary, merges, END, special=[START, END]), start, end, end if pad is None else pad)


@dataclass(frozen=True)
class Chunk:
    """What the text encoder reads at once: ``length`` ids with a weight each.

    ``vectors`` are (position, embedding's name, row): what stands in for the token there, whose id is 0.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    vectors: tuple[tuple[int, str, int], ...] = ()


def split_chunks(text: str, tokenizer: Tokenizer, embeddings: Mapping[str, int] = {}) -> tuple[Chunk, ...]:
    """The prompt in chunks, at least one; ``embeddings`` are names and their rows, of which a chunk must hold all."""
    *filled, last = _fill_chunks(text, tokenizer, embeddings)
    return tuple(_close(slots, tokenizer) for slots in (*filled, *([last] if last or not filled else [])))


def count_tokens(
    text: str, tokenizer: Tokenizer, embeddings: Mapping[str, int] = {}, field: str = "prompt"
) -> tuple[int, int]:
    """How many tokens the prompt takes, and how many its chunks hold. A chunk closed early is taken whole.

    RequestError for too many chunks, with the field that the text is in.
    """
    room = tokenizer.length - 2
    *filled, last = _fill_chunks(text, tokenizer, embeddings, field)
    used = room * len(filled) + len(last)
    return used, room * max(1, ceil(used / room))


def _fill_chunks(
    text: str, tokenizer: Tokenizer, embeddings: Mapping[str, int], field: str = "prompt"
) -> list[list[Slot]]:
    """The slots of each chunk between its start and end; the last is the one still open, empty behind a BREAK.

    A full chunk is cut behind its last comma, where that is near and the next token is no comma itself. An embedding's
    rows stay together. Raises RequestError for too many chunks.
    """
    room = tokenizer.length - 2
    names = _index_names(tokenizer, embeddings)
    chunks: list[list[Slot]] = [[]]
    for words in parse_weights(text):
        check_chunks(len(chunks), field)
        if words.starts_chunk:
            chunks.append([])
        ids = tokenizer.ids(words.text)
        place = 0
        while place < len(ids):
            if len(chunks[-1]) == room:
                kept = room if ids[place] == tokenizer.comma else _find_cut(chunks[-1], tokenizer.comma)
                chunks[-1:] = chunks[-1][:kept], chunks[-1][kept:]
            name, length = _find_name(names, ids, place)
            place += length
            if name is None:
                chunks[-1].append((ids[place - 1], words.weight, None))
                continue
            rows = embeddings[name]
            if len(chunks[-1]) + rows > room:
                chunks.append([])
            chunks[-1] += [(0, words.weight, (name, row)) for row in range(rows)]
    check_chunks(len(chunks), field)
    return chunks


def _find_cut(chunk: Sequence[Slot], comma: int | None) -> int:
    """How many slots of a full chunk are kept."""
    full = len(chunk)
    return next((kept for kept in range(full, max(0, full - COMMA_REACH), -1) if chunk[kept - 1][0] == comma), full)


def _index_names(tokenizer: Tokenizer, embeddings: Mapping[str, int]) -> dict[int, list[tuple[list[int], str]]]:
    """Names and their ids, by the first of these, longest first."""
    index: dict[int, list[tuple[list[int], str]]] = {}
    for ids, name in sorted(((tokenizer.ids(name), name) for name in embeddings), key=lambda entry: -len(entry[0])):
        if ids:
            index.setdefault(ids[0], []).append((ids, name))
    return index


def _find_name(names: dict[int, list[tuple[list[int], str]]], ids: list[int], place: int) -> tuple[str | None, int]:
    """The embedding whose name is there, and how many ids it takes."""
    for own, name in names.get(ids[place], ()):
        if ids[place : place + len(own)] == own:
            return name, len(own)
    return None, 1


def _close(slots: Sequence[Slot], tokenizer: Tokenizer) -> Chunk:
    left = tokenizer.length - 2 - len(slots)
    return Chunk(
        (tokenizer.start, *(slot[0] for slot in slots), tokenizer.end, *[tokenizer.pad] * left),
        (1.0, *(slot[1] for slot in slots), 1.0, *[1.0] * left),
        tuple((place, *slot[2]) for place, slot in enumerate(slots, 1) if slot[2]),
    )


def _build(
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    unknown: str,
    special: list[str],
    added: Sequence[str] = (),
) -> tokenizers.Tokenizer:
    """Unicode NFC in lower case, cut into words, each one's UTF-8 bytes merged; ``added`` tokens are found in any text.

    Raises ValueError.
    """
    try:
        model = models.BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token=unknown)
    except Exception as error:  # the only class it raises
        raise ValueError(f"the tokenizer cannot be read: {error}") from error
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_WORD, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    backend.add_tokens([AddedToken(token, normalized=False) for token in added if token not in special])
    return backend


def _byte_letters() -> list[str]:
    """The letter that each byte has in the vocabulary, in the vocabulary's order: printable bytes are their own."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(code) for code in (*printable, *range(256, 512 - len(printable)))]


def _read_vocabulary(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]], dict[str, int]]:
    """Ids by token, merges in order, and ids of tokens added to them."""
    added = _read_json(folder / "added_tokens.json")
    if whole := _read_json(folder / "tokenizer.json"):
        model = whole["model"]
        added |= {entry["content"]: entry["id"] for entry in whole.get("added_tokens", ())}
        merges = [_split_merge(merge) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
        return dict(model["vocab"]), merges, added
    lines = (folder / "merges.txt").read_text("utf-8").split("\n")
    merges = [_split_merge(line) for line in lines if line.strip() and not line.startswith("#version")]
    return json.loads((folder / "vocab.json").read_text("utf-8")), merges, added


def _split_merge(line: str) -> tuple[str, str]:
    left, right = line.split(" ")
    return left, right


def _read_json(path: Path) -> dict[str, Any]:
    """The file's object; empty where there is no file."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _read_token(settings: Mapping[str, Any], key: str, default: str) -> str:
    """A special token, which is written as text or as an object with its ``content``."""
    token = settings.get(key) or default
    return token["content"] if isinstance(token, dict) else token
