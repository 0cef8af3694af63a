"""What is said of a picture and the one drawn again."""

from dataclasses import replace

import pytest
from PIL import Image as PilImages

from webui.core.catalog import Catalog
from webui.core.events import Image
from webui.core.recipe import Recipe, RecipeError
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.tensor_file import hash_file
from webui.core.verdict import changes, judge, judge_hash, prepare
from webui.core.weight_files import hash_whole
from webui.library.library import Library

SIZE = (8, 8)
RECIPE = Recipe(
    Request(seed=1),
    {"model": {"demo": "aa" * 32}, "lora": {"sepia": "bb" * 32}},
    sampler={"class": "Euler", "config": {"karras": False}},
    environment={"torch": "2.13.0", "dtype": "float32", "threads": 2},
)


def picture(level: int = 100) -> PilImages.Image:
    return PilImages.new("RGB", SIZE, (level, 50, 50))


def drawn(level: int = 100, **changed) -> Image:
    return Image(0, picture(level), replace(RECIPE, **changed))


def recipe(level: int = 100) -> Recipe:
    return replace(RECIPE, pixels_sha256=drawn(level).pixels_sha256)


def test_the_same_pixels_are_identical_whatever_changed():
    verdict = judge(picture(), recipe(), drawn(environment={"torch": "9"}))
    assert verdict.outcome == "identical" and str(verdict) == "identical"


def test_which_worker_drew_it_is_no_reason():
    by_another = RECIPE.environment | {"worker": "cpu 2"}
    assert list(changes(recipe(), replace(recipe(), environment=by_another))) == []


def test_a_small_difference_in_another_environment_is_equal_and_says_why():
    environment = RECIPE.environment | {"torch": "2.14.0", "threads": 1}
    verdict = judge(picture(), recipe(), drawn(103, environment=environment))
    assert (verdict.outcome, verdict.max_difference, verdict.tolerance) == ("equal", 3, 4)
    assert "torch 2.13.0, now 2.14.0" in str(verdict) and "threads 2, now 1" in str(verdict)


def test_drawing_without_cpu_kernels_is_named_where_it_changed_alone():
    plain = RECIPE.environment | {"cpu_kernels": False}
    verdict = judge(picture(), recipe(), drawn(103, environment=plain))
    assert verdict.outcome == "equal" and verdict.reasons == ("environment: cpu_kernels True, now False",)
    verdict = judge(picture(), replace(recipe(), environment=plain), drawn(103))
    assert verdict.reasons == ("environment: cpu_kernels False, now True",)
    verdict = judge(picture(), replace(recipe(), environment=plain), drawn(103, environment=plain))
    assert verdict.outcome == "different" and "cpu_kernels" not in str(verdict)


def test_another_number_format_explains_more():
    environment = RECIPE.environment | {"dtype": "bfloat16"}
    assert judge(picture(), recipe(), drawn(120, environment=environment)).outcome == "equal"
    assert judge(picture(), recipe(), drawn(130, environment=environment)).outcome == "different"


def test_a_difference_that_nothing_explains_is_different():
    verdict = judge(picture(), recipe(102), drawn(101))
    assert verdict.outcome == "different" and "nothing that the recipe knows of has changed" in str(verdict)


def test_a_recipe_that_makes_others_than_the_pixels_it_names_may_be_edited():
    verdict = judge(picture(), recipe(), drawn(101))
    assert verdict.outcome == "different" and "the recipe may have been edited since" in str(verdict)
    other_environment = judge(picture(), recipe(), drawn(101, environment={"torch": "9"}))
    assert "edited" not in str(other_environment)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (
            {"hashes": RECIPE.hashes | {"lora": {"sepia": "cc" * 32}}},
            "lora 'sepia' is another file (bbbbbbbbbbbb, now cc",
        ),
        ({"hashes": RECIPE.hashes | {"model": {"demo": "dd" * 32}}}, "model 'demo' is another file"),
        ({"sampler": {"class": "Euler", "config": {"karras": True}}}, "sampler karras False, now True"),
    ],
)
def test_a_changed_file_or_sampler_is_different_however_small_and_named(changed, named):
    verdict = judge(picture(), recipe(), drawn(101, **changed))
    assert verdict.outcome == "different" and named in str(verdict)
    assert verdict.comparison.size == (3 * 8 + 8, 8)


def test_an_edited_file_is_told_from_a_recipe_that_changed():
    verdict = judge(picture(200), recipe(), drawn())
    assert verdict.outcome == "different" and "the file was edited since" in str(verdict)


def test_a_resized_file_is_told():
    assert "resized" in str(judge(picture().resize((16, 16)), recipe(), drawn()))


def test_a_jpeg_is_held_to_its_recipe_and_may_not_be_edited(tmp_path):
    picture().save(tmp_path / "a.jpeg")
    PilImages.new("RGB", SIZE, (255, 255, 255)).save(tmp_path / "b.jpeg")
    assert judge(PilImages.open(tmp_path / "a.jpeg"), recipe(), drawn()).outcome == "identical"
    assert judge(PilImages.open(tmp_path / "b.jpeg"), recipe(), drawn()).outcome == "different"


