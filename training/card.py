"""The model card: a text written by hand with the lists and figures filled in."""

from pathlib import Path

from .concepts import COLOURS, CONCEPTS

TEMPLATE = Path(__file__).with_name("MODEL_CARD.md")

FIGURES = (
    ("background", "background colour right ({prompts} prompts)"),
    ("concept", "thing right: nearest of 216 training pictures, 32x32 pixels ({prompts} prompts)"),
    ("concept_by_edges", "the same by brightness edges alone, without colour"),
    ("style", "style right: nearest of the thing's three pictures"),
    ("concept_short_prompt", "thing right where the prompt is the thing alone (24 prompts)"),
    ("placement", "size and place right (24 prompts)"),
)


def figures_table(numbers: dict | None) -> str:
    """The evaluation's numbers as a Markdown table."""
    if numbers is None:
        return "Not measured yet."
    lines = ["| test | result |", "|---|---|"]
    lines += [f"| {text.format(**numbers)} | {numbers[key]:.1%} |" for key, text in FIGURES]
    lines.append(f"| spread of the background's outermost pixels, of 255 | {numbers['background_unevenness']} |")
    time = f"{numbers['milliseconds_best']:.0f} ms at best, median {numbers['milliseconds']:.0f} ms"
    threads = numbers["threads"]
    lines.append(f"| one picture, prompt to pixels, 20 steps with guidance, fp32, {threads} threads | {time} |")
    return "\n".join(lines)


def loras_table(numbers: dict | None) -> str:
    """What `lora_evaluate` measured as a Markdown table."""
    if numbers is None:
        return "Not measured yet."
    lines = ["| LoRA | size | measure, of 255 | off | 0.5 | 1 | 1, no trigger word | thing right: off | 0.5 | 1 |"]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for name, row in numbers.items():
        values = [f"{row[key]:.0f}" for key in ("off", "half", "full", "full_no_trigger")]
        right = [f"{row[f'right_{key}']} of {row['prompts']}" for key in ("off", "half", "full")]
        size = f"{row['bytes'] / 1000:.0f} kB"
        lines.append(f"| {' | '.join([f'`{name}`', size, row['measure'], *values, *right])} |")
    return "\n".join(lines)


def write(folder: Path, numbers: dict | None = None, lora_numbers: dict | None = None) -> None:
    """Write `README.md` into the model's folder."""
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.name != "README.md" and file.is_file())
    text = TEMPLATE.read_text(encoding="utf-8")
    text = text.replace("@THINGS@", ", ".join(concept.words for concept in CONCEPTS))
    text = text.replace("@COLOURS@", ", ".join(COLOURS))
    text = text.replace("@MEGABYTES@", f"{size / 1e6:.1f} MB")
    text = text.replace("@FIGURES@", figures_table(numbers)).replace("@LORAS@", loras_table(lora_numbers))
    (folder / "README.md").write_text(text, encoding="utf-8")
