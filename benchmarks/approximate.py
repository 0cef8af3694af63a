"""Each shortcut beside the exact picture: its time, and how far its picture is from the exact one of the same seed.

The tiny autoencoder is timed alone, since its weights do not come with the product and are random here. So is
everything at SD 1.5's size, where LCM has no LoRA. The demo model has ``few-steps``, whose picture is another one of
the same prompt: far from the exact one, which says little of how good it is.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL.Image import Image as PilImage
from safetensors.torch import save_file

from benchmarks.measure import Options, Row, compared
from benchmarks.peers.convert import offer
from benchmarks.quality import psnr_db, ssim
from benchmarks.tasks import PROMPT
from webui.core.events import Done, Image
from webui.core.request import LoraRef, Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.nets.tiny import TinyAutoencoder

Ways = Mapping[str, Mapping[str, Any]]
TINY = "tiny"
WAYS: Ways = {
    "exact": {},
    "guidance until 0.8": {"guidance_until": 0.8},
    "guidance until 0.5": {"guidance_until": 0.5},
    "reuse 2": {"reuse": 2},
    "reuse 3": {"reuse": 3},
    "reuse 5": {"reuse": 5},
    "token merging 0.5": {"token_merging": 0.5},
    "int8": {"int8": True},
    "int8, reuse 2": {"int8": True, "reuse": 2},
    "guidance until 0.8, reuse 2": {"guidance_until": 0.8, "reuse": 2},
    "guidance until 0.5, reuse 3": {"guidance_until": 0.5, "reuse": 3},
    "tiny VAE": {"vae": TINY},
}
LCM = {"sampler": "LCM", "steps": 4, "guidance": 1.0}
ON_DEMO = {**WAYS, "few-steps, LCM, 4 steps, guidance 1": LCM | {"loras": (LoraRef(name="few-steps"),)}}
BOTH = "guidance until 0.5, reuse 3"
WORTH_MINUTES = ("exact", "guidance until 0.5", "reuse 2", "reuse 3", "token merging 0.5", "int8", BOTH, "tiny VAE")
IN_FLOAT32 = {name: WAYS[name] for name in ("exact", "int8")}
AT_SD15 = {name: WAYS[name] for name in WORTH_MINUTES} | {"LCM, 4 steps, guidance 1": LCM}


@dataclass
class _Drawn:
    total_ms: list[float] = field(default_factory=list)
    steps_ms: list[float] = field(default_factory=list)
    decode_ms: list[float] = field(default_factory=list)
    psnr_db: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)


def run(options: Options) -> list[Row]:
    """A row for each way and size: milliseconds a picture, in the format that the product starts with."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        model = _fill(Path(folder), options)
        darkroom = Darkroom(Settings(device="cpu", data_dir=Path(folder)))
        rows += _all_sides(darkroom, model, ON_DEMO if model == "demo" else AT_SD15, options)
        if darkroom.manager.dtype != torch.float32 and not darkroom.manager.room.no_int8:
            darkroom.manager.close()
            darkroom = Darkroom(Settings(device="cpu", dtype="float32", data_dir=Path(folder)))
            rows += _all_sides(darkroom, model, IN_FLOAT32, options)
    return rows


def _all_sides(darkroom: Darkroom, model: str, ways: Ways, options: Options) -> list[Row]:
    """What cannot be done on this processor has a row that says why."""
    for _ in darkroom.load(model):
        pass
    refused: list[Row] = []
    if reason := darkroom.manager.room.no_int8:
        refused = [Row(name, "ms", (), note=f"refused here: {reason}") for name in ways if "int8" in ways[name]]
        ways = {name: fields for name, fields in ways.items() if "int8" not in fields}
    sides = (options.side,) if options.side else (128, 256) if options.size == "demo" else (256, 512)
    return [row for side in sides for row in _compare(darkroom, model, ways, side, options)] + refused


def _fill(folder: Path, options: Options) -> str:
    """Puts a tiny autoencoder and the model into a data folder; the model's name."""
    torch.manual_seed(0)
    (folder / "models/VAE").mkdir(parents=True)
    save_file(TinyAutoencoder().state_dict(), folder / "models/VAE" / f"{TINY}.safetensors")
    return offer(options.size, folder)


def _compare(darkroom: Darkroom, model: str, ways: Ways, side: int, options: Options) -> list[Row]:
    steps = options.steps or (20 if options.size == "demo" else 4)
    label = f"{side} px, {steps} steps" + (", float32" if darkroom.manager.dtype == torch.float32 else "")
    found = {name: _Drawn() for name in ways}
    for k in range(options.rounds + 1):
        pictures: dict[str, PilImage] = {}
        for name in ways if k % 2 else reversed(list(ways)):
            wanted = {"prompt": PROMPT, "model": model, "steps": steps, "seed": k, "width": side, "height": side}
            request = Request(**{**wanted, **ways[name]})
            if request.int8:  # its weights are made once, when it is switched on
                _draw(darkroom, request.model_copy(update={"steps": 1}))
            pictures[name], done = _draw(darkroom, request)
            if k:
                found[name].total_ms.append(done.seconds * 1e3)
                found[name].steps_ms.append(done.parts_s["steps"] * 1e3)
                found[name].decode_ms.append(done.parts_s["decode"] * 1e3)
        for name in ways if k else ():
            found[name].psnr_db.append(psnr_db(pictures[name], pictures["exact"]))
            found[name].ssim.append(ssim(pictures[name], pictures["exact"]))
    exact = Row(f"{label}: exact", "ms", found["exact"].total_ms)
    rows = []
    for name, drawn in found.items():
        parts = f"steps {median(drawn.steps_ms):.0f} ms, decoding {median(drawn.decode_ms):.0f} ms"
        notes = [str(darkroom.manager.dtype).removeprefix("torch."), parts]
        likeness = {}
        if name not in ("exact", "tiny VAE") and model == "demo":
            likeness = {"psnr_db": median(drawn.psnr_db), "ssim": median(drawn.ssim)}
            notes.append(f"PSNR {likeness['psnr_db']:.1f} dB, SSIM {likeness['ssim']:.3f}")
        note = f"({'; '.join(notes)})"
        own = compared(f"{label}: {name}", "ms", drawn.total_ms, exact, note, **likeness)
        rows.append(replace(exact, note=note) if name == "exact" else own)
    return rows


def _draw(darkroom: Darkroom, request: Request) -> tuple[PilImage, Done]:
    for event in darkroom.generate(request):
        if isinstance(event, Image):
            picture = event.image
        elif isinstance(event, Done):
            done = event
    return picture, done
