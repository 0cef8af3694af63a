"""Command line of the recipe: some stages, or all of them from the npm packages to the exported folder."""

import argparse
import json
from pathlib import Path

import torch

from . import (
    autoencoder,
    card,
    data,
    edges,
    edges_evaluate,
    few_steps,
    lora,
    lora_evaluate,
    reference,
    reference_evaluate,
    showcase,
    unet,
)
from .evaluate import evaluate
from .export import export

STAGES = (
    *("data", "autoencoder", "unet", "export", "loras", "few-steps", "edges", "reference"),
    *("evaluate", "evaluate-edges", "evaluate-reference", "card", "showcase"),
)


def parse_arguments() -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)} (default: all)")
    work = Path("build/training")
    parser.add_argument("--work", type=Path, default=work, help="scratch data and checkpoints")
    parser.add_argument("--out", type=Path, default=Path("webui/demo"), help="where the model is exported to")
    parser.add_argument("--model", type=Path, help="the model to evaluate or to train LoRAs on (default: --out)")
    parser.add_argument("--start", type=Path, help="a model whose weights the training starts from")
    parser.add_argument("--autoencoder-minutes", type=float, default=20)
    parser.add_argument("--decoder-minutes", type=float, default=12)
    parser.add_argument("--unet-minutes", type=float, default=55)
    parser.add_argument("--lora-minutes", type=float, default=6, help="for each of the three looks")
    parser.add_argument("--few-steps-minutes", type=float, default=15, help="for the LoRA that draws in few steps")
    parser.add_argument("--edges-minutes", type=float, default=10, help="for the control that follows outlines")
    parser.add_argument("--reference-minutes", type=float, default=5.5, help="for the control that draws like pictures")
    parser.add_argument("--quick", action="store_true", help="evaluate without the samplers and without few steps")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    options = parser.parse_args()
    if unknown := [name for name in options.stages if name not in STAGES]:
        parser.error(f"unknown stage {unknown[0]!r}; there are {', '.join(STAGES)}")
    return options


def main() -> None:
    """Run the chosen stages, or all."""
    options = parse_arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = options.device
    torch.backends.cudnn.benchmark = True
    chosen = options.stages or STAGES
    if "data" in chosen:
        data.prepare(options.work)
    if "autoencoder" in chosen:
        autoencoder.train(options.work, options.autoencoder_minutes, options.decoder_minutes, options.start, device)
    if "unet" in chosen:
        unet.train(options.work, options.unet_minutes, options.start, device=device)
    if "export" in chosen:
        print(f"{export(options.work, options.out):,} bytes in {options.out}")
    model, pictures = options.model or options.out, options.work / "evaluation"
    if "loras" in chosen:
        lora.make(model, options.work, options.lora_minutes, device)
        lora_evaluate.evaluate(model, options.work, pictures, device)
    if "few-steps" in chosen:
        few_steps.make(model, options.work, options.few_steps_minutes, device)
    if "edges" in chosen:
        edges.make(model, options.work, options.edges_minutes, device)
    if "reference" in chosen:
        reference.make(model, options.work, options.reference_minutes, device)
    if "evaluate" in chosen:
        print(json.dumps(evaluate(model, options.work, pictures, not options.quick, device), indent=1))
    if "evaluate-edges" in chosen:
        print(json.dumps(edges_evaluate.evaluate(model, options.work, pictures, device), indent=1))
    if "evaluate-reference" in chosen:
        print(json.dumps(reference_evaluate.evaluate(model, options.work, pictures, device), indent=1))
    if "card" in chosen:
        card.write(model, pictures)
    if "showcase" in chosen:
        showcase.make(Path.cwd())


if __name__ == "__main__":
    main()
