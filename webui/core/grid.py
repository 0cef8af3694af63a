"""A grid: one request drawn with each combination of the values of up to three axes, as one ``Work``.

Its cells are numbered by their places: x goes first, then y, then z. What they all share, a seed that is left open
too, is the same in all of them, so that nothing but the axes makes a difference.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product
from typing import Any

from webui.core.axes import LORA, MAX_PICTURES, PRESET, WORD, Axis, Presets, apply, read_axis
from webui.core.errors import RequestError
from webui.core.order import Order
from webui.core.request import DRAWN_SEED_LIMIT, Request
from webui.core.samplers import split
from webui.core.visitor import NOBODY, OWNER, asking

GUESTS_PICTURES = 500
"""Of a grid that somebody asks for who is not the owner: to plan ten times as many takes the server ten seconds."""
PLACES = ("x", "y", "z")
FREE_PICTURES = 500
"""More of them need a yes."""
KEYS = frozenset({"request", *PLACES, "yes"})
APPLIED = (PRESET, "", LORA, WORD)
"""A preset is laid down first, and words are replaced in what has come of all else."""


@dataclass(frozen=True)
class Grid:
    """``axes`` are x, y and z, None where nothing is varied; ``cells`` has for each place the requests that are drawn
    there, none where a sheet was left unfinished. ``confirmed`` says that it may be more than ``FREE_PICTURES``."""

    axes: tuple[Axis | None, Axis | None, Axis | None]
    cells: tuple[tuple[Request, ...], ...]
    confirmed: bool = False

    @property
    def requests(self) -> tuple[Request, ...]:
        """All that is drawn, by places."""
        return tuple(request for cell in self.cells for request in cell)

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many columns, rows and blocks it has."""
        return shape_of(self.axes)

    @property
    def image_count(self) -> int:
        """How many pictures it comes to."""
        return sum(request.image_count for request in self.requests)

    def place_of(self, index: int) -> int:
        """The place of picture ``index`` of the job."""
        for place, cell in enumerate(self.cells):
            index -= sum(request.image_count for request in cell)
            if index < 0:
                return place
        raise IndexError(index)

    def to_json(self) -> dict[str, Any]:
        """The axes, as bodies have them."""
        return axes_json(self.axes)


def shape_of(axes: Sequence[Axis | None]) -> tuple[int, int, int]:
    """The lengths of x, y and z."""
    x, y, z = (len(axis.values) if axis else 1 for axis in axes)
    return x, y, z


def axes_json(axes: Sequence[Axis | None]) -> dict[str, Any]:
    """Those that are there, by their places."""
    return {place: axis.to_json() for place, axis in zip(PLACES, axes, strict=True) if axis}


def name_place(axes: Sequence[Axis | None], place: int) -> str:
    """A cell for people: ``Steps: 20, Seed: 5``."""
    across, down, _ = shape_of(axes)
    at = place % across, place // across % down, place // (across * down)
    return ", ".join(axis.label(k) for axis, k in zip(axes, at, strict=True) if axis)


def is_grid(body: Mapping[str, Any]) -> bool:
    """Whether a JSON body asks for a grid and not for one request."""
    return not body.keys().isdisjoint({"request", *PLACES})


def read_grid(body: Mapping[str, Any], request: Request, presets: Presets | None = None) -> Grid:
    """The grid of a JSON body, whose ``request`` was read already; raises RequestError."""
    if unknown := [key for key in body if key not in KEYS]:
        raise RequestError(f"{unknown[0][:60]} is not a known setting of a grid", field=unknown[0][:60])
    axes: dict[str, Axis] = {}
    for place in PLACES:
        held = body.get(place)
        if held is None:
            continue
        if not isinstance(held, Mapping) or not held.keys() <= {"field", "values"}:
            raise RequestError(f"{place} must be an object of a field and its values", field=place)
        axes[place] = read_axis(place, held.get("field"), held.get("values"))
    yes = body.get("yes", False)
    if not isinstance(yes, bool):
        raise RequestError(f"yes must be true or false, not {repr(yes)[:60]}", field="yes")
    return make_grid(request, axes, presets, yes)


