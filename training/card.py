"""The model card: a text written by hand with the lists and the last evaluation's figures filled in."""

import json
from pathlib import Path
from typing import Any

from .concepts import COLOURS, CONCEPTS

TEMPLATE = Path(__file__).with_name("MODEL_CARD.md")

ANSWERS = {
    "background": "background colour",
    "concept": "thing: nearest training picture",
    "concept_classified": "thing: classifier",
    "style": "style: classifier",
}
JUDGES = {
    "concept": "thing",
    "style": "style",
    "unseen_pair_concept": "thing, unseen pairs",
    "unseen_pair_style": "style, unseen pairs",
}


def figures_table(numbers: dict[str, Any]) -> str:
    """What is right, over the held-out combinations and over the pairs of thing and style never trained."""
    count = numbers["prompts"]
    lines = [f"| right | held-out combinations ({count['full']}) | pairs never trained ({count['unseen-pairs']}) |"]
    lines.append("|---|---|---|")
    for key, text in ANSWERS.items():
        lines.append(f"| {text} | {numbers['full'][key]:.1%} | {numbers['unseen_pairs'][key]:.1%} |")
    lines.append(f"| size and place ({count['placed']} prompts) | {numbers['placement']:.1%} | |")
    return "\n".join(lines)


def judges_text(numbers: dict[str, Any]) -> str:
    """How far the classifiers can be trusted."""
    return ", ".join(f"{text} {numbers['judges'][key]:.1%}" for key, text in JUDGES.items())


def ways_table(numbers: dict[str, Any]) -> str:
    """The figures of each sampler at 20 steps, and of few steps with their LoRA."""
    rows = {f"{name}, 20 steps": figures for name, figures in numbers.get("samplers", {}).items()}
    rows |= {
        f"LoRA `few-steps`, LCM, {steps} steps": figures for steps, figures in numbers.get("few_steps", {}).items()
    }
    if not rows:
        return "Not measured yet."
    keys = [*ANSWERS, "unseen_pair_style", "placement"]
    titles = [*ANSWERS.values(), "style, unseen pairs", "size and place"]
    lines = [f"| drawn with | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(f'{figures[key]:.0%}' for key in keys)} |" for name, figures in rows.items()]
    return "\n".join(lines)


def loras_table(numbers: dict[str, Any]) -> str:
    """What `lora_evaluate` measured as a Markdown table."""
    lines = ["| LoRA | size | measure, of 255 | off | 0.5 | 1 | 1, no trigger word | thing right: off | 0.5 | 1 |"]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for name, row in numbers.items():
        values = [f"{row[key]:.0f}" for key in ("off", "half", "full", "full_no_trigger")]
        right = [f"{row[f'right_{key}']} of {row['prompts']}" for key in ("off", "half", "full")]
        size = f"{row['bytes'] / 1000:.0f} kB"
        lines.append(f"| {' | '.join([f'`{name}`', size, row['measure'], *values, *right])} |")
    return "\n".join(lines)


EDGES = {
    "all": "all",
    "pairs": "pairs of thing and style never trained",
    "things": "things never trained",
    "by_hand": "drawn as by a hand",
}


def edges_table(numbers: dict[str, Any]) -> str:
    """What `edges_evaluate` measured as two Markdown tables: how outlines are followed, what stays of the prompt."""
    modes = ("control", "balanced", "without")
    lines = ["| outlines | number | F1, mode control | F1, mode balanced | without |", "|---|---|---|---|---|"]
    for key, text in EDGES.items():
        values = " | ".join(f"{numbers[mode][key]:.2f}" for mode in modes)
        lines.append(f"| {text} | {numbers['outlines'][key]} | {values} |")
    shares = " | ".join(f"{numbers[mode]['background']:.0%}" for mode in modes)
    lines.append(f"| their background is right | | {shares} |")
    whole = numbers["complete_prompts"]
    lines += ["", f"| {whole['prompts']} complete prompts, right | with their outlines | without |", "|---|---|---|"]
    for key, text in {"background": "background colour", "concept": "thing", "style": "style"}.items():
        lines.append(f"| {text} | {whole['control'][key]:.0%} | {whole['without'][key]:.0%} |")
    lines.append(f"| F1 of the edges | {whole['control']['f1']:.2f} | {whole['without']['f1']:.2f} |")
    return "\n".join(lines)


REFERENCE = {
    "own": "nearer to its own reference than to the other 99",
    "own_combinations": "of things never trained on that background (33)",
    "own_pairs": "of pairs of thing and style never trained (34)",
    "own_things": "of things never trained (33)",
    "background": "background colour",
    "thing": "thing (of 67)",
    "style": "style (of 67)",
}


def reference_table(numbers: dict[str, Any]) -> str:
    """What `reference_evaluate` measured as a Markdown table."""
    lines = ["| right | with the reference | with another one | without |", "|---|---|---|---|"]
    for key, text in REFERENCE.items():
        shares = " | ".join(f"{numbers[name][key]:.0%}" for name in ("with", "wrong", "without"))
        lines.append(f"| {text} | {shares} |")
    return "\n".join(lines)


def worded_text(numbers: dict[str, Any]) -> str:
    """How prompts and references go together."""
    found = numbers["with_words"]
    shares = ", ".join(f"{name} {found[name]:.0%}" for name in ("thing", "style", "background"))
    return f"{shares} of {found['prompts']}"


def measured(file: Path) -> dict[str, Any] | None:
    """An evaluation's file, or None where there is none yet."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def write(folder: Path, evaluation: Path | None = None) -> None:
    """Write `README.md` into the model's folder, with the figures in the folder `evaluation`."""
    parts = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    size = sum(file.stat().st_size for part in parts for file in (folder / part).iterdir())
    fields = {
        "THINGS": ", ".join(concept.words for concept in CONCEPTS),
        "COLOURS": ", ".join(COLOURS),
        "MEGABYTES": f"{size / 1e6:.1f} MB",
        "COUNT": str(len(CONCEPTS)),
    }
    content = measured(evaluation / "evaluation.json") if evaluation else None
    loras = measured(evaluation / "loras.json") if evaluation else None
    edges = measured(evaluation / "edges.json") if evaluation else None
    references = measured(evaluation / "reference.json") if evaluation else None
    missing = "Not measured yet."
    numbers = content["numbers"] if content else None
    fields["FIGURES"] = figures_table(numbers) if numbers else missing
    fields["JUDGES"] = judges_text(numbers) if numbers else missing
    fields["WAYS"] = ways_table(numbers) if numbers else missing
    fields["LORAS"] = loras_table(loras) if loras else missing
    fields["EDGES"] = edges_table(edges) if edges else missing
    fields["REFERENCE"] = reference_table(references) if references else missing
    fields["WORDED"] = worded_text(references) if references else missing
    for key in ("milliseconds", "milliseconds_best", "threads", "background_unevenness"):
        fields[key.upper()] = f"{numbers[key]:.0f}" if numbers else "?"
    for key in ("least", "median", "floor"):
        fields[f"SPREAD_{key.upper()}"] = f"{numbers['spread'][key]:.1f}" if numbers else "?"
    text = TEMPLATE.read_text(encoding="utf-8")
    for key, value in fields.items():
        text = text.replace(f"@{key}@", value)
    (folder / "README.md").write_text(text, encoding="utf-8")
