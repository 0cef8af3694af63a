"""The text encoder against transformers' own, with the same random weights."""

import pytest
import torch
from torch.testing import assert_close
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from webui.engine.nets.clip import DEFAULTS, ClipText
from webui.engine.streaming import Space, Streamed
from webui.engine.weights import build_empty

LENGTH, WIDTH, PROJECTED, DEPTH, PAD, START, END = 16, 40, 24, 4, 0, 98, 99
SMALL = {
    "vocab_size": 100,
    "hidden_size": WIDTH,
    "intermediate_size": 72,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "max_position_embeddings": LENGTH,
    "projection_dim": PROJECTED,
    "bos_token_id": START,
    "eos_token_id": END,
    "pad_token_id": PAD,
}
IDS = torch.tensor(
    [
        [START, 5, 6, 7, END, *[PAD] * 11],
        [START, *range(1, 15), END],
        [START, 8, END, *[END] * 13],  # padded with ends
        [START, 8, 9, END, 7, END, *[PAD] * 10],
    ]
)
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def make(projects: bool = True, **settings):
    """Theirs and ours."""
    torch.manual_seed(7)
    config = CLIPTextConfig(**{**SMALL, **settings})
    theirs = (CLIPTextModelWithProjection if projects else CLIPTextModel)(config).eval().requires_grad_(False)
    for parameter in theirs.parameters():  # larger than at the start of a training, biases too
        parameter.add_(0.2 * torch.randn_like(parameter))
    ours = ClipText(config.to_dict(), projects).eval().requires_grad_(False)
    ours.load_state_dict({name.removeprefix("text_model."): tensor for name, tensor in theirs.state_dict().items()})
    return theirs, ours


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("projects", [True, False])
def test_every_hidden_state_and_the_summary_are_transformers_own(activation, projects):
    theirs, ours = make(projects, hidden_act=activation, layer_norm_eps=1e-3)
    expected = theirs(IDS, output_hidden_states=True)
    norm = (theirs.text_model if projects else theirs).final_layer_norm
    for layer in (-1, -2, -3, -DEPTH - 1):
        context, pooled = ours(IDS, layer, normalise=False)
        assert_close(context, expected.hidden_states[layer], **CLOSE)
        normed, _ = ours(IDS, layer, normalise=True)
        assert_close(normed, norm(expected.hidden_states[layer]), **CLOSE)
        if projects:
            assert pooled.shape == (len(IDS), PROJECTED)
            assert_close(pooled, expected.text_embeds, **CLOSE)
        else:
            assert pooled is None
    assert_close(ours(IDS, -1, normalise=True)[0], expected.last_hidden_state, **CLOSE)
    assert_close(ours(IDS[:, :6], -1, normalise=True)[0], expected.last_hidden_state[:, :6], **CLOSE)


@pytest.mark.parametrize(
    "end, added, positions",
    [
        (END, 0, [4, 15, 2, 3]),  # the first of several
        (77, 0, [0, 0, 0, 0]),  # nowhere
        (2, 0, [4, 15, 2, 3]),  # the highest id, as in the configurations of many SDXL files
        (2, 100, [1, 1, 1, 1]),  # a higher one after the start
    ],
)
def test_the_summary_is_read_where_transformers_reads_it(end, added, positions):
    ids = torch.cat([IDS[:, :1], torch.full((4, 1), added), IDS[:, 1:-1]], dim=1) if added else IDS
    theirs, ours = make(eos_token_id=end, vocab_size=101)
    _, pooled = ours(ids, -2, normalise=False)
    assert_close(pooled, theirs(ids).text_embeds, **CLOSE)
    last, _ = ours(ids, -1, normalise=True)
    assert_close(pooled, ours.text_projection(last[torch.arange(len(ids)), positions]), **CLOSE)


@pytest.mark.parametrize("projects", [True, False])
def test_what_is_placed_takes_the_place_of_tokens(projects):
    theirs, ours = make(projects)
    vectors, seen = torch.randn(2, WIDTH), []

    def place(embedded: torch.Tensor) -> None:
        seen.append(embedded.clone())
        embedded[0, 2:4] = vectors

    context, pooled = ours(IDS, -1, True, place)
    words = theirs.get_input_embeddings()
    embedded = words(IDS)
    assert_close(seen, [embedded], rtol=0, atol=0)
    embedded[0, 2:4] = vectors
    with words.register_forward_hook(lambda *_: embedded):
        expected = theirs(IDS)
    assert_close(context, expected.last_hidden_state, **CLOSE)
    assert not torch.allclose(context[0], ours(IDS, -1, True)[0][0])
    if projects:
        assert_close(pooled, expected.text_embeds, **CLOSE)
    assert_close(ours.embeddings.token_embedding.weight, words.weight, rtol=0, atol=0)


