"""Request -> picture file -> Request, for every field and format; and what hostile files do to the reader."""

import json
import struct
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PilImages
from sd_parsers import ParserManager

from webui.core.events import Image
from webui.core.groups.control import Control
from webui.core.groups.detail import Detail
from webui.core.groups.hires import Hires
from webui.core.groups.init import Init
from webui.core.groups.nag import Nag
from webui.core.groups.pag import Pag
from webui.core.groups.region import Region
from webui.core.groups.upscale import Upscale
from webui.core.groups.variation import Variation
from webui.core.images import ImageError
from webui.core.prompt import parse_weights
from webui.core.recipe import Batch, Recipe, RecipeError, read_picture
from webui.core.request import LoraRef, Request
from webui.workspace.outputs import save_picture
from webui.workspace.start_pictures import StartPictures

HASHES = {"model": {"demo": "ab" * 32}, "lora": {"née <b>": "cd" * 32}}
SAMPLER = {"class": "DPMSolverMultistepScheduler", "config": {"beta_start": 0.00085, "trained_betas": None}}
ENVIRONMENT = {"torch": "2.13.0", "threads": 2, "compiled": False, "transformers": None}

texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=40)
names = texts.filter(bool)
colours = st.tuples(*[st.integers(0, 255)] * 4)


@st.composite
def inits(draw):
    size = (draw(st.integers(8, 24)), draw(st.integers(8, 24)))
    mode = draw(st.sampled_from(["RGB", "RGBA", "L", "LA", "P", "1", "I;16"]))
    picture = PilImages.new("RGBA", size, draw(colours))
    picture.putpixel((1, 1), draw(colours))
    if mode == "P":
        picture = picture.convert("RGB").quantize(4)
        if draw(st.booleans()):
            picture.info["transparency"] = 0
    elif mode == "I;16":
        picture = PilImages.new("I;16", size, draw(st.integers(0, 65535)))
    else:
        picture = picture.convert(mode)
    mask = PilImages.new("L", size, draw(st.integers(0, 255))) if draw(st.booleans()) else None
    return Init(
        image=picture,
        mask=mask,
        strength=draw(st.floats(0, 1)),
        resize=draw(st.sampled_from(["just resize", "crop and resize", "resize and fill", "latent resize"])),
        background=f"#{draw(st.integers(0, 0xFFFFFF)):06x}",
        mask_blur=draw(st.integers(0, 64)),
        mask_fill=draw(st.sampled_from(["fill", "original", "noise", "nothing"])),
        invert_mask=draw(st.booleans()),
        only_masked=draw(st.booleans()),
        padding=draw(st.integers(0, 512)),
        softness=draw(st.floats(0, 1)),
        outpaint=tuple(8 * draw(st.integers(0, 4)) for _ in range(4)),
    )


loras = st.builds(LoraRef, name=names, weight=st.floats(-10, 10), text_weight=st.none() | st.floats(-10, 10))
requests = st.builds(
    Request,
    prompt=texts,
    negative=texts,
    steps=st.integers(1, 150),
    guidance=st.floats(0, 30),
    width=st.none() | st.integers(8, 256).map(lambda n: 8 * n),
    height=st.none() | st.integers(8, 256).map(lambda n: 8 * n),
    seed=st.integers(0, 2**50),
    count=st.integers(1, 16),
    repeat=st.integers(1, 100),
    strict=st.booleans(),
    sampler=texts,
    schedule=texts,
    clip_skip=st.integers(1, 12),
    model=names,
    vae=texts,
    text_encoder=texts,
    prediction=st.sampled_from(["auto", "epsilon", "v", "v zero-SNR"]),
    form=names,
    refiner=texts,
    refiner_at=st.floats(0, 1),
    loras=st.lists(loras, max_size=3).map(tuple),
    guidance_rescale=st.floats(0, 1),
    guidance_until=st.floats(0, 1),
    reuse=st.integers(1, 10),
    token_merging=st.floats(0, 0.75),
    int8=st.booleans(),
    syntax=st.just(3),  # the others say nothing where there are no marks; see below
    template=texts,
    negative_template=texts,
    init=st.none() | inits(),
    variation=st.none() | st.builds(Variation, seed=st.integers(0, 2**50), strength=st.floats(0, 1)),
    pag=st.none() | st.builds(Pag, scale=st.floats(0, 30), adaptive=st.floats(0, 1)),
    nag=st.none() | st.builds(Nag, scale=st.floats(1, 30), tau=st.floats(1, 20), alpha=st.floats(0, 1)),
    detail=st.lists(
        st.builds(
            Detail,
            finder=names,
            prompt=texts,
            negative=texts,
            strength=st.floats(0, 1),
            padding=st.integers(0, 512),
            threshold=st.floats(0, 1),
            at_most=st.integers(1, 16),
            loras=st.lists(loras, max_size=2).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    controls=st.lists(
        st.builds(
            Control,
            model=names,
            image=st.none() | colours.map(lambda colour: PilImages.new("RGBA", (9, 8), colour)),
            weight=st.floats(0, 2),
            start=st.floats(0, 1),
            end=st.floats(0, 1),
            preprocessor=names,
            mode=st.sampled_from(["balanced", "prompt", "control"]),
            resize=st.sampled_from(["just resize", "crop and resize", "resize and fill"]),
            options=st.dictionaries(names, st.floats(-10, 10), max_size=2),
        ),
        max_size=2,
    ).map(tuple),
    regions=st.lists(
        st.builds(
            Region,
            box=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0.6, 1), st.floats(0.6, 1)),
            weight=st.floats(0, 1),
            feather=st.floats(0, 0.5),
            prompt=texts.map(lambda text: f"a {text}"[:8000]),
        ),
        max_size=2,
    ).map(tuple),
    hires=st.none()
    | st.builds(
        Hires,
        scale=st.floats(1, 16),
        width=st.none() | st.integers(64, 2048),
        upscaler=names,
        steps=st.integers(0, 150),
        strength=st.floats(0, 1),
        loras=st.lists(loras, max_size=3).map(tuple),
        guidance=st.none() | st.floats(0, 30),
        prompt=texts,
        template=texts,
    ),
    upscale=st.none()
    | st.builds(
        Upscale,
        scale=st.floats(1, 16),
        width=st.none() | st.integers(8, 8192),
        height=st.none() | st.integers(8, 8192),
        upscaler=names,
        only=st.booleans(),
    ),
)


