"""What a request leaves open, decided: the LoRAs of field and prompt, by the names of their files."""

import json
from dataclasses import replace

import pytest

from webui.core.errors import RequestError
from webui.core.prompt import MAX_CHUNKS, MAX_TERMS
from webui.core.request import LoraRef, Request
from webui.jobs.resolve import MAX_LORAS, make_order, resolve
from webui.library.library import Library


@pytest.fixture
def folder(settings):
    """With the LoRAs Chalk, ink and deep/ink, and files that cannot be used."""
    folder = settings.data_dir / "models/Lora"
    (folder / "deep").mkdir(parents=True)
    header = json.dumps({"x.lora_up.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(4)
    for name in ("Chalk", "ink", "deep/ink"):
        (folder / f"{name}.safetensors").write_bytes(content)
    (folder / "page.safetensors").write_text("<html>404 not found</html>")
    (folder / "short.safetensors").write_bytes(content[:-1])
    (folder / "empty.safetensors").touch()
    (folder / "old.pt").write_bytes(b"pickled")
    return folder


@pytest.fixture
def resolved(settings, folder):
    """``resolved(prompt=..., loras=...)``: the request with nothing left open."""
    return lambda **fields: resolve(Request(**fields), Library(settings).snapshot())


def refs(*texts: str) -> tuple[LoraRef, ...]:
    return tuple(LoraRef.model_validate(text) for text in texts)


@pytest.mark.parametrize(
    ("fields", "prompt", "loras"),
    [
        ({"prompt": "a cat"}, "a cat", []),
        ({"prompt": "a <lora:Chalk:0.8> cat"}, "a  cat", ["Chalk:0.8"]),
        ({"prompt": "a cat <LORA:chalk>"}, "a cat", ["Chalk:1"]),
        ({"prompt": "<lora:CHALK.safetensors:-2>a cat"}, "a cat", ["Chalk:-2"]),
        ({"prompt": "<lora:ink:0.3:0.9>", "loras": refs("Chalk:1")}, "", ["Chalk:1", "ink:0.3:0.9"]),
        ({"prompt": "x <lora:ink:te=0.3:unet=0.9>"}, "x", ["ink:0.3:0.9"]),
        ({"loras": refs("deep/ink:1", "ink:0.5", "ink:0.5")}, "", ["deep/ink:1", "ink:0.5", "ink:0.5"]),
        ({"loras": refs("ink:0", "Chalk:0:0", "ink:0:1", "ink:1:0")}, "", ["ink:0:1", "ink:1:0"]),
        ({"prompt": "x <lora:ink:0>"}, "x", []),
    ],
)
def test_loras_of_field_and_prompt_are_the_request_s_by_their_files_names(resolved, fields, prompt, loras):
    request = resolved(**fields)
    assert request.prompt == prompt and request.loras == refs(*loras)
    assert resolve_again(resolved, request) == request


@pytest.mark.parametrize(
    ("fields", "prompt", "loras"),
    [
        ({"prompt": "a [<lora:chalk:1>::0.4] <lora:ink:0.5>"}, "a [<lora:chalk:1>::0.4]", ["ink:0.5"]),
        ({"prompt": "[<lora:Chalk:1>|<lora:ink:0>]"}, "[<lora:Chalk:1>|<lora:ink:0>]", []),
        ({"prompt": "a [<lora:chalk:1>]"}, "a []", ["Chalk:1"]),
        ({"prompt": "a [<lora:chalk:1>::0.4]", "syntax": 1}, "a [::0.4]", ["Chalk:1"]),
        ({"prompt": "a <lora:chalk:1@0,0.5@0.5>"}, "a", ["Chalk:1@0;0.5@0.5"]),
        ({"loras": refs("ink:0@0;0@1")}, "", []),
    ],
)
def test_tags_in_brackets_that_change_stay_where_they_are(resolved, fields, prompt, loras):
    request = resolved(**fields)
    assert request.prompt == prompt and request.loras == refs(*loras)
    assert resolve_again(resolved, request) == request


def resolve_again(resolved, request: Request) -> Request:
    return resolved(**{name: getattr(request, name) for name in Request.model_fields})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"loras": refs("chal")}, ["no LoRA “chal”", "did you mean Chalk"]),
        ({"prompt": "x <lora:inc:1>"}, ["no LoRA “inc”", "ink"]),
        ({"prompt": "x [a:<lora:inc:1>:5]"}, ["no LoRA “inc”", "ink"]),
        ({"prompt": "x [<lora:ink:1>|<lora:old:1>]"}, ["LoRA 'old'", "pickle"]),
        ({"negative": "[<lora:ink:1>::5]"}, ["negative: a LoRA acts on the whole picture"]),
        ({"prompt": "x <lora:ink:1@0,2@x>"}, ["<lora:ink:1@0,2@x> cannot be read", "'x' is not a number"]),
        ({"prompt": "x <lora:../ink:1>"}, ["There is no "]),
        ({"prompt": "x <lora:ink:0>", "loras": refs("nowhere:0")}, ["“nowhere”"]),
        ({"loras": refs("page")}, ["LoRA 'page': page.safetensors is no safetensors file"]),
        ({"loras": refs("short")}, ["LoRA 'short'", "cut short"]),
        ({"loras": refs("empty")}, ["LoRA 'empty'", "is empty"]),
        ({"loras": refs("old")}, ["LoRA 'old'", "pickle"]),
        ({"negative": "x <lora:ink:1>"}, ["negative", "put its tag into the prompt"]),
        ({"prompt": "x <lora::1>"}, ["<lora::1>", "cannot be read"]),
        ({"prompt": "x <lora:ink:99>"}, ["<lora:ink:99>", "at most 10"]),
        ({"prompt": "<lora:ink:1>" * MAX_LORAS, "loras": refs("ink")}, [f"{MAX_LORAS + 1} LoRAs", str(MAX_LORAS)]),
    ],
)
def test_what_cannot_be_applied_is_refused_by_name(resolved, fields, words):
    with pytest.raises(RequestError) as caught:
        resolved(**fields)
    assert all(word in str(caught.value) for word in words)


