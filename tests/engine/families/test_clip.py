"""Text encoding: plain prompts are transformers' own to the last bit, the rest is the formula by hand."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from webui.engine.embeddings import Embedding
from webui.engine.families.clip import encode, weigh
from webui.engine.nets.clip import ClipText
from webui.engine.tokens import Chunk, Tokenizer, split_chunks
from webui.library.library import DEMO_MODEL

LENGTH, WIDTH, PROJECTED, START, END = 16, 32, 24, 98, 99
PLAIN = (1.0,) * LENGTH


def make(kind, eos_token_id=END):
    """Ours, and transformers' own with the same weights."""
    config = CLIPTextConfig(
        vocab_size=100,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=PROJECTED,
        bos_token_id=START,
        eos_token_id=eos_token_id,
        pad_token_id=0,
    )
    torch.manual_seed(7)
    theirs = kind(config).eval().requires_grad_(False)
    for parameter in theirs.parameters():  # larger than at the start of a training, biases too
        parameter.add_(0.2 * torch.randn_like(parameter))
    encoder = ClipText(config.to_dict(), kind is CLIPTextModelWithProjection).eval().requires_grad_(False)
    encoder.load_state_dict({name.removeprefix("text_model."): own for name, own in theirs.state_dict().items()})
    return encoder, theirs


@pytest.fixture(scope="module", params=[CLIPTextModel, CLIPTextModelWithProjection])
def both(request):
    return make(request.param)


@pytest.fixture
def encoder(both):
    return both[0]


@pytest.fixture
def theirs(both):
    return both[1]


def chunk(*ids: int, weights=PLAIN, vectors=()) -> Chunk:
    return Chunk((START, *ids, END, *[0] * (LENGTH - 2 - len(ids))), tuple(weights), tuple(vectors))


def run(theirs, chunks):
    return theirs(torch.tensor([part.ids for part in chunks]), output_hidden_states=True)


@pytest.mark.parametrize("chunks", [[chunk(5, 6, 7)], [chunk(*range(1, 15)), chunk(3, 4), chunk()]])
@pytest.mark.parametrize("layer", [-1, -2, -4])
@pytest.mark.parametrize("normalise", [True, False])
def test_a_plain_prompt_is_transformers_own_output(encoder, theirs, chunks, layer, normalise):
    context, pooled = encode(encoder, "text_encoder", chunks, layer, normalise, {})
    own = run(theirs, chunks)
    if normalise:
        expected = own.last_hidden_state if layer == -1 else encoder.final_layer_norm(own.hidden_states[layer])
    else:
        expected = own.hidden_states[layer]
    assert context.shape == (1, len(chunks) * LENGTH, WIDTH) and context.dtype == torch.float32
    assert torch.equal(context.view(-1, LENGTH, WIDTH), expected)
    if isinstance(theirs, CLIPTextModelWithProjection):
        assert pooled.shape == (1, PROJECTED) and torch.equal(pooled, own.text_embeds[:1])
    else:
        assert pooled is None


def test_the_last_layer_is_the_one_that_the_norm_follows(encoder):
    raw, _ = encode(encoder, "text_encoder", [chunk(5, 6)], -1, False, {})
    normed, _ = encode(encoder, "text_encoder", [chunk(5, 6)], -1, True, {})
    assert not torch.equal(raw, normed) and torch.equal(encoder.final_layer_norm(raw), normed)


def test_the_summary_is_read_at_the_first_end():
    encoder, theirs = make(CLIPTextModelWithProjection, eos_token_id=2)  # as in the configs of many SDXL files
    _, pooled = encode(encoder, "text_encoder_2", [chunk(5, 6), chunk(7)], -2, False, {})
    hidden = run(theirs, [chunk(5, 6)]).last_hidden_state
    assert torch.allclose(pooled, encoder.text_projection(hidden[:, 3]), atol=1e-6)


