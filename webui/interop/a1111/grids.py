"""A1111's script "X/Y/Z plot" as a grid: its arguments in their order, and its axes by their names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial
from typing import Any

from webui.core.axes import FIELDS, MAX_VALUES, WORD, Axis, Presets, read_axis
from webui.core.catalog import Catalog
from webui.core.errors import RequestError
from webui.core.grid import PLACES, Grid, make_grid
from webui.core.names import choose, fold
from webui.core.request import Request
from webui.interop.a1111.refusals import flag
from webui.interop.a1111.requests import NO_FILE, find_model, find_vae
from webui.interop.sampler_names import translate

TITLE = "x/y/z plot"
ARGS = (
    *(f"{place}_{part}" for place in PLACES for part in ("type", "values", "values_dropdown")),
    *("draw_legend", "include_lone_images", "include_sub_grids", "no_fixed_seeds", "margin_size", "csv_mode"),
    "raw_mode",
)
"""What ``Script.run`` takes, in this order; what is left out at the end is as on A1111's page."""
DEFAULTS = {"draw_legend": True}

TXT2IMG, IMG2IMG, ORDER = "txt2img", "img2img", "order"
AXES: tuple[tuple[str, str, str], ...] = (
    ("Nothing", "", ""),
    ("Seed", "seed", ""),
    ("Var. seed", "variation.seed", ""),
    ("Var. strength", "variation.strength", ""),
    ("Steps", "steps", ""),
    ("Hires steps", "hires.steps", TXT2IMG),
    ("CFG Scale", "guidance", ""),
    ("Image CFG Scale", "", IMG2IMG),
    ("Prompt S/R", WORD, ""),
    ("Prompt order", ORDER, ""),
    ("Sampler", "sampler", TXT2IMG),
    ("Hires sampler", "hires.sampler", TXT2IMG),
    ("Sampler", "sampler", IMG2IMG),
    ("Checkpoint name", "model", ""),
    ("Negative Guidance minimum sigma", "", ""),
    ("Sigma Churn", "", ""),
    ("Sigma min", "", ""),
    ("Sigma max", "", ""),
    ("Sigma noise", "", ""),
    ("Schedule type", "schedule", ""),
    ("Schedule min sigma", "", ""),
    ("Schedule max sigma", "", ""),
    ("Schedule rho", "", ""),
    ("Eta", "", ""),
    ("Clip skip", "clip_skip", ""),
    ("Denoising", "init.strength", ""),
    ("Initial noise multiplier", "", ""),
    ("Extra noise", "", ""),
    ("Hires upscaler", "hires.upscaler", TXT2IMG),
    ("Cond. Image Mask Weight", "", IMG2IMG),
    ("VAE", "vae", ""),
    ("Styles", "preset", ""),
    ("UniPC Order", "", ""),
    ("Face restore", "", ""),
    ("Token merging ratio", "token_merging", ""),
    ("Token merging ratio high-res", "", ""),
    ("Always discard next-to-last sigma", "", ""),
    ("SGM noise multiplier", "", ""),
    ("Refiner checkpoint", "refiner", ""),
    ("Refiner switch at", "refiner_at", ""),
    ("RNG source", "", ""),
)
"""In the order of A1111's list: its name, what it is here ("" for what is not), and on which page alone it is."""
CHOSEN = frozenset({"sampler", "hires.sampler", "model", "schedule", "hires.upscaler", "vae", "preset", "refiner"})
"""What A1111 has a list of, so that its values come as a list, too."""


@dataclass(frozen=True)
class Plot:
    """What a body asks for beside the request: a grid, whether its single pictures are answered too, and lines for
    people about what is not done as it says."""

    grid: Grid
    with_pictures: bool
    comments: tuple[str, ...]


def is_plot(body: Mapping[str, Any]) -> bool:
    """Whether a body names the script."""
    name = body.get("script_name")
    return isinstance(name, str) and fold(name.strip()) == TITLE


def read_plot(
    body: Mapping[str, Any], request: Request, catalog: Catalog, presets: Presets | None, with_picture: bool
) -> Plot:
    """The grid of a body that names the script, over its request; raises RequestError naming the argument."""
    given = body.get("script_args") or []
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) > len(ARGS):
        raise RequestError(f"script_args must be a list of up to {len(ARGS)} values: {', '.join(ARGS)}", "script_args")
    args = DEFAULTS | dict(zip(ARGS, given, strict=False))
    axes: dict[str, Axis] = {}
    for place in PLACES:
        try:
            axis = _read_axis(place, args, request, catalog, with_picture)
        except RequestError as error:
            raise RequestError(f"script_args: {error}", field="script_args") from None
        if axis:
            axes[place] = axis
    if not axes:
        raise RequestError("script_args: x_type, y_type or z_type must name what is varied", field="script_args")
    comments = []
    if not flag(args["draw_legend"]):
        comments.append("script_args: the sheet has its labels always")
    if flag(args.get("include_sub_grids")) and "z" in axes:
        comments.append("script_args: the tables of z stand on one sheet, and are not answered one by one")
    try:
        grid = make_grid(
            request, axes, presets, confirmed=flag(body.get("yes")), one_seed=not flag(args.get("no_fixed_seeds"))
        )
    except RequestError as error:
        raise RequestError(f"script_args: {error}", field="script_args") from None
    return Plot(grid, flag(args.get("include_lone_images")), tuple(comments))


