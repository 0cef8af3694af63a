"""What a prompt's box offers for what is typed, and what taking it writes."""

from typing import Any

import pytest

from tests.ui.scripts import evaluate

LORA = {"title": "", "trigger_words": [], "weight": 1.0, "made_for": ""}
LORAS = [
    LORA | {"name": "night", "tag": "night", "trigger_words": ["moonlight", "night"]},
    LORA | {"name": "add_detail", "tag": "add_detail", "title": "Detail", "weight": 0.75},
    LORA | {"name": "broken", "tag": "broken", "problem": "no"},
]
WILDCARDS = [{"name": "plants/blossoms", "texts": 12, "some": ["hibiscus", "tulip", "rose"]}]
TAGS = """0\t4350743\tlong_hair\t/lh\tlonghair
0\t1762765\tblue_eyes\tblueeyes
0\t1504581\tblack_hair\tdark_hair
0\t1170118\tanimal_ears\tkemonomimi
3\t324179\tfate_(series)
0\t280730\tcat_ears\tnekomimi
0\t110141\t^_^\t^^
0\t90000\tgirl_with_a_hairband
0\t9000\tcat\tcats
4\t800\tブルー_(pokemon)\tblue_(game)
5\tQuality tag\tbest_quality"""
# text, "|" the cursor; the labels that are offered; what the text becomes when the first is taken
TYPED = [
    ("a fox, bl|", ["__plants/blossoms__", "blue eyes", "black hair", "ブルー (pokemon)"], None),
    ("long h|", ["long hair"], "long hair, |"),
    ("long_h|", ["long hair"], "long hair, |"),
    ("a hair|", ["long hair", "black hair", "girl with a hairband"], "a long hair, |"),
    ("hair|", ["long hair", "black hair", "girl with a hairband"], "long hair, |"),
    ("a cat|", ["cat", "cat ears"], "a cat, |"),
    ("cat|, sat", ["cat", "cat ears"], None),
    ("(cat_e|:1.2)", ["cat ears"], "(cat ears|:1.2)"),
    ("with_a|", ["girl with a hairband"], None),
    ("a kemono|", ["animal ears"], "a animal ears, |"),
    ("fate_(se|", ["fate (series)"], r"fate \(series\), |"),
    (r"fate \(se|", ["fate (series)"], r"fate \(series\), |"),
    ("fate_s|", [], None),
    ("seri|", ["fate (series)"], r"fate \(series\), |"),
    ("^|", [], None),
    ("best q| sat", ["best quality"], "best quality,| sat"),
    ("ブ|", ["ブルー (pokemon)"], r"ブルー \(pokemon\), |"),
    ("c|at", [], None),
    ("cat |", [], None),
    ("(cat:1.2|", [], None),
    ("<|", ["night", "add_detail"], "<lora:night:1> |"),
    ("<lor|", ["night", "add_detail"], None),
    ("a <lora:ni|", ["night"], "a <lora:night:1> |"),
    ("<lora:moon|", ["night"], None),
    ("<lora:tail|", ["add_detail"], None),
    ("<lora:ni|t:0.5:hr=1> sat", ["night"], "<lora:night:0.5:hr=1>| sat"),
    ("<lora:night:0|", [], None),
    ("<e:so|", ["soft"], "soft, |"),
    ("moonl|", ["night"], "<lora:night:1> |"),
    ("__|", ["__plants/blossoms__"], "__plants/blossoms__|"),
    ("a __blo|", ["__plants/blossoms__"], "a __plants/blossoms__|"),
    ("a __pl|x__, b", ["__plants/blossoms__"], "a __plants/blossoms__|, b"),
    ("__plants/blossoms__|", [], None),
    ("sof|", ["soft"], "soft, |"),
]
OFFER = """({ typed, loras, wildcards, tags }) => {
  const { makeIndex, grow, typedAt, suggest, taken } = darkroomSuggest;
  const index = makeIndex("danbooru", tags);
  grow(index);
  const known = { loras, wildcards, embeddings: [{ name: "soft" }], tags: [index] };
  return typed.map((text) => {
    const place = text.indexOf("|");
    const plain = text.replace("|", "");
    const items = suggest(typedAt(plain, place), known);
    if (!items.length) return [[], null];
    const [{ from, to }] = items;
    return [items.map(({ label }) => label), plain.slice(0, from) + taken(plain, items[0]) + "|" + plain.slice(to)];
  });
}"""
# As on the sites: words of one stock in names of one to three, two aliases, uses that fall off. `plain` looks at every
# line, one after the other.
LARGE = """(count) => {
  const { makeIndex, grow, find } = darkroomSuggest;
  let seed = 1;
  const random = (below) => (seed = (seed * 48271) % 2147483647) % below;
  const syllables = "ka ri mo to shi ha bl st re an on er ch la ne be wi do gr fu".split(" ");
  const word = () => Array.from({ length: 2 + random(2) }, () => syllables[random(20)]).join("");
  const stock = Array.from({ length: 6000 }, word);
  const name = () => Array.from({ length: 1 + random(3) }, () => stock[random(random(6000) + 1)]).join("_");
  const line = (_, k) => [0, Math.floor(5e6 / (k + 1)), `${name()}_${k}`, name(), name()].join("\\t");
  const lines = Array.from({ length: count }, line);
  const index = makeIndex("site", lines.join("\\n"));
  let slices = 1;
  while (!grow(index, 200000)) slices++;
  const nameOf = (line) => line.split("\\t")[2];
  const plain = (needle) => {
    const begins = new RegExp(`[^a-z]${needle}`);
    const fits = (line) => begins.test(line.slice(line.indexOf("\\t", 2)).replaceAll("_", " "));
    return lines.filter(fits).slice(0, 12).map(nameOf);
  };
  const pairs = stock.slice(0, 20).map((one, k) => `${one} ${stock[k + 1].slice(0, 2)}`);
  const needles = [...syllables, ...stock.slice(0, 200), ...pairs, "zzzz", "kazz", "k", "1"];
  const looked = needles.map((needle) => find(index, needle).looked);
  const compared = needles.slice(18, 21);
  const same = compared.map((needle) => [find(index, needle).tags.map((tag) => tag.name), plain(needle)]);
  const places = [...index.places.values()].reduce((sum, each) => sum + each.length, 0);
  return { slices, places, most: Math.max(...looked), same };
}"""


