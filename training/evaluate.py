"""Numbers and pictures that say how good an exported model is."""

import json
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from . import data
from .concepts import COLOURS, CONCEPTS, IMAGE_SIZE, PLACEMENTS, STYLES
from .latents import reference_pictures
from .prompts import Prompt, full_prompts, placed_prompts, short_prompts

STEPS, GUIDANCE = 20, 5.0
BORDER = 6
BATCH = 8


def sample(pipeline: StableDiffusionPipeline, prompts: list[Prompt]) -> Tensor:
    """Pictures [n, 3, 128, 128] in [0, 1]; the seed of each is its place in the list."""
    parts = []
    for start in range(0, len(prompts), BATCH):
        texts = [prompt.text for prompt in prompts[start : start + BATCH]]
        generators = [torch.Generator().manual_seed(start + i) for i in range(len(texts))]
        result = pipeline(
            texts,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            height=IMAGE_SIZE,
            width=IMAGE_SIZE,
            generator=generators,
            output_type="pt",
        )
        parts.append(result.images.float())
    return torch.cat(parts)


def border_colour(pictures: Tensor) -> Tensor:
    """Median colour [n, 3] of the outermost pixels."""
    frame = torch.ones(IMAGE_SIZE, IMAGE_SIZE, dtype=torch.bool)
    frame[BORDER:-BORDER, BORDER:-BORDER] = False
    return pictures[:, :, frame].median(-1).values


def border_unevenness(pictures: Tensor) -> float:
    """Mean standard deviation of the outermost pixels, in 1/255."""
    frame = torch.ones(IMAGE_SIZE, IMAGE_SIZE, dtype=torch.bool)
    frame[BORDER:-BORDER, BORDER:-BORDER] = False
    return float(pictures[:, :, frame].std(-1).mean() * 255)


