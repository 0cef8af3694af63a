"""Numbers and pictures that say how good an exported model is, over prompts that its training never showed."""

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from PIL import Image
from torch import Tensor

from webui.core.samplers import SAMPLERS
from webui.engine.samplers import make_scheduler

from . import data, judges
from .concepts import CONCEPTS, IMAGE_SIZE, STYLES
from .measures import References, border_colour, border_unevenness, nearest_colour, placement_right, spread
from .optim import half
from .progress import report
from .prompts import SEEDS, Prompt, full_prompts, placed_prompts, repeated_prompts, unseen_pair_prompts

STEPS, GUIDANCE = 20, 5.0
BATCH = {"cpu": 8, "cuda": 100}
SPREAD_FLOOR = 4.0
"""Of 255: pictures of one complete prompt that differ less are one picture learned by heart."""
SAMPLER_STRIDE = 3
"""Of the prompts, every third is drawn with each sampler."""
FEW_STEPS = "few-steps"
"""Name of the LoRA for drawing in few steps."""


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn."""

    steps: int = STEPS
    guidance: float = GUIDANCE


def sample(pipeline: StableDiffusionPipeline, prompts: list[Prompt], how: Drawing = Drawing()) -> Tensor:
    """Pictures [n, 3, 128, 128] in [0, 1]; the seed of each is its place in the list."""
    parts = []
    device = pipeline.device
    batch = BATCH[device.type]
    for start in range(0, len(prompts), batch):
        texts = [prompt.text for prompt in prompts[start : start + batch]]
        generators = [torch.Generator().manual_seed(start + i) for i in range(len(texts))]
        with half(device):
            result = pipeline(
                texts,
                num_inference_steps=how.steps,
                guidance_scale=how.guidance,
                height=IMAGE_SIZE,
                width=IMAGE_SIZE,
                generator=generators,
                output_type="pt",
            )
        parts.append(result.images.float().cpu())
    return torch.cat(parts)


class Examiner:
    """Judges pictures by the training's own icons and by the classifiers trained on them."""

    def __init__(self, work: Path, device: torch.device | None = None):
        self.references = References(data.prepare(work))
        self.judges = judges.prepare(work, device)

    def rows(self, prompts: list[Prompt], pictures: Tensor) -> list[dict[str, Any]]:
        """What each medium, centred picture shows, and whether that was asked for."""
        colours = nearest_colour(border_colour(pictures)).tolist()
        concepts = judges.verdicts(self.judges["concept"], pictures).tolist()
        styles = judges.verdicts(self.judges["style"], pictures).tolist()
        nearest = [self.references.nearest_concept(picture) for picture in pictures]
        found = zip(prompts, colours, nearest, concepts, styles, strict=True)
        return [
            {
                "prompt": prompt.text,
                "nearest": CONCEPTS[near].words,
                "classified": CONCEPTS[concept].words,
                "drawn_style": STYLES[style].name,
                "background": colour == prompt.colour,
                "concept": near == prompt.concept,
                "concept_classified": concept == prompt.concept,
                "style": style == prompt.style,
            }
            for prompt, colour, near, concept, style in found
        ]

    def figures(self, pipeline: StableDiffusionPipeline, how: Drawing, stride: int) -> dict[str, float]:
        """The shares of right answers over every `stride`-th of all prompts."""
        full, pairs, placed = (part[::stride] for part in (full_prompts(), unseen_pair_prompts(), placed_prompts()))
        numbers = shares(self.rows(full, sample(pipeline, full, how)))
        pair_rows = self.rows(pairs, sample(pipeline, pairs, how))
        numbers |= {f"unseen_pair_{key}": value for key, value in shares(pair_rows).items() if key != "background"}
        right = [placement_right(p, x) for p, x in zip(placed, sample(pipeline, placed, how), strict=True)]
        return numbers | {"placement": round(sum(right) / len(right), 4)}