@pytest.fixture(scope="module")
def offered() -> list[Any]:
    typed = [text for text, _, _ in TYPED]
    return evaluate(["suggest.js"], OFFER, {"typed": typed, "loras": LORAS, "wildcards": WILDCARDS, "tags": TAGS})


@pytest.mark.parametrize("number", range(len(TYPED)), ids=[text for text, _, _ in TYPED])
def test_what_is_offered_and_what_taking_it_writes(offered, number):
    _, labels, written = TYPED[number]
    assert offered[number][0] == labels
    assert written is None or offered[number][1] == written


def test_of_150_000_tags_a_small_part_is_looked_at_and_the_best_are_found():
    found = evaluate(["suggest.js"], LARGE, 150_000)
    assert found["slices"] > 10  # no key waits for all of them
    assert found["most"] < 0.1 * found["places"], found["most"]
    for fast, slow in found["same"]:
        assert fast == slow and fast


def test_behind_on_a_backgrounds_come_first():
    script = """(texts) => {
      const words = ["blueberries", "blue background", "black background"].map((name) => ({ name, detail: "" }));
      const { suggest, typedAt } = darkroomSuggest;
      return texts.map((text) => suggest(typedAt(text, text.length), { words }).map(({ write }) => write));
    }"""
    behind, alone = evaluate(["suggest.js"], script, ["a fox, on a bl", "bl"])
    assert behind == ["blue background", "black background", "blueberries"]
    assert alone == ["blueberries", "blue background", "black background"]
