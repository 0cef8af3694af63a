"""The sheet of a grid: all of its pictures in their places with labels beside them, as one picture and its recipe."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image as PilImages
from PIL import ImageDraw
from PIL.Image import Image as PilImage

from webui.core import labels
from webui.core.axes import Axis
from webui.core.differences import apply, difference
from webui.core.events import Image
from webui.core.grid import Grid, shape_of
from webui.core.images import Size
from webui.core.labels import Label
from webui.core.recipe import GRID_SINCE, MAX_SHEET_CHARACTERS, AxisRecipe, Recipe, RecipeError, SheetCell, SheetRecipe

Axes = tuple[Axis | None, Axis | None, Axis | None]

MAX_SIDE_PX = 16_000
MAX_PIXELS = 32_000_000
GAP_PX = 4
MIN_COLUMN_PX = 72
INK, PAPER = (24, 24, 27), (255, 255, 255)


@dataclass(frozen=True)
class Spot:
    """Where one picture of the grid is: picture ``number`` of the cell at ``place``; ``box`` in px of the sheet."""

    place: int
    number: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Plan:
    """Of a sheet: its size, the spots of its pictures, its labels, and the scale that they are shown at."""

    size: Size
    scale: float
    spots: tuple[Spot, ...]
    labels: tuple[Label, ...]


def plan_sheet(axes: Axes, sizes: Mapping[int, Sequence[Size]]) -> Plan:
    """A sheet of pictures of these sizes, by place. It is scaled down where it would be larger than it may be."""
    scale = 1.0
    while True:
        plan = _plan(axes, sizes, scale)
        width, height = plan.size
        excess = max(width / MAX_SIDE_PX, height / MAX_SIDE_PX, math.sqrt(width * height / MAX_PIXELS))
        if excess <= 1 or scale < 0.005:
            return plan
        scale *= 0.98 / excess


def _plan(axes: Axes, sizes: Mapping[int, Sequence[Size]], scale: float) -> Plan:
    x, y, z = axes
    columns, rows, blocks = shape_of(axes)
    most = max((len(there) for there in sizes.values()), default=1)
    across = math.ceil(math.sqrt(most))  # of the pictures of one cell
    down = math.ceil(most / across)
    wide = max((max(1, round(width * scale)) for there in sizes.values() for width, _ in there), default=1)
    high = max((max(1, round(height * scale)) for there in sizes.values() for _, height in there), default=1)
    column, row = max(across * wide, MIN_COLUMN_PX), max(down * high, labels.size_px(high) + GAP_PX)
    font_px = labels.size_px(min(column, row))
    tops = labels.column_of(x, column, font_px) if x else []
    sides = labels.column_of(y, max(2 * column // 3, 6 * font_px), font_px) if y else []
    top = max((label.size[1] for label in tops), default=0) + (2 * GAP_PX if x else 0)
    left = max((label.size[0] for label in sides), default=0) + (2 * GAP_PX if y else 0)
    row = max(row, max((label.size[1] for label in sides), default=0))
    block_width = left + columns * (column + GAP_PX) + GAP_PX
    titles = labels.column_of(z, block_width - 2 * GAP_PX, font_px) if z else []
    title = max((label.size[1] for label in titles), default=0) + (2 * GAP_PX if z else 0)
    block_height = title + top + rows * (row + GAP_PX) + GAP_PX
    abreast = min(max(round(math.sqrt(blocks * block_height / block_width)), 1), blocks)  # so that it is nearly square
    spots: list[Spot] = []
    placed: list[Label] = []
    for block in range(blocks):
        block_x, block_y = block % abreast * block_width, block // abreast * block_height
        if z:
            placed.append(titles[block].centred(block_x + block_width // 2, block_y + GAP_PX + title // 2))
        for k, label in enumerate(tops):
            middle = block_x + left + GAP_PX + k * (column + GAP_PX) + column // 2
            placed.append(label.centred(middle, block_y + title + top // 2))
        for k, label in enumerate(sides):
            middle = block_y + title + top + GAP_PX + k * (row + GAP_PX) + row // 2
            placed.append(label.centred(block_x + left // 2, middle))
        for place in range(block * columns * rows, (block + 1) * columns * rows):
            corner_x = block_x + left + GAP_PX + place % columns * (column + GAP_PX) + (column - across * wide) // 2
            line = place // columns % rows
            corner_y = block_y + title + top + GAP_PX + line * (row + GAP_PX) + (row - down * high) // 2
            for number, (width, height) in enumerate(sizes.get(place, ())):
                shown = max(1, round(width * scale)), max(1, round(height * scale))
                at_x = corner_x + number % across * wide + (wide - shown[0]) // 2
                at_y = corner_y + number // across * high + (high - shown[1]) // 2
                spots.append(Spot(place, number, (at_x, at_y, at_x + shown[0], at_y + shown[1])))
    size = abreast * block_width, math.ceil(blocks / abreast) * block_height
    return Plan(size, scale, tuple(spots), tuple(placed))


def draw_sheet(plan: Plan, pictures: Mapping[tuple[int, int], Image]) -> PilImage:
    """The sheet with these pictures, by place and number; each is opened only while it is put down."""
    canvas = PilImages.new("RGB", plan.size, PAPER)
    draw = ImageDraw.Draw(canvas)
    for label in plan.labels:
        label.draw(draw, INK)
    for spot in plan.spots:
        if picture := pictures.get((spot.place, spot.number)):
            canvas.paste(shown(picture.image, spot), spot.box[:2])
    return canvas


def shown(picture: PilImage, spot: Spot) -> PilImage:
    """A picture as the sheet has it."""
    left, top, right, bottom = spot.box
    size = right - left, bottom - top
    picture = picture.convert("RGB")
    return picture if picture.size == size else picture.resize(size, PilImages.Resampling.LANCZOS)


def make_sheet(grid: Grid, images: Sequence[Image], index: int) -> tuple[Image, tuple[str, ...]]:
    """The sheet of what was drawn of a grid, at least one picture, as picture ``index`` of its job.

    Also gives lines for people: what is not as they would expect.
    """
    by_place: dict[int, list[Image]] = {}
    for image in sorted(images, key=lambda image: image.index):
        by_place.setdefault(grid.place_of(image.index), []).append(image)
    return assemble(grid.axes, by_place, index)


def assemble(axes: Axes, by_place: Mapping[int, Sequence[Image]], index: int = 0) -> tuple[Image, tuple[str, ...]]:
    """The same of pictures by place."""
    plan = plan_sheet(axes, {place: [image.size for image in there] for place, there in by_place.items()})
    sheet = draw_sheet(plan, {(place, k): image for place, there in by_place.items() for k, image in enumerate(there)})
    recipe, said = make_recipe(axes, by_place), []
    if plan.scale < 1:
        said.append(
            f"The sheet would be too large at full size, so its pictures are shown at {plan.scale:.0%}; each of them is"
            " saved whole."
        )
    if any(label.is_number for label in plan.labels):
        said.append("Labels in a script that no font here has are shown by their numbers.")
    if len(recipe.to_json()) > MAX_SHEET_CHARACTERS:
        said.append("The sheet's recipe is too long to be kept in it, so that the sheet cannot be verified.")
        assert recipe.grid
        recipe = replace(recipe, grid=replace(recipe.grid, cells=()))
    return Image(index, sheet, recipe), tuple(said)


# ---- its recipe: the first picture's, and what makes all others of it ----


def make_recipe(axes: Axes, by_place: Mapping[int, Sequence[Image]]) -> Recipe:
    """A recipe that has those of all pictures in it."""
    pictures = [(place, image) for place, there in sorted(by_place.items()) for image in there]
    recipes = [(place, replace(image.recipe, pixels_sha256=image.pixels_sha256)) for place, image in pictures]
    schema = max(GRID_SINCE, *(recipe.schema for _, recipe in recipes))
    base = {**json.loads(json.dumps(recipes[0][1].body(schema))), "pixels_sha256": ""}
    cells = tuple(
        SheetCell(place, difference(base, json.loads(json.dumps(recipe.body(schema))))) for place, recipe in recipes
    )
    first = recipes[0][1]
    x, y, z = (AxisRecipe(axis.field, axis.values) if axis else None for axis in axes)
    return replace(first, pixels_sha256="", grid=SheetRecipe(schema, x, y, z, cells, labels.fonts_here(axes)))


def read_cells(recipe: Recipe) -> Iterator[tuple[int, Recipe]]:
    """The recipes of all pictures on a sheet, by place; raises RecipeError."""
    if recipe.grid is None:
        raise RecipeError("it is not a sheet of a grid")
    places = math.prod(shape_of(recipe.grid.axes))
    base = {**json.loads(json.dumps(recipe.body(recipe.grid.schema))), "pixels_sha256": ""}
    for cell in recipe.grid.cells:
        if cell.place >= places:
            raise RecipeError(f"its recipe has a cell {cell.place} of {places}")
        try:
            body: dict[str, Any] = apply(base, cell.changes)
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"its recipe is not valid: {error}") from None
        yield cell.place, Recipe.from_body(body)
