"""What the parts of a prompt are, and which of its words the embedded model was not trained on."""

import json
import random
from typing import Any

import pytest

from tests.ui.scripts import evaluate
from training import captions, vocabulary
from training.concepts import COLOURS, CONCEPTS, PLACEMENTS, STYLES
from webui.library.library import DEMO_MODEL

# A part in "⟨kind ...⟩".
MARKED = [
    ("a cat", "a cat"),
    ("a (cat:1.3)", "a ⟨stronger (cat⟨number :1.3⟩)⟩"),
    ("a (cat:0.7) ((dog))", "a ⟨weaker (cat⟨number :0.7⟩)⟩ ⟨stronger (⟨stronger (dog)⟩)⟩"),
    ("[cat] (dog)", "⟨weaker [cat]⟩ ⟨stronger (dog)⟩"),
    ("[cat:dog:0.5]", "⟨schedule [cat:dog⟨number :0.5⟩]⟩"),
    ("[red|green] light", "⟨schedule [red|green]⟩ light"),
    ("[a (cat:1.2):b:5]", "⟨schedule [a ⟨stronger (cat⟨number :1.2⟩)⟩:b⟨number :5⟩]⟩"),
    ("{a|b} {x} {2$$a|b}", "⟨choice {a|b}⟩ {x} ⟨choice {2$$a|b}⟩"),
    ("{(a)} {", "{⟨stronger (a)⟩} {"),
    ("<lora:night:0.8> x", "⟨lora <lora:night:0.8>⟩ x"),
    ("[<lora:a:1>::0.4]", "⟨schedule [⟨lora <lora:a:1>⟩:⟨number :0.4⟩]⟩"),
    ("a __plants/x__ b", "a ⟨wildcard __plants/x__⟩ b"),
    ("a AND b BREAK c ANDES", "a ⟨keyword AND⟩ b ⟨keyword BREAK⟩ c ANDES"),
    (r"a \(cat\) \[x", r"a \(cat\) \[x"),
    ("a (cat", "a ⟨bad (⟩cat"),
    ("a cat) [x", "a cat⟨bad )⟩ ⟨bad [⟩x"),
    ("([a)", "⟨stronger (⟨bad [⟩a)⟩"),
    ("(a:1.2] b)", "⟨stronger (a:1.2⟨bad ]⟩ b)⟩"),
    ("< b > a:1.2", "< b > a:1.2"),
    ("", ""),
]
MARK = """(texts) => texts.map((text) => {
  const say = (parts, from, to) => {
    let said = "";
    let place = from;
    for (const part of parts) {
      said += text.slice(place, part.from) + `⟨${part.kind} ${say(part.parts, part.from, part.to)}⟩`;
      place = part.to;
    }
    return said + text.slice(place, to);
  };
  return say(darkroomMarks.partsOf(text), 0, text.length);
})"""
UNKNOWN = [
    ("a red apple, flat style, on a blue background", []),
    ("A PANDA, 3D style", []),
    ("a castle on a hill at sunset, oil painting", ["hill", "sunset", "oil", "painting"]),
    ("a bunny and a steam train, on the left", []),
    ("a steam apple", ["steam"]),
    ("face with sunglasses, sunglasses", ["sunglasses"]),
    ("face, with sunglasses", ["face", "sunglasses"]),
    ("(a fox:1.3), [cat:wolf:0.5] {duck|goose} <lora:nope:1> __hue__ AND BREAK 2", ["goose"]),
    ("high quality, masterpiece, a picture of a cat", []),
    ("moonlight, a t-shirt", []),
    (r"an owl \(bird\)", ["bird"]),
    ("", []),
]
NAME = """({ vocabulary, texts, captions }) => {
  const known = darkroomMarks.learn(vocabulary, ["moonlight"]);
  const wordsOf = (text) =>
    darkroomMarks.unknown(text, known).map(({ word, from, to }) => [word, text.slice(from, to)]);
  const names = texts.map(wordsOf);
  return { names, captions: captions.flatMap(wordsOf), typing: darkroomMarks.unknown("a dragonfl", known, 10).length };
}"""


@pytest.fixture(scope="module")
def marked() -> list[str]:
    return evaluate(["marks.js"], MARK, [text for text, _ in MARKED])


@pytest.fixture(scope="module")
def named() -> Any:
    told, rng = json.loads((DEMO_MODEL / "vocabulary.json").read_text("utf-8")), random.Random(1)
    trained = [
        captions.caption(
            thing, STYLES[k % 3].name, rng.choice([*COLOURS]), rng.choice(PLACEMENTS), rng, 100 + 40 * (k % 2)
        )
        for k, thing in enumerate(CONCEPTS * 3)
    ]
    texts = [text for text, _ in UNKNOWN]
    return evaluate(["marks.js"], NAME, {"vocabulary": told, "texts": texts, "captions": trained})


@pytest.mark.parametrize("number", range(len(MARKED)), ids=[text for text, _ in MARKED])
def test_the_parts_of_a_prompt(marked, number):
    assert marked[number] == MARKED[number][1]


@pytest.mark.parametrize("number", range(len(UNKNOWN)), ids=[text for text, _ in UNKNOWN])
def test_words_that_the_model_does_not_know(named, number):
    text, words = UNKNOWN[number]
    assert [word for word, _ in named["names"][number]] == words
    assert all(word == there.lower() for word, there in named["names"][number])


def test_a_word_is_not_called_unknown_while_it_is_typed(named):
    assert named["typing"] == 0


def test_the_words_that_are_told_are_those_that_were_trained(named):
    assert json.loads((DEMO_MODEL / "vocabulary.json").read_text("utf-8")) == vocabulary.vocabulary()
    assert named["captions"] == []
