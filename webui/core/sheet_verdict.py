"""Is a grid's sheet still what its recipe makes? Each of its pictures is drawn again, and the sheet put together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import ImageChops
from PIL.Image import Image as PilImage

from webui.core import labels
from webui.core.catalog import Catalog
from webui.core.events import Image
from webui.core.grid import Grid, name_place, shape_of
from webui.core.recipe import Recipe, RecipeError
from webui.core.request import Request
from webui.core.sheet import Axes, Plan, Spot, assemble, plan_sheet, read_cells
from webui.core.verdict import ENVIRONMENT, Outcome, Verdict, changes, judge, prepare, side_by_side, tolerance_of
from webui.core.work import Work

SHOWN = 8
"""So many cells that differ are named one by one."""
WORST: tuple[Outcome, ...] = ("identical", "equal", "different")


@dataclass(frozen=True)
class Sought:
    """One picture of a sheet: its place, its recipe, and its number in the job that draws all of them again."""

    place: int
    recipe: Recipe
    index: int


@dataclass(frozen=True)
class Again:
    """What is to be drawn for a verdict, and how it is made of the picture and of all that was drawn."""

    work: Work
    judge: Callable[[PilImage, Sequence[Image]], Verdict]


def draw_again(recipe: Recipe, catalog: Catalog, find_start: Callable[[str], PilImage | None]) -> Again:
    """For any picture, a sheet too; raises RecipeError naming what is not here."""
    if recipe.grid is None:
        request = prepare(recipe, catalog, find_start)
        return Again(request, lambda picture, images: judge(picture, recipe, images[recipe.batch_index]))
    grid, sought = prepare_sheet(recipe, catalog, find_start)
    return Again(grid, lambda picture, images: judge_sheet(picture, recipe, sought, images))


def prepare_sheet(
    recipe: Recipe, catalog: Catalog, find_start: Callable[[str], PilImage | None]
) -> tuple[Grid, tuple[Sought, ...]]:
    """What to ask for to draw all pictures of a sheet again, and where each of them will be.

    Raises RecipeError as ``prepare``.
    """
    assert recipe.grid
    cells: list[list[Request]] = [[] for _ in range(_places(recipe.grid.axes))]
    sought: list[Sought] = []
    find = lru_cache(8)(find_start)
    count = 0
    for place, own in sorted(read_cells(recipe), key=lambda pair: pair[0]):
        cell, request = cells[place], prepare(own, catalog, find)
        if not (own.batch_index and cell and cell[-1] == request):  # of one batch, which is drawn once
            cell.append(request)
            count += request.image_count
        sought.append(Sought(place, own, count - request.count + own.batch_index))
    if not sought:
        raise RecipeError("its recipe does not have those of its pictures: they were too long")
    return Grid(recipe.grid.axes, tuple(map(tuple, cells)), confirmed=True), tuple(sought)


def judge_sheet(sheet: PilImage, recipe: Recipe, sought: Sequence[Sought], images: Sequence[Image]) -> Verdict:
    """What became of a sheet, now that ``images`` were drawn, all of its pictures among them.

    ``reasons`` name the cells that differ.
    """
    assert recipe.grid
    axes = recipe.grid.axes
    by_place: dict[int, list[Image]] = {}
    for one in sought:
        by_place.setdefault(one.place, []).append(images[one.index])
    drawn, _ = assemble(axes, by_place)
    plan = plan_sheet(axes, {place: [image.size for image in there] for place, there in by_place.items()})
    if drawn.image.size != sheet.size:
        return Verdict("different", 255, 0, ("its size: the file has been resized or cut, or its pictures are others",))
    first, second = sheet.convert("RGB"), drawn.image
    difference = ImageChops.difference(first, second)
    lines: list[str] = []
    outcome, largest, tolerance = WORST[0], 0, 0
    comparison: PilImage | None = None
    for spot, one in zip(plan.spots, _in_spots(sought, plan), strict=True):
        picture = by_place[spot.place][spot.number]
        found = int(np.asarray(difference.crop(spot.box)).max())
        same = picture.pixels_sha256 == one.recipe.pixels_sha256
        if same and not found:
            continue
        said, verdict, allowed = _judge(one, picture, found, same)
        lines.append(f"{name_place(axes, spot.place)}{_number(spot, plan)}: {verdict}: {said}")
        largest, tolerance = max(largest, found), max(tolerance, allowed)
        if WORST.index(verdict) > WORST.index(outcome) or comparison is None:
            comparison = side_by_side(first.crop(spot.box), second.crop(spot.box), difference.crop(spot.box))
        outcome = max(outcome, verdict, key=WORST.index)
    if not lines:
        return _judge_labels(difference, plan, recipe, len(sought))
    more = [f"and {len(lines) - SHOWN} more cells"] if len(lines) > SHOWN else []
    return Verdict(outcome, largest, tolerance, (*lines[:SHOWN], *more), comparison)


def _judge(one: Sought, picture: Image, found: int, same: bool) -> tuple[str, Outcome, int]:
    """Why one picture is another, whether that is explained, and by how much it may differ."""
    if same:
        return "drawn again it is the one of the recipe, so the sheet was edited since", "different", 0
    changed = tuple(changes(one.recipe, picture.recipe))
    allowed = max(tolerance_of(one.recipe), tolerance_of(picture.recipe))
    explained = bool(changed) and all(name.startswith(ENVIRONMENT) for name in changed)
    why = "; ".join(changed) or "nothing that the recipe knows of has changed"
    return f"by up to {found} of 255 levels: {why}", "equal" if explained and found <= allowed else "different", allowed


def _judge_labels(difference: PilImage, plan: Plan, recipe: Recipe, count: int) -> Verdict:
    """All pictures are the same: what lies between them may not be."""
    whole = (f"all {count} pictures were drawn again",)
    for spot in plan.spots:
        difference.paste((0, 0, 0), spot.box)
    assert recipe.grid
    if (largest := int(np.asarray(difference).max())) == 0:
        return Verdict("identical", reasons=whole)
    if recipe.grid.fonts != labels.fonts_here(recipe.grid.axes):
        return Verdict("identical", reasons=(*whole, "its labels are in another font than here"))
    return Verdict("different", largest, 0, (*whole, "and are the same, but the labels of the sheet are others"))


def _places(axes: Axes) -> int:
    columns, rows, blocks = shape_of(axes)
    return columns * rows * blocks


def _in_spots(sought: Sequence[Sought], plan: Plan) -> Iterator[Sought]:
    """In the order of the spots."""
    by_place: dict[int, list[Sought]] = {}
    for one in sought:
        by_place.setdefault(one.place, []).append(one)
    return (by_place[spot.place][spot.number] for spot in plan.spots)


def _number(spot: Spot, plan: Plan) -> str:
    """Which of several pictures in a cell it is."""
    several = sum(other.place == spot.place for other in plan.spots) > 1
    return f", picture {spot.number + 1}" if several else ""