def test_the_property_below_varies_every_field():
    """A field that the request learns later must be drawn there too."""
    drawn = requests.wrapped_strategy.kwargs if hasattr(requests, "wrapped_strategy") else requests.kwargs
    assert set(drawn) == set(Request.model_fields)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(request=requests, file_format=st.sampled_from(["png", "jpeg", "webp"]))
def test_a_request_comes_back_from_the_file_equal_in_every_field(tmp_path, request, file_format):
    request = request.model_copy(update={"syntax": request.syntax_of_drawn})
    recipe = Recipe(request, HASHES, Batch(3, 4, 1), SAMPLER, ENVIRONMENT)
    picture = Image(0, PilImages.new("RGB", (64, 64), (9, 99, 199)), recipe)
    start = StartPictures(tmp_path / "start")
    start.keep(request)
    found = read_picture(save_picture(picture, tmp_path / "out", file_format))
    assert found.with_pictures(start.find).request == request
    assert (found.hashes, found.batch, found.sampler, found.environment) == (
        HASHES,
        Batch(3, 4, 1),
        SAMPLER,
        ENVIRONMENT,
    )
    assert found.pixels_sha256 == picture.pixels_sha256


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp"])
def test_other_readers_find_the_infotext_in_every_format(make_picture, tmp_path, file_format):
    path = save_picture(make_picture(prompt="née a red apple", negative="blurry", steps=17), tmp_path, file_format)
    found = ParserManager().parse(path)
    assert (found.full_prompt, found.full_negative_prompt) == ("née a red apple", "blurry")
    assert found.samplers[0].parameters["steps"] == "17"


def test_texts_too_long_for_a_jpeg_make_it_a_png(make_picture, tmp_path):
    prompt = "".join(chr(0x4E00 + k % 20000) for k in range(8000))
    path = save_picture(make_picture(prompt=prompt, negative=prompt), tmp_path, "jpeg")
    assert path.suffix == ".png" and read_picture(path).request.prompt == prompt


def test_a_start_picture_that_is_gone_is_named_by_its_hash(tmp_path):
    init = Init(image=PilImages.new("RGB", (16, 16), (1, 2, 3)), strength=0.4)
    recipe = Recipe.from_json(Recipe(Request(seed=1, init=init)).to_json())
    assert recipe.request.init is None and recipe.start["strength"] == 0.4
    with pytest.raises(RecipeError, match=rf"start picture is not here \(pixels {recipe.start['image'][:12]}\)"):
        recipe.with_pictures(StartPictures(tmp_path).find)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "is not a JSON object"),
        ("{}", "has schema 'None'"),
        (
            '{"schema": 9, "darkroom": "<script>9.0"}',
            r"has schema '9', by Darkroom '<script>9.0'; schemas 1 to \d are read here: a newer Darkroom reads it$",
        ),
        ('{"schema": 0}', r"has schema '0', by Darkroom '\?'; schemas 1 to \d are read here$"),
        ('{"schema": 1.0}', "has schema '1.0'"),
        ('{"schema": true}', "has schema 'True'"),
        ('{"schema": 1}', "is not valid: request is missing"),
        ('{"schema": 1, "request": "x"}', "is not valid"),
        ('{"schema": 1, "request": {"steps": "many"}}', "request.steps must be a whole number"),
        ('{"schema": 1, "request": {"guidance": NaN}}', "guidance must be a finite number"),
        ('{"schema": 1, "request": {"colour": 1}}', "colour is not a known setting"),
        ('{"schema": 1, "request": {}, "start": {"strength": 7}}', "strength must be at most 1"),
        ('{"schema": 1, "request": {}, "batch": {"seed": 1, "count": 99}}', "batch.count must be at most 16"),
        ('{"schema": 1, "request": {}, "pixels_sha256": "../x"}', "is not valid"),
        ('{"schema": 1, "request": {}, "hashes": {"model": ["x"]}}', r"hashes.model must be an object, not \['x'\]"),
        ('{"schema": 1, "request": {}, "mood": 5}', "is not valid: mood is not a known setting"),
        ("x" * (2**20 + 1), "characters; 1,048,576 are allowed"),
    ],
    ids=lambda text: text[:30],
)
def test_a_hostile_recipe_is_refused_in_one_line(text, message):
    with pytest.raises(RecipeError, match=message) as refused:
        Recipe.from_json(text)
    assert len(str(refused.value)) < 400 and "\n" not in str(refused.value)


