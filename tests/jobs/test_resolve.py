"""What a request leaves open, decided: the LoRAs of field and prompt, by the names of their files."""

import json
import subprocess
import sys
import tempfile
from dataclasses import replace

import pytest

from webui.core.errors import RequestError
from webui.core.groups.hires import Hires
from webui.core.kinds import kind_of
from webui.core.prompt import MAX_CHUNKS, MAX_TERMS
from webui.core.request import MAX_LORAS, LoraRef, Request
from webui.jobs.resolve import make_order, make_orders, resolve
from webui.library.library import Library


def write_header(path, *keys: str) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps(dict.fromkeys(keys, entry)).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


@pytest.fixture
def folder(settings):
    """With the LoRAs Chalk, ink and deep/ink, and files that cannot be used."""
    folder = settings.data_dir / "models/Lora"
    (folder / "deep").mkdir(parents=True)
    for name in ("Chalk", "ink", "deep/ink"):
        write_header(folder / f"{name}.safetensors", "x.lora_up.weight")
    content = (folder / "ink.safetensors").read_bytes()
    write_header(folder / "other.safetensors", "lora_unet_double_blocks_0_img_attn_proj.lora_up.weight")
    write_header(folder / "outside.safetensors", "lora_unet_conv_out.lora_up.weight")
    write_header(folder / "wide.safetensors", "lora_unet_conv_in.alpha", "lora_unet_output_blocks_4_1_proj_in.alpha")
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
        ({"loras": refs("deep/ink:1", "ink:0.5")}, "", ["deep/ink:1", "ink:0.5"]),
        ({"loras": refs("ink:0", "Chalk:0:0", "ink:0:1", "deep/ink:1:0")}, "", ["ink:0:1", "deep/ink:1:0"]),
        ({"prompt": "<lora:ink:1:lbw=NONE> <lora:ink:1:OUTALL>"}, "", ["ink:1:lbw=OUTALL"]),
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
        ({"loras": refs("page")}, ["LoRA 'page': page.safetensors is not a safetensors file"]),
        ({"loras": refs("short")}, ["LoRA 'short'", "cut short"]),
        ({"loras": refs("empty")}, ["LoRA 'empty'", "is empty"]),
        ({"loras": refs("old")}, ["LoRA 'old'", "pickle"]),
        ({"loras": refs("other")}, ["LoRA 'other' is made for FLUX.1, FLUX.2 Klein or FLUX.2 dev, but this model is"]),
        ({"prompt": "x [<lora:other:1>::5]"}, ["LoRA 'other' is made for FLUX.1, FLUX.2"]),
        ({"negative": "x <lora:ink:1>"}, ["negative", "put its tag into the prompt"]),
        ({"loras": refs("ink:0.5", "INK:1")}, ["LoRA “ink” is named more than once: ink:0.5 and ink:1"]),
        ({"prompt": "<lora:ink:0.5>", "loras": refs("ink:1@0;0@1")}, ["LoRA “ink” is named more than once"]),
        ({"prompt": "x <lora:ink:1:lbw=OUTAL>"}, ["<lora:ink:1:lbw=OUTAL>", "(lbw) must be values"]),
        ({"prompt": "x [<lora:ink:1:lbw=1,1>::5]"}, ["<lora:ink:1:lbw=1,1>", "(it has 2)"]),
        ({"loras": refs("outside:1:lbw=ALL")}, ["LoRA 'outside': lbw and lbwe have no block for lora_unet_conv_out"]),
        ({"prompt": "x <lora::1>"}, ["<lora::1>", "cannot be read"]),
        ({"prompt": "x <lora:ink:99>"}, ["<lora:ink:99>", "at most 10"]),
        ({"prompt": "<lora:ink:1>" * MAX_LORAS, "loras": refs("ink")}, [f"{MAX_LORAS + 1} LoRAs", str(MAX_LORAS)]),
    ],
)
def test_what_cannot_be_applied_is_refused_by_name(resolved, fields, words):
    with pytest.raises(RequestError) as caught:
        resolved(**fields)
    assert all(word in str(caught.value) for word in words)


def with_family(settings, family: str):
    """The library, its demo model called one of another family."""
    library = Library(settings).snapshot()
    demo = library.models["demo"]
    whole = replace(demo.checkpoint, family=family, parts=kind_of(family).parts)
    library.models = {"demo": replace(demo, checkpoint=whole)}
    return library