def test_folders_are_looked_through_only_where_loras_are_wanted(settings, monkeypatch):
    monkeypatch.setattr("webui.library.library.find_loras", lambda *_: pytest.fail("nobody wants LoRAs"))
    plain = resolve(Request(prompt="a cat", seed=1), Library(settings).snapshot())
    assert plain.loras == () and plain.prompt == "a cat"


@pytest.mark.parametrize(("guides_itself", "guided_until"), [(True, 1.0), (False, 0.5)])
def test_a_model_that_guides_itself_is_not_called_approximate_for_guidance(settings, guides_itself, guided_until):
    library = Library(settings).snapshot()
    demo = library.models["demo"]
    checkpoint = replace(demo.checkpoint, guides_itself=guides_itself)
    library.models = {"demo": replace(demo, checkpoint=checkpoint)}
    asked = Request(guidance=5.0, guidance_until=0.5)
    request = resolve(asked, library)
    assert request.guidance_until == guided_until
    in_vain = "Guidance until has no effect on a model that guides itself."
    assert (in_vain in make_order(asked, library).warnings) == guides_itself
    assert bool(request.approximations) == (not guides_itself)


@pytest.mark.parametrize("field", ["prompt", "negative"])
def test_a_prompt_of_too_many_chunks_is_refused_before_it_waits(resolved, field):
    assert getattr(resolved(**{field: "BREAK " * (MAX_CHUNKS - 1)}), field)
    with pytest.raises(RequestError, match=f"^{field}: it comes to more than 64 chunks of 75 tokens") as caught:
        resolved(**{field: "BREAK " * MAX_CHUNKS})
    assert caught.value.field == field


def test_a_prompt_that_is_too_many_in_one_is_refused_before_it_waits(resolved):
    assert resolved(prompt=" AND ".join(["cat"] * MAX_TERMS))
    many = " AND ".join(["cat"] * (MAX_TERMS + 1))
    assert resolved(prompt=many, syntax=1)  # words
    with pytest.raises(RequestError, match="^prompt: AND makes 33 prompts of it, and 32 is the limit") as caught:
        resolved(prompt=many)
    assert caught.value.field == "prompt"


@pytest.mark.parametrize(
    ("variation", "said"),
    [({"seed": 5}, True), ({"seed": 5, "strength": 0.2}, False), ({"seed": -1}, False), (None, False)],
)
def test_a_variation_seed_without_a_strength_is_said_to_do_nothing(settings, variation, said):
    order = make_order(Request.parse({"variation": variation}), Library(settings).snapshot())
    assert ("A variation seed has no effect at variation strength 0." in order.warnings) == said