def make_grid(
    request: Request,
    axes: Mapping[str, Axis],
    presets: Presets | None = None,
    confirmed: bool = False,
    one_seed: bool = True,
) -> Grid:
    """The grid of a request and its axes by place; raises RequestError naming the axis, the value and the reason.

    Without ``one_seed`` each cell draws one of its own where its seed is left open.
    """
    if not axes:
        raise RequestError("x is missing: a field and its values, as steps=10,20", field="x")
    fields = [axis.field for axis in axes.values()]
    if twice := next((field for field in fields if fields.count(field) > 1), None):
        places = " and ".join(place for place, axis in axes.items() if axis.field == twice)
        raise RequestError(f"{places} both vary {twice}: one of them is enough", field=places[-1])
    seed, other = (secrets.randbelow(DRAWN_SEED_LIMIT) for _ in range(2))
    x, y, z = (_with_seeds(axes[place], one_seed) if place in axes else None for place in PLACES)
    shape = shape_of((x, y, z))
    most = MAX_PICTURES if asking() in (OWNER, NOBODY) else GUESTS_PICTURES
    if (count := shape[0] * shape[1] * shape[2]) > most:
        raise RequestError(f"x, y, z: {count:,} cells are too many; {most:,} is the limit", field="x")
    there = [(place, axis) for place, axis in zip(PLACES, (x, y, z), strict=True) if axis]
    there.sort(key=lambda pair: APPLIED.index(pair[1].kind))
    cells = []
    for at in product(*(range(length) for length in reversed(shape))):
        where = dict(zip(reversed(PLACES), at, strict=True))
        cell = request
        for place, axis in there:
            try:
                cell = apply(axis, where[place], cell, presets)
            except RequestError as error:
                raise RequestError(f"{place}: {error}", field=place) from None
        for place, axis in there:
            _check_schedule(place, axis.field, cell)
        cells.append((_settle(cell, seed, other) if one_seed else cell,))
    grid = Grid((x, y, z), tuple(cells), confirmed)
    if (pictures := grid.image_count) > most:
        raise RequestError(f"x, y, z: {pictures:,} pictures are too many; {most:,} is the limit", field="x")
    return grid


def _check_schedule(place: str, field: str, cell: Request) -> None:
    """Raises RequestError where schedules are varied that the sampler's name decides, as that of DPM++ 2M Karras."""
    holder = {"schedule": cell, "hires.schedule": cell.hires}.get(field)
    if holder and split(holder.sampler)[1]:
        raise RequestError(f"{place}: the sampler “{holder.sampler}” has its schedule in its name", field=place)


def _with_seeds(axis: Axis, one_seed: bool) -> Axis:
    """With a seed for each -1, which holds along the whole row or column."""
    if not one_seed or not axis.field.endswith("seed"):
        return axis
    drawn = (str(secrets.randbelow(DRAWN_SEED_LIMIT)) if value == "-1" else value for value in axis.values)
    return replace(axis, values=tuple(drawn))


def _settle(request: Request, seed: int, other: int) -> Request:
    """The same seeds in all cells that leave theirs open; ``other`` is that of a variation."""
    update: dict[str, Any] = {"seed": seed} if request.seed < 0 else {}
    if request.varied and request.varied.seed < 0:
        update["variation"] = request.varied.model_copy(update={"seed": other})
    return request.model_copy(update=update) if update else request


def turns_of(orders: Sequence[Order], grid: Grid | None) -> tuple[tuple[Order, int], ...]:
    """The orders as they are drawn, those of a grid in turn, each with the number of its first picture."""
    first = accumulate((order.request.image_count for order in orders), initial=0)
    numbers = {id(order): number for order, number in zip(orders, first, strict=False)}
    return tuple((order, numbers[id(order)]) for order in (in_turn(orders) if grid else orders))


def in_turn(orders: Iterable[Order]) -> list[Order]:
    """Orders so that models change least, and among those of one model LoRAs; else as they come."""
    found = list(orders)
    models: dict[object, int] = {}
    loras: dict[object, int] = {}

    def turn(order: Order) -> tuple[int, int]:
        model = tuple((stage.model.path, stage.lenders, stage.vae, stage.prediction) for stage in order.passes)
        worn = tuple((stage.loras, stage.lora_schedules) for stage in order.passes)
        return models.setdefault(model, len(models)), loras.setdefault(worn, len(loras))

    turns = [turn(order) for order in found]
    return [order for _, order in sorted(zip(turns, found, strict=True), key=lambda pair: pair[0])]