def test_weights_by_block_are_for_families_that_have_these_blocks(settings, folder):
    for family in ("SD 1.x", "SD 2.x", "SDXL"):
        assert resolve(Request(loras=["ink:1:lbw=OUTALL"]), with_family(settings, family)).loras
    for text in ("ink:1:lbw=OUTALL", "ink:1:lbwe=ATTNDEEPOFF"):
        with pytest.raises(RequestError, match="LoRA 'ink': .*model 'demo' is SDXL refiner, which has others"):
            resolve(Request(loras=[text]), with_family(settings, "SDXL refiner"))
    assert resolve(
        Request(loras=["outside:1:lbw=" + ",".join(["1"] * 26)]), with_family(settings, "SDXL refiner")
    ).loras


def test_blocks_that_a_list_does_not_name_are_told(settings, folder):
    def said(**fields):
        return [line for line in make_order(Request(**fields), Library(settings).snapshot()).warnings if "lbw" in line]

    told = "LoRA wide: lbw=OUTALL has no value for IN00, which this file changes too: they count 0."
    assert said(loras=["wide:1:lbw=OUTALL"]) == said(prompt="x [<lora:wide:1:OUTALL>::5]") == [told]
    assert said(loras=["wide:1:lbw=" + ",".join(["0.5"] * 26), "ink:1:lbw=OUTALL"]) == []
    (sdxl,) = said(loras=["wide:1:lbw=" + ",".join(["1"] * 12)])
    assert "has no value for IN00, which" in sdxl


def test_random_weights_by_block_are_drawn_once_and_kept(resolved):
    text = "ink:1:lbw=R,U" + ",0" * 15
    first, second, other = (resolved(loras=[text], seed=seed) for seed in (7, 7, 8))
    assert first == second != other and "R" not in first.loras[0].block_weights
    assert resolve_again(resolved, first) == first
    moving = resolved(prompt=f"a [<lora:{text}>::5]", seed=7)
    assert moving.prompt == f"a [<lora:{first.loras[0]}>::5]" and resolve_again(resolved, moving) == moving


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
    in_vain = "“Stop guidance after” has no effect on a model that guides itself."
    assert (in_vain in make_order(asked, library).warnings) == guides_itself
    assert bool(request.approximations) == (not guides_itself)


@pytest.mark.parametrize("field", ["prompt", "negative"])
def test_a_prompt_of_too_many_chunks_is_refused_before_it_waits(resolved, field):
    assert getattr(resolved(**{field: "BREAK " * (MAX_CHUNKS - 1)}), field)
    with pytest.raises(RequestError, match=f"^{field}: it comes to more than 64 chunks of 75 tokens") as caught:
        resolved(**{field: "BREAK " * MAX_CHUNKS})
    assert caught.value.field == field


DIGITS = "7" * 4_801
"""A token each: one more than 64 chunks hold."""


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"prompt": DIGITS}, "prompt"),
        ({"negative": DIGITS}, "negative"),
        ({"prompt": f"[a:{DIGITS}:3]"}, "prompt"),
        ({"prompt": f"a AND {DIGITS}"}, "prompt"),
        ({"prompt": f"{{1|2}} {DIGITS}"}, "prompt"),
        ({"hires": {"prompt": DIGITS}}, "hires.prompt"),
        ({"detail": [{"finder": "demo-subject", "prompt": DIGITS}]}, "detail.1.prompt"),
        ({"regions": [{"box": "0:0:0.5:1", "prompt": f"a {DIGITS}"}]}, "regions.1.prompt"),
        ({"prompt": "a BREAK " * 31 + "7" * (75 * 33) + " BREAK 1"}, "prompt"),
    ],
)
def test_a_prompt_of_too_many_tokens_is_refused_before_it_waits(settings, fields, place):
    library = Library(settings).snapshot()
    with pytest.raises(RequestError, match=f"^{place}: it comes to more than 64 chunks of 75 tokens") as caught:
        make_orders(Request.parse(fields), library)
    assert caught.value.field == place


def test_a_prompt_as_long_as_can_be_is_not_refused(settings):
    library = Library(settings).snapshot()
    for text in (DIGITS[:-1], "word " * 1_200, "a BREAK " * 30 + "7" * (75 * 33) + " BREAK ", f"[{DIGITS}:a:0]"):
        assert make_order(Request(prompt=text), library).passes


def test_a_model_that_reads_a_text_as_a_whole_has_its_own_limit(settings):
    library = Library(settings).snapshot()
    demo = library.models["demo"]
    library.models = {"demo": replace(demo, checkpoint=replace(demo.checkpoint, family="Z-Image"))}
    assert make_order(Request(prompt="7" * 4_096), library).passes
    with pytest.raises(RequestError, match="^negative: it has 4,097 tokens; 4,096 are the most") as caught:
        make_order(Request(negative="7" * 4_097), library)
    assert caught.value.field == "negative"


