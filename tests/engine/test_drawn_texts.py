"""Pictures of prompts that leave something to chance, on the real engine."""

from webui import Darkroom, Request
from webui.core.events import Done, Image, Step
from webui.core.recipe import Recipe

STEPS = 3


def test_each_picture_is_bit_for_bit_the_one_of_its_words_and_seed(settings):
    folder = settings.data_dir / "wildcards"
    folder.mkdir(parents=True)
    (folder / "fruit.txt").write_text("a red apple\na yellow banana\n")
    asked = Request(
        prompt="{flat style|[__fruit__|a star]}, {<lora:sepia:0.8>|__fruit__ AND a moon:0.5}",
        negative="{blurry|dark}",
        seed=11,
        count=2,
        repeat=2,
        steps=STEPS,
        sampler="Euler a",
        width=64,
        height=64,
    )
    with Darkroom(settings) as darkroom:
        events = list(darkroom.generate(asked))
        images = [event for event in events if isinstance(event, Image)]
        assert [image.index for image in images] == [0, 1, 2, 3] and [image.seed for image in images] == [
            11,
            12,
            13,
            14,
        ]
        assert len({image.recipe.request.prompt for image in images}) > 1
        (done,) = (event for event in events if isinstance(event, Done))
        assert done is events[-1] and sum(isinstance(event, Step) for event in events) == 4 * STEPS
        (folder / "fruit.txt").write_text("a blue square\n")
        for image in images:
            recipe = Recipe.from_json(image.recipe.to_json())
            assert recipe.request == image.recipe.request and recipe.request.template == asked.prompt
            assert set(recipe.lora_hashes) == {ref.name for ref in recipe.request.loras}
            (again,) = darkroom.draw(recipe.drawn_as())
            (plain,) = darkroom.draw(recipe.request.model_copy(update={"template": "", "negative_template": ""}))
            assert again.pixels_sha256 == plain.pixels_sha256 == image.pixels_sha256
