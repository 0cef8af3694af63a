"""``python -m benchmarks.exactness``: whether pictures keep their bits, by the SHA-256 of their pixels.

Each request is drawn once; then again from its recipe, in the opposite order, with LoRAs going on and off between;
again in a new process; and twice by one that replays CUDA graphs, for which there is a stand-in on the CPU. All of it
must be equal. In float32 on CUDA it also says, without judging, how far pictures are from the CPU's.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image as PilImages
from PIL import ImageDraw

from tests.recorder import Recorder
from webui.core.events import Image
from webui.core.groups.init import Init
from webui.core.recipe import Recipe
from webui.core.request import LoraRef, Request
from webui.core.samplers import SAMPLERS
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.residence import Residence
from webui.engine.speed import graphed

DTYPES = ("float32", "float16", "bfloat16")
PROMPT = "a red apple, flat style, on a blue background"
SIDE_PX, STEPS, SEED = 128, 12, 7
QUICK = ("Euler", "one LoRA", "three LoRAs", "img2img", "a LoRA that changes", "all that guides")
FROM_PICTURES = ("img2img", "inpaint", "inpaint with a LoRA", "a control", "all that guides")
"""Of which a recipe keeps pictures' hashes alone."""
BESIDE_CPU = ("Euler", "DPM++ 2M", "UniPC", "two in a batch", "three LoRAs", "img2img", "inpaint")

Hashes = dict[str, list[str]]
"""By request, one of each of its pictures."""


def requests(quick: bool = False) -> dict[str, Request]:
    """What is drawn, by name; requests with LoRAs stand between those without. ``quick``: few, small, two steps."""
    scene, mask = PilImages.new("RGB", (SIDE_PX, SIDE_PX), "skyblue"), PilImages.new("L", (SIDE_PX, SIDE_PX), 0)
    ImageDraw.Draw(scene).ellipse((40, 40, 88, 88), fill="tomato")
    ImageDraw.Draw(mask).rectangle((56, 56, SIDE_PX, SIDE_PX), fill=255)
    one = (LoraRef(name="blueprint", weight=0.8),)
    three = (LoraRef(name="night"), LoraRef(name="sepia", weight=0.5), LoraRef(name="blueprint", weight=-0.3))
    changing = {"prompt": f"{PROMPT} <lora:night:1@0,0.2@0.5>"}
    guides: dict[str, Mapping[str, Any]] = {
        "a control": {"controls": ({"model": "demo-edges", "image": scene, "preprocessor": "canny"},)},
        "a region": {"regions": ({"box": (0, 0, 0.5, 1), "prompt": "a blue whale"},)},
        "perturbed attention": {"pag": {"scale": 3.0}},
        "normalised attention": {"nag": {"scale": 6.0}},
    }
    wanted: dict[str, Mapping[str, Any]] = {name: {"sampler": name} for name in SAMPLERS}
    wanted |= {
        "one LoRA": {"loras": one},
        "Karras": {"schedule": "Karras", "guidance": 7.5, "negative": "green, blurry"},
        "three LoRAs": {"loras": three},
        "two in a batch": {"count": 2},
        "wide": {"width": 192, "height": 96},
        "one LoRA, large": {"loras": one, "width": 256, "height": 256},
        "a long prompt": {"prompt": ", ".join([PROMPT] * 10)},
        "the last text layer skipped": {"clip_skip": 2},
        "one LoRA on the UNet alone": {"loras": (LoraRef(name="night", text_weight=0),)},
        "without guidance": {"guidance": 1.0},
        "guidance for half of the steps": {"guidance_until": 0.5},
        "features reused": {"reuse": 2},
        "few steps": {"loras": (LoraRef(name="few-steps"),), "sampler": "LCM", "steps": 4, "guidance": 1.0},
        "a LoRA that changes": changing,
        **guides,
        "all that guides": {name: value for fields in (changing, *guides.values()) for name, value in fields.items()},
        "img2img": {"init": Init(image=scene, strength=0.6)},
        "inpaint": {"init": Init(image=scene, mask=mask, strength=0.9)},
        "inpaint with a LoRA": {"init": Init(image=scene, mask=mask, strength=0.9), "loras": one},
    }
    common = {"prompt": PROMPT, "model": "demo", "seed": SEED, "steps": 2 if quick else STEPS}
    common |= {"width": 64, "height": 64} if quick else {"width": SIDE_PX, "height": SIDE_PX}
    return {name: Request(**{**common, **wanted[name]}) for name in (QUICK if quick else wanted)}


def draw(darkroom: Darkroom, asked: Mapping[str, Request]) -> dict[str, list[Image]]:
    """The pictures of each request."""
    return {name: darkroom.draw(request) for name, request in asked.items()}


def hashes(pictures: Mapping[str, Sequence[Image]]) -> Hashes:
    """Of all pixels, for each request."""
    return {name: [picture.pixels_sha256 for picture in found] for name, found in pictures.items()}