def test_an_embedding_may_stand_for_many_words(settings):
    """Its name has more tokens than it, and so a prompt of it is not surely too long."""
    folder = settings.data_dir / "embeddings"
    folder.mkdir(parents=True)
    entry = {"dtype": "F32", "shape": [1, 64], "data_offsets": [0, 256]}
    header = json.dumps({"emb_params": entry}).encode()
    (folder / "7777777777.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(256))
    library = Library(settings).snapshot()
    assert make_order(Request(prompt="7777777777 " * 700), library).passes
    with pytest.raises(RequestError, match="chunks"):
        make_order(Request(prompt="6666666666 " * 700), library)


def test_counting_a_long_prompt_imports_no_torch():
    code = """
import sys
from webui.core.errors import RequestError
from webui.core.request import Request
from webui.core.settings import Settings
from webui.jobs.resolve import make_order
from webui.library.library import Library
try:
    make_order(Request(prompt="7" * 4801), Library(Settings(data_dir=sys.argv[1])).snapshot())
except RequestError as error:
    print(error.field, "torch" in sys.modules)
"""
    with tempfile.TemporaryDirectory() as folder:
        said = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["prompt", "False"]


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


def test_a_second_pass_is_decided_with_the_first(resolved):
    own = {"upscaler": "LANCZOS", "model": "Demo", "sampler": "dpm++ 2m karras", "prompt": "a dog <lora:ink:0.5>"}
    hires = resolved(loras=refs("Chalk"), hires=own).hires
    assert (hires.upscaler, hires.model, hires.sampler, hires.schedule) == ("Lanczos", "demo", "DPM++ 2M", "Karras")
    assert hires.prompt == "a dog" and [str(ref) for ref in hires.loras] == ["ink:0.5"]
    assert resolved(hires={"upscaler": "latent (BICUBIC)"}).hires.upscaler == "Latent (bicubic)"
    assert resolved(hires={}).hires == Hires()
    assert [str(ref) for ref in resolved(loras=refs("ink:0:hr=0.5")).loras] == ["ink:0:hr=0.5"]
    assert [str(ref) for ref in resolved(hires={"loras": refs("ink:0")}).hires.loras] == ["ink:0"]  # none at all


@pytest.mark.parametrize(
    ("hires", "words"),
    [
        ({"upscaler": "realesr"}, r"hires: There is no upscaler “realesr”; did you mean realesr-animevideov3\?"),
        ({"upscaler": "Latnt"}, r"hires: There is no upscaler “Latnt”; did you mean Latent\?"),
        ({"model": "dem"}, r"hires: There is no model “dem”; did you mean demo\?"),
        ({"sampler": "LCM", "schedule": "Karras"}, "hires: schedule “Karras” does not go with LCM"),
        ({"loras": ("gone",)}, "hires: There is no LoRA “gone”"),
        ({"negative": "<lora:ink:1>"}, "hires.negative: a LoRA acts on the whole picture"),
        ({"scale": 16}, "hires: 512 x 512 px would become 8192 x 8192 px, .* the largest scale .* is 4,"),
    ],
)
def test_what_a_second_pass_cannot_be_is_refused_by_name(settings, folder, hires, words):
    with pytest.raises(RequestError, match=words):
        make_order(Request(width=512, height=512, hires=hires), Library(settings).snapshot())


def test_what_the_model_of_a_second_pass_lacks_is_refused_at_the_field_that_asks_for_it(settings):
    library = Library(settings).snapshot()
    demo = library.models["demo"]
    whole = kind_of("Anima").parts
    flow = replace(
        demo, name="flow", checkpoint=replace(demo.checkpoint, family="Anima", parts=whole, prediction="flow")
    )
    library.models = {"demo": demo, "flow": flow}
    with pytest.raises(RequestError, match="^clip_skip: Anima, as 'flow' is, has no clip skip") as caught:
        resolve(Request(clip_skip=2, hires=Hires(model="flow", sampler="Euler")), library)
    assert caught.value.field == "clip_skip"
    request = resolve(Request(hires=Hires(model="flow", sampler="Euler")), library)
    assert request.hires.model == "flow"


def test_a_latent_pass_needs_a_model_of_the_same_latents(settings, folder):
    library, large = with_family(settings, "SD 1.x"), with_family(settings, "SDXL").models["demo"]
    library.models |= {"large": replace(large, name="large")}
    with pytest.raises(RequestError, match="hires: model 'large' is SDXL and cannot go on with the latents of SD 1.x"):
        make_order(Request(hires={"upscaler": "Latent", "model": "large"}), library)
    order = make_order(Request(loras=refs("ink"), hires={"model": "large"}), library)
    assert [stage.model.name for stage in order.passes] == ["demo", "large"] and not order.passes[1].loras
    line = "The LoRAs of the first pass are left out of the second: large is of another kind."
    assert line in order.warnings
