"""A CLIP tokenizer with a small vocabulary of its own; bytes cover whatever the captions never held."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers.models.clip import CLIPTokenizer

from .captions import tokenizer_corpus

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_LENGTH = 77
MERGES = 488
"""As many as the folder's size allows; rarer words take two or three tokens."""


def learn_merges() -> list[tuple[str, str]]:
    """Byte-pair merges of the captions' words, with CLIP's end-of-word mark."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=2 * 256 + MERGES,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    words = [word for text in tokenizer_corpus() for word in text.replace(",", " ,").split()]
    tokenizer.train_from_iterator(words, trainer)
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]][:MERGES]


def vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """In CLIP's order: all bytes, all bytes at a word's end, the merges' results, the two special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = letters + [letter + "</w>" for letter in letters] + ["".join(pair) for pair in merges]
    return {token: index for index, token in enumerate(dict.fromkeys([*tokens, START, END]))}


def prepare(folder: Path) -> CLIPTokenizer:
    """The tokenizer in the folder, learned if there is none yet."""
    return CLIPTokenizer.from_pretrained(folder) if (folder / "vocab.json").exists() else train(folder)


def train(folder: Path) -> CLIPTokenizer:
    """Learn the vocabulary and write it in both forms: vocab.json with merges.txt, and tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = learn_merges()
    vocab = vocabulary(merges)
    pairs: Any = merges  # annotated there as words, and read as pairs
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(
        vocab=vocab,
        merges=pairs,
        model_max_length=MAX_LENGTH,
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