def test_what_is_missing_is_named_with_its_hash_before_anything_is_drawn():
    catalog = Catalog({"demo": None}, {}, {}, {}, {})
    with pytest.raises(RecipeError, match=r"lora 'sepia' \(SHA-256 bbbbbbbbbbbb\) not here"):
        prepare(recipe(), catalog, lambda _: None)


def test_of_a_second_pass_model_and_upscaler_are_looked_for_too():
    catalog = Catalog({}, {}, {}, {}, {})
    hires = {"model": "other", "upscaler": "sharp", "loras": ("sepia:0.5",)}
    hashes = {"hires": {"other": "a" * 64}, "upscaler": {"sharp": "b" * 64}, "lora": {"sepia": "c" * 64}}
    second = Recipe(Request(hires=hires), hashes)
    with pytest.raises(RecipeError, match=r"hires 'other' .*aaaaaaaaaaaa.*, upscaler 'sharp' .*, lora 'sepia'"):
        prepare(second, catalog, lambda _: None)


def test_of_files_that_share_a_name_the_one_with_the_recipe_s_hash_is_drawn_with(tmp_path):
    """As where a file of the same name has been put into a folder that comes before."""
    for number, folder in enumerate(("Lora", "VAE")):
        for place in ("a", "b"):
            path = tmp_path / "models" / folder / place / "same.safetensors"
            path.parent.mkdir(parents=True)
            path.write_bytes((2).to_bytes(8, "little") + b"{}" + f"{number}{place}".encode())
    found = Library(Settings(data_dir=tmp_path)).snapshot()
    catalog = Catalog(found.models, found.loras, found.vaes, {}, {})
    loras, vaes = ({name: files[name] for name in ("same", "b/same")} for files in (found.loras, found.vaes))
    made = Request(seed=1, loras=({"name": "same", "weight": 0.5}, {"name": "b/same"}), vae="same")
    hashes = {
        "lora": {"same": hash_file(loras["b/same"].path).tensors, "b/same": "cc" * 32},
        "vae": {"same": hash_whole(vaes["b/same"].path)},
    }
    asked = prepare(Recipe(made, hashes), catalog, lambda _: None)
    assert [str(ref) for ref in asked.loras] == ["b/same:1.5"] and asked.vae == "b/same"
    first = {"lora": {"same": hash_file(loras["same"].path).tensors}, "vae": {"same": hash_whole(vaes["same"].path)}}
    assert prepare(Recipe(made, first), catalog, lambda _: None) == made


@pytest.mark.parametrize("written", ["same", "SAME", "same.safetensors"])
def test_the_hash_is_followed_for_a_tag_in_brackets_too(tmp_path, written):
    for place in ("a", "b"):
        path = tmp_path / "models/Lora" / place / "same.safetensors"
        path.parent.mkdir(parents=True)
        path.write_bytes((2).to_bytes(8, "little") + b"{}" + place.encode())
    found = Library(Settings(data_dir=tmp_path)).snapshot()
    catalog = Catalog(found.models, found.loras, found.vaes, {}, {})
    made = Request(seed=1, prompt=f"a [<lora:{written}:1@0,0@1:lbw=OUTALL>::0.5] [<lora:other:1>|b]")

    def asked(drawn_with: str) -> str:
        hashes = {"lora": {"same": hash_file(found.loras[drawn_with].path).tensors}}
        return prepare(Recipe(made, hashes), catalog, lambda _: None).prompt

    assert asked("b/same") == made.prompt.replace(f":{written}:", ":b/same:")
    assert asked("same") == made.prompt == prepare(Recipe(made, {}), catalog, lambda _: None).prompt


def test_a_file_under_another_name_is_no_other_file():
    renamed = RECIPE.hashes | {"lora": {"styles/sepia": "bb" * 32}}
    assert list(changes(recipe(), replace(recipe(), hashes=renamed))) == []
    both = RECIPE.hashes | {"lora": {"styles/sepia": "bb" * 32, "ink": "cc" * 32}}
    assert judge(picture(), recipe(), drawn(101, hashes=both)).reasons == (
        "lora 'ink' is another file (none, now cccccccccccc)",
    )


def test_an_expected_hash_is_identical_equal_or_different():
    expected = drawn().pixels_sha256
    assert judge_hash(expected[:12], None, drawn(), ()).outcome == "identical"
    assert judge_hash(expected, picture(), drawn(102), ()).outcome == "equal"
    assert judge_hash(expected, picture(), drawn(110), ()).outcome == "different"
    assert judge_hash(expected, picture(), drawn(102), ("LoRA x is another file",)).outcome == "different"
    assert judge_hash(expected, None, drawn(101), ()).outcome == "different"
