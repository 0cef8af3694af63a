"""The tokenizer that the recipe learns."""

import pytest
from transformers import CLIPTokenizer

from training import tokenizer as recipe
from training.captions import tokenizer_corpus
from training.unet import tokenize


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> CLIPTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    recipe.train(folder)
    return CLIPTokenizer.from_pretrained(folder)


def test_vocabulary_ends_with_the_special_tokens(tokenizer):
    assert tokenizer.bos_token_id == len(tokenizer) - 2
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == len(tokenizer) - 1
    assert tokenizer.model_max_length == 77


def test_caption_words_are_single_tokens(tokenizer):
    tokens = tokenizer.tokenize("a red apple, flat style, on a sky blue background")
    assert " ".join(tokens).replace("</w>", "") == "a red apple , flat style , on a sky blue background"
    assert all(token.endswith("</w>") for token in tokens)


def test_no_caption_is_cut(tokenizer):
    lengths = [len(tokenizer(text).input_ids) for text in tokenizer_corpus()[::37]]
    assert max(lengths) < 40


@pytest.mark.parametrize("text", ["", "xyzzy!", "Ünïcödé", "日本の猫 🐼", "\x00\x7f\u200b", "a\n\tb", "½ €"])
def test_any_text_is_spelled_in_bytes(tokenizer, text):
    tokens = tokenizer(text).input_ids
    assert tokens[0] == tokenizer.bos_token_id and tokens[-1] == tokenizer.eos_token_id
    assert tokenizer.unk_token_id not in tokens[1:-1]
    if text.strip("\x00\x7f\u200b"):
        assert len(tokens) > 2


def test_case_does_not_matter(tokenizer):
    assert tokenizer("A PANDA").input_ids == tokenizer("a panda").input_ids


def test_long_prompts_are_cut_at_77(tokenizer):
    tokens = tokenize(tokenizer, ["apple " * 200, "a cat"])
    assert tokens.shape == (2, 77)
    assert tokens[0, -1] == tokenizer.eos_token_id