def pixels_at(pictures: Tensor, side: int) -> Tensor:
    """Pictures averaged to side x side and flattened."""
    return F.avg_pool2d(pictures, IMAGE_SIZE // side).flatten(1)


def edges(pictures: Tensor) -> Tensor:
    """Slopes of the brightness at 32x32, of unit length: the shape without the colour."""
    grey = F.avg_pool2d(pictures.mean(1, keepdim=True), 4)
    slopes = torch.cat([grey.diff(dim=-1).flatten(1), grey.diff(dim=-2).flatten(1)], 1)
    return F.normalize(slopes, dim=1)


class References:
    """The training pictures on each background colour, made when they are first asked for."""

    def __init__(self, icons: data.Icons):
        self.icons = icons
        kept = icons.concept >= 0
        self.concept = torch.from_numpy(icons.concept[kept])
        self.style = torch.from_numpy(icons.style[kept])
        self.palette = torch.tensor(list(COLOURS.values())) / 255
        self.pictures: dict[int, Tensor] = {}

    def on(self, colour: int) -> Tensor:
        """All references [216, 3, 128, 128] on one of the named colours."""
        if colour not in self.pictures:
            self.pictures[colour] = reference_pictures(self.icons, self.palette[colour])
        return self.pictures[colour]

    def nearest_colour(self, values: Tensor) -> Tensor:
        """Index of the named colour nearest to each of [n, 3]."""
        return torch.cdist(values, self.palette).argmin(1)


def judge(prompts: list[Prompt], pictures: Tensor, references: References) -> list[dict]:
    """What each medium, centred picture shows: nearest concept by pixels and by edges, style, colour."""
    colours = references.nearest_colour(border_colour(pictures)).tolist()
    rows = []
    for prompt, picture, colour in zip(prompts, pictures, colours, strict=True):
        known = references.on(colour)
        by_pixels = torch.cdist(pixels_at(picture[None], 32), pixels_at(known, 32))[0]
        by_edges = edges(known) @ edges(picture[None])[0]
        nearest = int(by_pixels.argmin())
        own = references.concept == prompt.concept
        by_style = torch.cdist(pixels_at(picture[None], 64), pixels_at(known[own], 64))[0]
        style = int(references.style[own][by_style.argmin()])
        rows.append(
            {
                "prompt": prompt.text,
                "concept": CONCEPTS[int(references.concept[nearest])].words,
                "concept_right": int(references.concept[nearest]) == prompt.concept,
                "edges_right": int(references.concept[int(by_edges.argmax())]) == prompt.concept,
                "style_right": prompt.style is None or style == prompt.style,
                "colour": list(COLOURS)[colour],
                "colour_right": prompt.colour is None or colour == prompt.colour,
            }
        )
    return rows


def placement_right(prompt: Prompt, picture: Tensor) -> bool:
    """Whether size and middle of what differs from the background are as asked, within 14 pixels."""
    background = border_colour(picture[None])[0].view(3, 1, 1)
    mask = (picture - background).abs().amax(0) > 0.15
    ys, xs = mask.nonzero(as_tuple=True)
    if len(xs) < 50:
        return False
    ends = torch.tensor([0.01, 0.99])
    low, high = torch.stack([torch.quantile(axis.float(), ends) for axis in (xs, ys)], 1)
    wanted = PLACEMENTS[prompt.placement]
    off = ((low + high) / 2 - torch.tensor([wanted.centre_x, wanted.centre_y])).abs().max()
    side = float((high - low).max())
    nearest = min((56, 100, 124), key=lambda size: abs(side - 0.93 * size))
    return float(off) < 14 and nearest == wanted.size


def share(rows: list[dict], key: str) -> float:
    """Share of rows where `key` is true."""
    return round(sum(row[key] for row in rows) / len(rows), 4)


def milliseconds(pipeline: StableDiffusionPipeline) -> tuple[float, float]:
    """Median and shortest time of one picture, prompt to pixels, over seven runs."""
    times = []
    for _ in range(8):
        start = time.perf_counter()
        sample(pipeline, full_prompts()[:1])
        times.append(1000 * (time.perf_counter() - start))
    return round(statistics.median(times[1:]), 1), round(min(times[1:]), 1)


def grid(pictures: Tensor, columns: int, file: Path) -> None:
    """Draw the pictures [n, 3, 128, 128] as one PNG."""
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (IMAGE_SIZE + 2), rows * (IMAGE_SIZE + 2)), "white")
    for index, picture in enumerate((pictures * 255).round().byte().permute(0, 2, 3, 1).numpy()):
        place = (index % columns * (IMAGE_SIZE + 2), index // columns * (IMAGE_SIZE + 2))
        sheet.paste(Image.fromarray(picture), place)
    sheet.save(file)


def evaluate(model: Path, work: Path, out: Path) -> dict:
    """Sample all fixed prompts; write `evaluation.json` and the grids into `out` and return the numbers."""
    out.mkdir(parents=True, exist_ok=True)
    pipeline = StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    references = References(data.prepare(work))
    full, placed, short = full_prompts(), placed_prompts(), short_prompts()
    sets = {"full": full, "placed": placed, "short": short}
    pictures = {name: sample(pipeline, part) for name, part in sets.items()}
    rows = judge(full, pictures["full"], references)
    short_rows = judge(short, pictures["short"], references)
    placed_rows = [placement_right(p, x) for p, x in zip(placed, pictures["placed"], strict=True)]
    median, best = milliseconds(pipeline)
    numbers = {
        "prompts": len(full),
        "styles": [style.name for style in STYLES],
        "background": share(rows, "colour_right"),
        "concept": share(rows, "concept_right"),
        "concept_by_edges": share(rows, "edges_right"),
        "style": share(rows, "style_right"),
        "concept_short_prompt": share(short_rows, "concept_right"),
        "placement": round(sum(placed_rows) / len(placed_rows), 4),
        "background_unevenness": round(border_unevenness(pictures["full"]), 2),
        "milliseconds": median,
        "milliseconds_best": best,
        "threads": torch.get_num_threads(),
    }
    for name, part in pictures.items():
        grid(part, 12 if name == "full" else 8, out / f"grid-{name}.png")
    content = {"numbers": numbers, "full": rows, "short": short_rows, "placed": placed_rows}
    (out / "evaluation.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return numbers