def test_weights_multiply_tokens_and_keep_the_mean(encoder):
    weights = [1.0, 1.3, 0.5, -1.0, *[1.0] * 12]
    plain = chunk(9, 8)
    context, pooled = encode(encoder, "text_encoder", [chunk(5, 6, 7, weights=weights), plain], -2, True, {})
    before, before_pooled = encode(encoder, "text_encoder", [chunk(5, 6, 7), plain], -2, True, {})
    first = before[0, :LENGTH].double()
    weighted = first * torch.tensor(weights).double()[:, None]
    expected = weighted * (first.mean() / weighted.mean())
    assert torch.allclose(context[0, :LENGTH].double(), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(context[0, :LENGTH], before[0, :LENGTH], rtol=1e-2)
    assert torch.equal(context[0, LENGTH:], before[0, LENGTH:])  # another chunk's weights are its own
    assert pooled is None or torch.equal(pooled, before_pooled)  # the summary has no weights


def test_a_chunk_whose_mean_is_lost_is_not_multiplied_back():
    context = torch.tensor([[[1.0, 3.0], [2.0, 2.0]], [[1.0, -1.0], [2.0, -2.0]], [[1.0, 3.0], [2.0, 2.0]]])
    weights = torch.tensor([[1.0, -1.0], [3.0, 1.0], [0.0, 0.0]])
    expected = [[[1.0, 3.0], [-2.0, -2.0]], [[3.0, -3.0], [2.0, -2.0]], [[0.0, 0.0], [0.0, 0.0]]]
    assert weigh(context, weights).tolist() == expected


@pytest.mark.parametrize("weight", [0.0, 1e6, -1e6])
def test_the_largest_weights_give_finite_numbers(encoder, weight):
    context, _ = encode(encoder, "text_encoder", [chunk(5, weights=[weight] * LENGTH)], -1, True, {})
    assert context.isfinite().all()


@pytest.fixture
def embeddings():
    torch.manual_seed(3)
    oil, oil_2, ink = torch.randn(3, WIDTH), torch.randn(3, WIDTH), torch.randn(1, WIDTH)
    return {
        "oil": Embedding("oil", 3, {"text_encoder": oil, "text_encoder_2": oil_2}, ""),
        "ink": Embedding("ink", 1, {"text_encoder": ink}, ""),
    }


def test_an_embedding_takes_the_place_of_its_tokens(encoder, theirs, embeddings):
    oil = [(2 + row, "oil", row) for row in range(3)]
    chunks = [chunk(5, 0, 0, 0, 6, vectors=oil), chunk(7, 8), chunk(0, 9, vectors=[(1, "ink", 0)])]
    context, _ = encode(encoder, "text_encoder", chunks, -1, True, embeddings)

    words = theirs.get_input_embeddings()
    embedded = words(torch.tensor([part.ids for part in chunks]))
    embedded[0, 2:5] = embeddings["oil"].vectors["text_encoder"]
    embedded[2, 1] = embeddings["ink"].vectors["text_encoder"][0]
    with words.register_forward_hook(lambda *_: embedded):
        expected = run(theirs, chunks).last_hidden_state
    assert torch.equal(context.view(-1, LENGTH, WIDTH), expected)
    assert not torch.equal(expected, run(theirs, chunks).last_hidden_state)


def test_each_encoder_gets_its_own_vectors(encoder, embeddings):
    chunks = [chunk(0, vectors=[(1, "oil", 1)])]
    first, _ = encode(encoder, "text_encoder", chunks, -1, True, embeddings)
    second, _ = encode(encoder, "text_encoder_2", chunks, -1, True, embeddings)
    assert not torch.allclose(first, second)


def test_nothing_of_an_embedding_stays_behind(encoder, embeddings):
    plain, weights = [chunk(5, 6)], encoder.embeddings.token_embedding.weight.clone()
    before, _ = encode(encoder, "text_encoder", plain, -1, True, {})
    encode(encoder, "text_encoder", [chunk(0, vectors=[(1, "oil", 0)])], -1, True, embeddings)
    with pytest.raises(KeyError):
        encode(encoder, "text_encoder", [chunk(0, vectors=[(1, "lost", 0)])], -1, True, embeddings)
    assert torch.equal(encoder.embeddings.token_embedding.weight, weights)
    assert torch.equal(encode(encoder, "text_encoder", plain, -1, True, {})[0], before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_encoder_is_weighed_in_float32(dtype, embeddings):
    encoder = make(CLIPTextModelWithProjection)[0].to(dtype)
    weights, vectors = [1.0, 1.3, *[1.0] * 14], [(1, "oil", 0)]
    before, _ = encode(encoder, "text_encoder", [chunk(0, 5, vectors=vectors)], -2, True, embeddings)
    weighted_chunk = chunk(0, 5, weights=weights, vectors=vectors)
    context, pooled = encode(encoder, "text_encoder", [weighted_chunk], -2, True, embeddings)
    assert before.dtype == context.dtype == pooled.dtype == torch.float32
    assert torch.equal(before, before.to(dtype).float())
    weighted = before.double() * torch.tensor(weights).double()[:, None]
    assert torch.allclose(context.double(), weighted * (before.double().mean() / weighted.mean()), rtol=1e-4)


def test_the_embedded_model_reads_a_prompt_of_two_chunks():
    folder = DEMO_MODEL / "text_encoder"
    encoder = ClipText(json.loads((folder / "config.json").read_text("utf-8")), projects=False).eval()
    encoder.load_state_dict(load_file(folder / "model.safetensors"))
    tokenizer = Tokenizer.from_folder(DEMO_MODEL / "tokenizer")
    chunks = split_chunks("a (red:1.3) apple, flat style BREAK on a blue background", tokenizer)
    with torch.inference_mode():
        context, _ = encode(encoder, "text_encoder", chunks, -1, True, {})
        halves = [encode(encoder, "text_encoder", [part], -1, True, {})[0] for part in chunks]
    assert context.shape[:2] == (1, 154) and math.isfinite(context.sum())
    assert torch.allclose(context, torch.cat(halves, dim=1), atol=1e-5)