def shares(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Share of rows where each answer is right."""
    keys = ("background", "concept", "concept_classified", "style")
    return {key: round(sum(row[key] for row in rows) / len(rows), 4) for key in keys}


def spreads(pipeline: StableDiffusionPipeline) -> list[float]:
    """Of twelve complete prompts, how far the pictures of eight seeds lie apart, in 1/255."""
    pictures = sample(pipeline, repeated_prompts())
    return [round(spread(group), 2) for group in pictures.split(SEEDS)]


def by_sampler(pipeline: StableDiffusionPipeline, examiner: Examiner, work: Path) -> dict[str, dict[str, float]]:
    """The figures of each of the product's samplers at 20 steps."""
    own, numbers = pipeline.scheduler, {}
    config = {**own.config, "clip_sample": False}  # as the product has it, for latents
    for name, row in SAMPLERS.items():
        pipeline.scheduler = make_scheduler(name, row.schedules[0], config)
        numbers[name] = examiner.figures(pipeline, Drawing(), SAMPLER_STRIDE)
        report(work, f"evaluate: {name} {numbers[name]}")
    pipeline.scheduler = own
    return numbers


def in_few_steps(pipeline: StableDiffusionPipeline, examiner: Examiner, file: Path) -> dict[str, dict[str, float]]:
    """The figures with the LoRA for few steps, LCM sampler and no guidance, at 8 and at 4 steps."""
    own = pipeline.scheduler
    pipeline.scheduler = LCMScheduler.from_config(own.config)
    pipeline.load_lora_weights(str(file))
    numbers = {str(steps): examiner.figures(pipeline, Drawing(steps, 1.0), 1) for steps in (8, 4)}
    pipeline.unload_lora_weights()
    pipeline.scheduler = own
    return numbers


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


def evaluate(
    model: Path, work: Path, out: Path, thorough: bool = True, device: torch.device | None = None
) -> dict[str, Any]:
    """Sample all fixed prompts; write `evaluation.json` and grids into `out` and return the numbers.

    Without `thorough`, the samplers and the LoRA for few steps are left out.
    """
    out.mkdir(parents=True, exist_ok=True)
    pipeline = StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32).to(device or "cpu")
    pipeline.set_progress_bar_config(disable=True)
    examiner = Examiner(work, device)
    numbers: dict[str, Any] = {"judges": judges.accuracy(examiner.judges, work)}
    sets = {"full": full_prompts(), "unseen-pairs": unseen_pair_prompts(), "placed": placed_prompts()}
    pictures = {name: sample(pipeline, part) for name, part in sets.items()}
    rows = {name: examiner.rows(sets[name], pictures[name]) for name in ("full", "unseen-pairs")}
    right = [placement_right(p, x) for p, x in zip(sets["placed"], pictures["placed"], strict=True)]
    lengths = {name: len(part) for name, part in sets.items()}
    numbers |= {"prompts": lengths, "full": shares(rows["full"]), "unseen_pairs": shares(rows["unseen-pairs"])}
    numbers["placement"] = round(sum(right) / len(right), 4)
    numbers["background_unevenness"] = round(border_unevenness(pictures["full"]), 2)
    numbers["spread"] = {"least": min(found := spreads(pipeline)), "median": statistics.median(found)}
    numbers["spread"]["floor"] = SPREAD_FLOOR
    numbers["milliseconds"], numbers["milliseconds_best"] = milliseconds(pipeline)
    numbers["threads"] = torch.get_num_threads()
    for name, part in pictures.items():
        grid(part, 20 if name == "full" else 12, out / f"grid-{name}.png")
    content = {"numbers": numbers, "rows": rows, "placed": right}
    file = out / "evaluation.json"
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if thorough:
        numbers["samplers"] = by_sampler(pipeline, examiner, work)
        if (lora := model / "loras" / f"{FEW_STEPS}.safetensors").exists():
            numbers["few_steps"] = in_few_steps(pipeline, examiner, lora)
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return numbers