def again(pictures: Mapping[str, Sequence[Image]], asked: Mapping[str, Request]) -> dict[str, Request]:
    """The same from the recipes that the pictures carry, last one first."""
    return {
        name: request if name in FROM_PICTURES else Recipe.from_json(pictures[name][0].recipe.to_json()).drawn_as()
        for name, request in reversed(list(asked.items()))
    }


def in_a_new_process(options: argparse.Namespace) -> Hashes:
    """What it draws where nothing was drawn before."""
    command = [sys.executable, "-m", "benchmarks.exactness", "--hashes"]
    command += ["--device", options.device, "--dtype", options.dtype, *(["--quick"] if options.quick else [])]
    found: Hashes = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def distances(
    pictures: Mapping[str, Sequence[Image]], others: Mapping[str, Sequence[Image]]
) -> Iterator[tuple[str, int]]:
    """The largest difference in levels of 255, by request."""
    for name, found in others.items():
        pairs = zip(pictures[name], found, strict=True)
        yield name, max(int(abs(_levels(one) - _levels(other)).max()) for one, other in pairs)


def _levels(picture: Image) -> np.ndarray:
    return np.asarray(picture.image).astype(np.int16)


def check(options: argparse.Namespace, data_dir: Path) -> dict[str, Any]:
    """By way of drawing, the requests whose pictures came out different; "cpu": how far the CPU's are."""
    asked = requests(options.quick)
    settings = settings_of(options, data_dir)
    darkroom = Darkroom(settings)
    pictures = draw(darkroom, asked)
    expected = hashes(pictures)
    ways = {"again, from its recipe": hashes(draw(darkroom, again(pictures, asked)))}
    ways["in a new process"] = in_a_new_process(options)
    with graphs(settings) as (replaying, recorder):
        recorded = "CUDA graphs" if recorder is None else "a stand-in for CUDA graphs"
        ways[f"with {recorded}"] = hashes(draw(replaying, asked))
        ways[f"with {recorded}, again"] = hashes(draw(replaying, again(pictures, asked)))
    if recorder is not None and recorder.replayed == 0:
        raise RuntimeError("nothing was replayed")
    different = {way: [name for name in asked if found[name] != expected[name]] for way, found in ways.items()}
    report: dict[str, Any] = {"device": options.device, "dtype": options.dtype, "requests": len(asked)}
    report |= {"different": different, "hashes": expected}
    if len({tuple(found) for found in expected.values()}) < len(asked):
        different["as another request"] = _twins(expected)
    if options.device == "cuda" and options.dtype == "float32":
        cpu = Darkroom(settings.model_copy(update={"device": "cpu"}))
        others = draw(cpu, {name: asked[name] for name in BESIDE_CPU if name in asked})
        report["cpu"] = dict(distances(pictures, others))
    return report


def settings_of(options: argparse.Namespace, data_dir: Path) -> Settings:
    """With networks as they are on a GPU, wherever they are."""
    return Settings(device=options.device, dtype=options.dtype, data_dir=data_dir, cpu_kernels=False)


@contextlib.contextmanager
def graphs(settings: Settings) -> Iterator[tuple[Darkroom, Recorder | None]]:
    """One that replays CUDA graphs; elsewhere one that replays what a stand-in recorded, and that."""
    wanted = settings.model_copy(update={"cuda_graphs": True})
    if settings.device == "cuda":
        yield Darkroom(wanted), None
        return
    darkroom = Darkroom(settings)
    manager = darkroom.manager
    home = manager._residence = Residence(wanted.engine_options, manager.device, manager.dtype)
    recorder = Recorder(lambda: home.model.network if home.model else None)
    with patch.object(graphed, "record", recorder):
        yield darkroom, recorder


def _twins(expected: Hashes) -> list[str]:
    """Requests that gave another one's picture: what they ask for was not done."""
    seen: dict[tuple[str, ...], str] = {}
    return [name for name, found in expected.items() if seen.setdefault(tuple(found), name) != name]


def main() -> int:
    """Prints a line for each way of drawing; status 1 where a picture is not the same."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.exactness", description="Whether pictures keep their bits."
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--quick", action="store_true", help="few small requests")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found here too")
    parser.add_argument("--hashes", action="store_true", help="draw once, and print the hashes alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.hashes:
            darkroom = Darkroom(settings_of(options, Path(folder)))
            print(json.dumps(hashes(draw(darkroom, requests(options.quick)))))
            return 0
        report = check(options, Path(folder))
    print(f"{report['requests']} requests on {report['device']} in {report['dtype']}")
    for way, names in report["different"].items():
        print(f"{way}: {'different: ' + ', '.join(names) if names else 'the same pixels'}")
    for name, levels in report.get("cpu", {}).items():
        print(f"beside the CPU, {name}: off by up to {levels}/255")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1), "utf-8")
    return int(any(report["different"].values()))


if __name__ == "__main__":
    sys.exit(main())
