"""The sheet of a grid: where its pictures and labels are, how large it may become, and the recipe that it carries."""

import io
import json

import pytest
from PIL import Image as PilImages
from PIL import ImageDraw

from webui.core import labels
from webui.core.axes import Axis, read_axis
from webui.core.catalog import Catalog
from webui.core.events import Image
from webui.core.grid import make_grid
from webui.core.recipe import Recipe, RecipeError, read_picture
from webui.core.request import Request
from webui.core.sheet import MAX_PIXELS, MAX_SIDE_PX, assemble, make_sheet, plan_sheet, read_cells
from webui.core.sheet_verdict import draw_again
from webui.interop.picture_info import read_info

NOTHING = Catalog(models={}, loras={}, vaes={}, embeddings={}, samplers={})


def axis(field="steps", values="1,2"):
    return read_axis("x", field, values)


def drawn(grid, size=(64, 64), numbers=None) -> list[Image]:
    """A picture in a colour of its own for each request of a grid."""
    requests = list(enumerate(grid.requests))
    return [
        Image(k, PilImages.new("RGB", size, (40 * k % 256, 99, k)), Recipe(request, environment={"device": "cpu"}))
        for k, request in requests
        if numbers is None or k in numbers
    ]


@pytest.fixture
def grid():
    base = Request(prompt="a red apple", seed=7, width=64, height=64)
    x, y = axis(), read_axis("y", "prompt:red", "red,blue,green")
    return make_grid(base, {"x": x, "y": y})


def test_no_picture_lies_over_another_or_over_a_label():
    for counts in (1, 3, 4):
        for z in (None, axis("seed", "1-3")):
            axes = (axis("steps", "1-4"), axis("prompt:x", 'short,"a label of very many words that has to wrap"'), z)
            places = 8 * (3 if z else 1)
            plan = plan_sheet(axes, {place: [(64, 48)] * counts for place in range(places)})
            taken = PilImages.new("L", plan.size)
            boxes = [spot.box for spot in plan.spots]
            boxes += [(*label.at, label.at[0] + label.size[0], label.at[1] + label.size[1]) for label in plan.labels]
            assert len(plan.spots) == places * counts and len(plan.labels) == 4 * (3 if z else 1) + 2 * (
                3 if z else 1
            ) + (3 if z else 0)
            for box in boxes:
                assert 0 <= box[0] < box[2] <= plan.size[0] and 0 <= box[1] < box[3] <= plan.size[1], box
                assert taken.crop(box).getextrema() == (0, 0), box
                taken.paste(255, box)


@pytest.mark.parametrize(("count", "size"), [("1-60", (2048, 2048)), ("1-200", (512, 64)), ("1-2", (8192, 8192))])
def test_a_sheet_is_scaled_down_where_it_would_be_too_large(count, size):
    x = axis("seed", count)
    plan = plan_sheet((x, axis(), None), {place: [size] for place in range(2 * len(x.values))})
    width, height = plan.size
    assert plan.scale < 1 and max(width, height) <= MAX_SIDE_PX and width * height <= MAX_PIXELS


def test_a_sheet_says_what_it_is_and_has_the_recipe_of_each_of_its_pictures(grid):
    sheet, said = make_sheet(grid, drawn(grid), 6)
    recipe = read_picture(PilImages.open(io.BytesIO(sheet.encode())))
    cells = list(read_cells(recipe))
    assert not said and sheet.is_sheet and sheet.index == 6 and recipe.pixels_sha256 == sheet.pixels_sha256
    assert [(place, cell.request.steps, cell.request.prompt) for place, cell in cells[1:4]] == [
        (1, 2, "a red apple"),
        (2, 1, "a blue apple"),
        (3, 2, "a blue apple"),
    ]
    assert [cell.pixels_sha256 for _, cell in cells] == [image.pixels_sha256 for image in drawn(grid)]
    assert 'Script: X/Y/Z plot, X Type: "steps", X Values: "1, 2"' in recipe.infotext()
    info = read_info(sheet.encode(), NOTHING)
    assert info.values["steps"] == 1
    assert (
        "the sheet of a grid of 6 pictures" in info.unmapped[0]
        and "y is prompt:red: red, blue, green" in info.unmapped[0]
    )


