"""Command line of the recipe: one stage, or all of them from the npm packages to the exported folder."""

import argparse
import json
from pathlib import Path

import torch

from . import autoencoder, card, data, few_steps, latents, lora, lora_evaluate, showcase, unet
from .evaluate import evaluate
from .export import export

STAGES = ("data", "autoencoder", "unet", "export", "loras", "evaluate", "card", "showcase")


def parse_arguments() -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("stage", nargs="?", choices=("all", *STAGES), default="all")
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
    parser.add_argument("--quick", action="store_true", help="evaluate without the samplers and without few steps")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    return parser.parse_args()


def main() -> None:
    """Run the chosen stage, or all."""
    options = parse_arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)
    if options.threads:
        torch.set_num_threads(options.threads)
    chosen = STAGES if options.stage == "all" else (options.stage,)
    if "data" in chosen:
        data.prepare(options.work)
    if "autoencoder" in chosen:
        autoencoder.train(options.work, options.autoencoder_minutes, options.decoder_minutes, options.start)
    if "unet" in chosen:
        latents.prepare(options.work)
        unet.train(options.work, options.unet_minutes, options.start)
    if "export" in chosen:
        print(f"{export(options.work, options.out):,} bytes in {options.out}")
    model, pictures = options.model or options.out, options.work / "evaluation"
    if "loras" in chosen:
        lora.make(model, options.work, options.lora_minutes)
        few_steps.make(model, options.work, options.few_steps_minutes)
        lora_evaluate.evaluate(model, options.work, pictures)
    if "evaluate" in chosen:
        print(json.dumps(evaluate(model, options.work, pictures, not options.quick), indent=1))
    if "card" in chosen:
        card.write(model, pictures)
    if "showcase" in chosen:
        showcase.make(Path.cwd())


if __name__ == "__main__":
    main()
