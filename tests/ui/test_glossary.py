"""One name for one thing: the table of words in CONTRIBUTING.md holds in all that people read."""

import re
from pathlib import Path

import pytest

from webui.languages import catalogue

CONTRIBUTING = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"
CODE = ("languages", "api/description.py", "api/metrics.py", "api/installable.py")
"""What holds no texts for people, or those of programs alone."""
THEIRS = {
    "Init image not found: init_images is empty": "A1111's, for its clients",
    "image {1}": "a field of A1111's",
    "imageList must be a list of objects with data and name": "a field of A1111's",
    "infotext must be text": "a field of A1111's",
    "infotext has no settings that can be read{1}": "a field of A1111's",
    "verify needs an IMAGE, or --preset NAME": "as the command line's usage calls it",
    "the scheduler's prediction_type is {1}, which is none of {2}": "a file of diffusers'",
    "{1}, not boxes: use a detector or segmenter": "kinds of networks",
    "text adapter": "a part of Anima",
    "image: {1} pictures were given; one is taken": "a field of sd-webui-controlnet's",
    "is an image encoder of a size that is not known here ({1} wide)": "a part of IP-Adapter",
    "is not an image encoder in transformers' names": "a part of IP-Adapter",
    "lacks parts of an image encoder": "a part of IP-Adapter",
}
"""Texts with a word that belongs to another program or to a format, and whose it is."""
NAMES = re.compile(r"[<>=#\[\]/_$]|^\.|-\w+ \w+-")
"""Code, addresses, names of classes: no texts, or with names in them."""
NEVER = ("please", "invalid", "any more", "colors?", "gray", "—", "e\\.g\\.")


def refused() -> list[str]:
    table = CONTRIBUTING.read_text("utf-8").partition("\n## Words\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\|[^|]+\|[^|]+\| ([^|]+) \|$", table, re.MULTILINE)[1:]
    return [word for row in rows for word in row.split(", ")]


def found_in(texts: set[str]) -> dict[str, set[str]]:
    shapes = {word: re.compile(rf"(?<![\w-])(?:{word})s?(?![\w-])", re.IGNORECASE) for word in (*refused(), *NEVER)}
    read = {text for text in texts - THEIRS.keys() if " " in text and not NAMES.search(text)}
    return {word: hits for word, shape in shapes.items() if (hits := {text for text in read if shape.search(text)})}


def test_one_thing_has_one_name():
    texts = catalogue.texts(CODE)
    assert not found_in(texts), "see Words in CONTRIBUTING.md"
    assert THEIRS.keys() <= texts, "an exception for a text that is gone"


@pytest.mark.parametrize(
    "text", ["the image {1} is too large", "Choose an Autoencoder", "No gallery yet", "A pale color"]
)
def test_another_name_is_noticed(text):
    assert len(found_in({text, "Choose a picture"})) == 1