def test_what_is_drawn_again_is_compared_cell_by_cell(grid):
    images = drawn(grid, numbers={0, 1, 3, 5})  # one that was cancelled
    sheet, _ = make_sheet(grid, images, 6)
    recipe = Recipe.from_json(sheet.recipe.to_json())
    again = draw_again(recipe, NOTHING, lambda sha256: None)
    assert [len(cell) for cell in again.work.cells] == [1, 1, 0, 1, 0, 1]
    numbered = [Image(k, image.image, image.recipe) for k, image in enumerate(images)]
    same = again.judge(sheet.image, numbered)
    assert same.outcome == "identical" and same.reasons == ("all 4 pictures were drawn again",)

    other = numbered[:2] + [Image(2, PilImages.new("RGB", (64, 64), "white"), images[2].recipe)] + numbered[3:]
    verdict = again.judge(sheet.image, other)
    assert verdict.outcome == "different" and len(verdict.reasons) == 1 and verdict.comparison
    assert verdict.reasons[0].startswith("Steps: 2, blue: different: by up to")

    plan = plan_sheet(grid.axes, {place: [(64, 64)] for place in (0, 1, 3, 5)})
    edited = sheet.image.copy()
    edited.paste("white", plan.spots[1].box)
    assert again.judge(edited, numbered).reasons[0].startswith("Steps: 2, red: different: drawn again it is the one")
    labelled = sheet.image.copy()
    ImageDraw.Draw(labelled).rectangle((0, 0, 6, 6), fill="black")
    assert "labels of the sheet are others" in str(again.judge(labelled, numbered))
    assert "its size" in str(again.judge(sheet.image.resize((50, 50)), numbered))


def test_of_pictures_of_another_environment_those_that_are_near_are_equal(grid):
    images = drawn(grid)
    sheet, _ = make_sheet(grid, images, 6)
    again = draw_again(Recipe.from_json(sheet.recipe.to_json()), NOTHING, lambda sha256: None)
    moved = Recipe(images[0].recipe.request, environment={"device": "cuda"})
    near = [Image(0, PilImages.new("RGB", (64, 64), (2, 99, 0)), moved), *images[1:]]
    verdict = again.judge(sheet.image, near)
    assert verdict.outcome == "equal" and "environment: device cpu, now cuda" in verdict.reasons[0]


def test_pictures_of_one_batch_are_drawn_again_together(make_picture):
    from webui.core.recipe import Batch

    base = Request(prompt="x", seed=3, steps=1, width=64, height=64)
    images = []
    for k in range(8):  # two cells of two batches of two
        seed = 3 + k % 4
        request = base.model_copy(update={"seed": seed, "steps": 1 + k // 4})
        batch = Batch(seed - k % 2, 2, k % 2)
        images.append(Image(k, PilImages.new("RGB", (64, 64), (k, 0, 0)), Recipe(request, batch=batch)))
    sheet, _ = assemble((axis(), None, None), {0: images[:4], 1: images[4:]})
    again = draw_again(Recipe.from_json(sheet.recipe.to_json()), NOTHING, lambda sha256: None)
    assert [[(r.seed, r.count) for r in cell] for cell in again.work.cells] == [[(3, 2), (5, 2)]] * 2
    assert again.judge(sheet.image, images).outcome == "identical"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cells": [{"place": 99}]}, "has a cell 99 of 6"),
        ({"cells": [{"place": 0, "changes": {"request": {"steps": ["many"]}}}]}, "not valid"),
        ({"cells": [{"place": 0, "changes": {"request": 5}}]}, "not a difference"),
        ({"cells": [{"place": 0, "changes": {"nothing": {"a": []}}}]}, "not an object"),
        ({"cells": []}, "does not have those of its pictures"),
        ({"cells": "x"}, "not valid"),
        ({"x": {"field": "steps", "values": []}}, "not valid"),
        ({"schema": 99}, "not valid"),
    ],
)
def test_a_hostile_sheet_is_refused_in_one_line(grid, change, reason):
    body = json.loads(make_sheet(grid, drawn(grid), 6)[0].recipe.to_json())
    body["grid"] |= change
    with pytest.raises(RecipeError, match=reason):
        draw_again(Recipe.from_json(json.dumps(body)), NOTHING, lambda sha256: None)


def test_labels_wrap_and_those_that_no_font_has_are_numbers():
    long = labels.make_label("word " * 40 + "x" * 400, 0, 120, 14)
    assert 2 < len(long.lines) <= labels.MAX_LINES and long.size[0] <= 120 and long.lines[-1].endswith("...")
    unseen = labels.make_label("\U000e0041\u0378", 2, 120, 14)
    assert unseen.is_number and unseen.lines == ("#3",)
    sheet, said = assemble(
        (Axis("prompt:x", ("\u0378",)), None, None), {0: [Image(0, PilImages.new("RGB", (64, 64)), Recipe(Request()))]}
    )
    assert "shown by their numbers" in said[0] and sheet.size[1] > 64