def _read_axis(
    place: str, args: Mapping[str, Any], request: Request, catalog: Catalog, with_picture: bool
) -> Axis | None:
    name, field = _find_type(f"{place}_type", args.get(f"{place}_type"), with_picture)
    if name == "Nothing":
        return None
    text, chosen = args.get(f"{place}_values") or "", args.get(f"{place}_values_dropdown") or []
    values: Any = text
    if field in CHOSEN and chosen and (not flag(args.get("csv_mode")) or not text):
        values = chosen
    elif flag(args.get("raw_mode")) and isinstance(text, str) and "\n" in text.strip():
        values = text.strip().split("\n")
    if field in (WORD, ORDER):
        found = read_axis(place, f"{WORD}:{name}", values).values
        if field == ORDER:
            return _read_order(place, request.prompt, found)
        if not found[0]:
            raise RequestError(f"{place}: Prompt S/R: the first value is the word to replace, and it is empty")
        return Axis(f"{WORD}:{found[0]}", found)
    axis = read_axis(place, field, values)
    return Axis(field, tuple(_ours(place, field, value, catalog) for value in axis.values))


def _read_order(place: str, prompt: str, words: Sequence[str]) -> Axis:
    """Words of the prompt in each order: what stands from the first of them to the last, replaced as a word is."""
    if (orders := factorial(len(words))) > MAX_VALUES:
        raise RequestError(
            f"{place}: Prompt order: {len(words)} words have {orders:,} orders; {MAX_VALUES} is the limit for an axis"
        )
    between, rest = [], prompt
    for word in sorted(words, key=prompt.find):
        if not word or word not in rest:
            raise RequestError(f"{place}: Prompt order: {word[:60]!r} is not in the prompt beside the other words")
        before, _, rest = rest.partition(word)
        between.append(before)
    whole = prompt[len(between[0]) : len(prompt) - len(rest)]
    between[0] = ""
    values = ("".join(map(str.__add__, between, order)) for order in permutations(words))
    return Axis(f"{WORD}:{whole}", tuple(values))


def _find_type(argument: str, given: Any, with_picture: bool) -> tuple[str, str]:
    """A1111's name of an axis that is told by it, or by its place in the list of the page, and ours."""
    page = IMG2IMG if with_picture else TXT2IMG
    known = [(name, field) for name, field, only in AXES if only in ("", page)]
    if given in (None, ""):
        return known[0]
    if isinstance(given, str) and given.strip().isdecimal():
        given = int(given)
    if isinstance(given, int) and not isinstance(given, bool):
        if not 0 <= given < len(known):
            raise RequestError(f"{argument} must be from 0 to {len(known) - 1}, not {given}")
        found = known[given]
    elif isinstance(given, str):
        name = choose("axis", given, [name for name, _ in known], argument)
        found = next(pair for pair in known if pair[0] == name)
    else:
        raise RequestError(f"{argument} must be the name of an axis or its number, not {repr(given)[:60]}")
    name, field = found
    if page == TXT2IMG and field == "init.strength":
        field = "hires.strength"
    if name != "Nothing" and field not in (WORD, ORDER, "preset") and field not in FIELDS:
        raise RequestError(f"{argument}: {name} cannot be varied here")
    return name, field


def _ours(place: str, field: str, value: str, catalog: Catalog) -> str:
    """The value as it is called here."""
    if field in ("model", "refiner"):
        return "" if field == "refiner" and fold(value) in NO_FILE else find_model(f"{place}_values", value, catalog)
    if field == "vae":
        return find_vae(value, catalog)
    if field in ("sampler", "hires.sampler"):
        found, unknown = translate(value, None, catalog.samplers)
        if unknown:
            raise RequestError(f"{place}_values: {unknown[0]}")
        schedule = found["schedule"]
        return str(found["sampler"]) if schedule == "Default" else f"{found['sampler']} {schedule}"
    if field == "schedule":
        for sampler in catalog.samplers:
            found, unknown = translate(sampler, value, catalog.samplers)
            if not unknown:
                return str(found["schedule"])
        raise RequestError(f"{place}_values: there is no schedule {value[:60]!r}")
    return value
