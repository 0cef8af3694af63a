"""The words of languages beside English: a file each, and the script that puts them in place of the English ones."""

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
OWN_NAME = "English"
"""For this text a language says its own name."""


def names() -> dict[str, str]:
    """The languages beside English, by their codes: what they call themselves."""
    return {path.stem: language(path.stem)[OWN_NAME] for path in sorted(HERE.glob("*.json"))}


def language(code: str) -> dict[str, str]:
    """What a language says for each text; one with places, as ``{1}``, may have them elsewhere."""
    words: dict[str, str] = json.loads((HERE / f"{code}.json").read_text("utf-8"))
    return words


def choose() -> str:
    """The script that a page begins with: it chooses among the languages, and asks for one that is not English."""
    return (HERE / "choose.js").read_text("utf-8").replace("NAMES", json.dumps(names(), ensure_ascii=False))


def script(code: str) -> str:
    """The script of one language, which holds all its words. It runs before anything else of a page does."""
    words = (HERE / f"{code}.json").read_text("utf-8")
    return f"{(HERE / 'words.js').read_text('utf-8')}\ndarkroomWords.begin({words.strip()});\n"