@pytest.mark.parametrize("projects, layer, count", [(False, -1, 4), (False, -2, 3), (False, -5, 0), (True, -2, 4)])
def test_layers_that_nothing_needs_do_not_run(projects, layer, count):
    _, ours = make(projects)
    ran = []
    for number, module in enumerate(ours.encoder.layers):
        module.register_forward_hook(lambda *_, number=number: ran.append(number))
    ours(IDS, layer, True)
    assert ran == list(range(count))


@pytest.mark.parametrize("layer", [0, 1, -DEPTH - 2])
def test_a_layer_that_is_not_there_is_refused(layer):
    with pytest.raises(IndexError, match=f"4 layers and no hidden state {layer}"):
        make()[1](IDS, layer, True)


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(ValueError, match="reads 16 tokens at once, not 17"):
        make()[1](torch.zeros(1, 17, dtype=torch.int64), -1, True)


@pytest.mark.parametrize("projects", [True, False])
def test_it_has_transformers_names_and_no_buffers(projects):
    theirs, _ = make(projects)
    empty = build_empty(lambda: ClipText(SMALL, projects))
    names = {name.removeprefix("text_model."): tensor.shape for name, tensor in theirs.state_dict().items()}
    assert {name: tensor.shape for name, tensor in empty.state_dict().items()} == names
    assert not list(empty.buffers()) and empty.device.type == "meta"
    assert (empty.hidden_size, empty.depth) == (WIDTH, DEPTH)
    half = make(projects)[1].to(torch.float16)
    assert half.dtype == torch.float16 and half.device.type == "cpu"
    assert half(IDS, -2, True)[0].dtype == torch.float16


def test_what_a_configuration_lacks_is_as_transformers_has_it():
    default = CLIPTextConfig()
    assert {name: getattr(default, name) for name in DEFAULTS} == DEFAULTS
    empty = build_empty(lambda: ClipText({"eos_token_id": None, "layer_norm_eps": None, "what": "ever"}, True))
    assert empty.embeddings.token_embedding.weight.shape == (49408, 512) and empty.depth == 12
    assert empty.final_layer_norm.eps == 1e-5


def test_the_configuration_may_lie_in_that_of_a_whole_clip():
    whole = {"model_type": "clip", "projection_dim": 512, "hidden_size": 8, "text_config": SMALL}
    empty = build_empty(lambda: ClipText(whole, True))
    assert (empty.hidden_size, empty.text_projection.weight.shape) == (WIDTH, (PROJECTED, WIDTH))
    assert build_empty(lambda: ClipText({**SMALL, "text_config": None}, True)).hidden_size == WIDTH


@pytest.mark.parametrize(
    "name, value",
    [
        ("hidden_act", "gelu_new"),
        ("hidden_act", None),
        ("hidden_size", None),
        ("num_hidden_layers", "4"),
        ("num_attention_heads", 4.0),
        ("eos_token_id", [END]),
    ],
)
def test_what_it_does_not_do_is_refused_by_name(name, value):
    with pytest.raises(ValueError) as error:
        build_empty(lambda: ClipText({**SMALL, name: value}, False))
    assert f"{name} is {value!r}" in str(error.value)


@pytest.mark.parametrize("heads", [3, 0, -4])
def test_heads_that_do_not_divide_the_width_are_refused(heads):
    with pytest.raises(ValueError, match=f"40, cannot be divided among {heads} heads"):
        build_empty(lambda: ClipText({**SMALL, "num_attention_heads": heads}, False))


def test_it_may_rest_off_the_device_between_calls():
    _, ours = make()
    vectors = torch.randn(WIDTH)

    def place(embedded: torch.Tensor) -> None:
        embedded[0, 2] = vectors

    expected = ours(IDS, -2, True, place)
    streamed = Streamed(ours, Space(torch.device("cpu"), stays=False))
    assert_close(ours(IDS, -2, True, place), expected, rtol=0, atol=0)
    streamed.unhook()
    assert_close(ours(IDS, -2, True, place), expected, rtol=0, atol=0)