def png_with(chunks: list[tuple[bytes, bytes]]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 65 * 64)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"tEXt", b"darkroom\0" + b"x" * 50_000_000)],
        [(b"iTXt", b"darkroom\0\1\0\0\0" + zlib.compress(b"[" * 50_000_000))],
        [(b"zTXt", b"darkroom\0\0" + zlib.compress(b"{" * 50_000_000))],
        [(b"tEXt", b"darkroom\0" + b"x" * 30_000_000)] * 3,
    ],
    ids=["50 MB", "a bomb", "another bomb", "many"],
)
def test_huge_texts_are_refused_in_one_line(tmp_path, chunks):
    path = tmp_path / "huge.png"
    path.write_bytes(png_with(chunks))
    with pytest.raises((RecipeError, ImageError)) as refused:
        assert read_picture(path) is not None
    assert "\n" not in str(refused.value)


def test_a_picture_of_another_program_has_no_recipe(tmp_path):
    path = tmp_path / "other.png"
    path.write_bytes(png_with([(b"tEXt", b"parameters\0a cat\nSteps: 3")]))
    assert read_picture(path) is None


def test_a_file_that_is_no_picture_is_an_image_error(tmp_path):
    path = tmp_path / "x.png"
    path.write_text("hello")
    with pytest.raises(ImageError, match="is not a picture"):
        read_picture(path)


def test_the_json_has_what_others_may_look_for(make_picture):
    body = json.loads(make_picture(prompt="a cat").recipe.to_json())
    assert body["schema"] == 1 and body["request"]["prompt"] == "a cat"


@pytest.mark.parametrize(
    ("field", "text"), [("prompt", "a [cat:dog:0.5]"), ("prompt", "a AND b"), ("negative", "[a|b]")]
)
@pytest.mark.parametrize("syntax", [1, 3])
def test_marks_of_the_first_schema_stay_words(make_picture, field, text, syntax):
    recipe = make_picture(**{field: text, "syntax": syntax}).recipe
    body = json.loads(recipe.to_json())
    assert (body["schema"], body["request"].get("syntax")) == ((1, None) if syntax == 1 else (2, 2))
    assert Recipe.from_json(json.dumps(body)) == recipe
    if syntax == 1:
        today = recipe.request.in_newest_syntax()
        assert not today.has_marks and parse_weights(getattr(today, field)) == parse_weights(text)
        assert getattr(today, field) in recipe.infotext()  # whose readers know no other syntax


@pytest.mark.parametrize("syntax", [1, 2])
def test_a_plain_prompt_is_written_as_ever(make_picture, syntax):
    recipe = make_picture(prompt="a (red:1.2) [cat], b:0.5", negative="x AND y", syntax=syntax).recipe
    body = json.loads(recipe.to_json())
    assert body["schema"] == 1 and "syntax" not in body["request"]
    assert Recipe.from_json(json.dumps(body)).request.syntax == 3
    assert recipe.request.in_newest_syntax().prompt == recipe.request.prompt


@pytest.mark.parametrize("text", ["a {red|green} apple", "__fruit__ on __a/table__", "{2$$a|b}"])
def test_what_was_drawn_is_never_drawn_again(make_picture, text):
    """Whatever was left in it, and whoever wrote the recipe."""
    recipe = make_picture(prompt=text, negative=text, syntax=2).recipe
    body = json.loads(recipe.to_json())
    assert body["schema"] == 1 and Recipe.from_json(json.dumps(body)) == recipe
    body["request"]["syntax"] = 3
    assert Recipe.from_json(json.dumps(body)).drawn_as().syntax == 2
    today = recipe.request.in_newest_syntax()
    assert today.syntax == 3 and today.prompt != text and parse_weights(today.prompt) == parse_weights(text)
    assert today.in_newest_syntax() == today and today.prompt in recipe.infotext()


def test_a_template_is_kept_beside_what_was_drawn(make_picture):
    texts = {"template": "a {red|green}\nSteps: 9, apple", "negative_template": "{a|b}"}
    recipe = make_picture(prompt="a red apple", negative="a", **texts).recipe
    body = json.loads(recipe.to_json())
    assert body["schema"] == 2 and body["request"] | texts == body["request"]
    assert Recipe.from_json(json.dumps(body)) == recipe
    lines = recipe.infotext().splitlines()
    assert lines[0] == "a red apple" and lines[2].startswith("Steps: 20")
    assert lines[3:] == ["Template: a {red|green} Steps - 9, apple", "Negative Template: {a|b}"]
