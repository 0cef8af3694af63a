"""Every text has its words in each language, and they stand in its place wherever it is shown."""

import json

import pytest

from tests.ui.scripts import evaluate
from webui import languages
from webui.languages import catalogue

CODES = [*languages.names()]
SCRIPT = "../../languages/words.js"


@pytest.fixture(scope="module")
def known() -> set[str]:
    return catalogue.texts()


@pytest.mark.parametrize("code", CODES)
def test_a_language_says_all_that_a_page_can_show_and_nothing_else(code, known):
    amiss = catalogue.lacking(code, known)
    assert not any(amiss.values()), f"python -m webui.languages.catalogue says: {amiss}"


def test_what_is_amiss_in_a_language_is_noticed(monkeypatch, known):
    words = languages.language("de")
    monkeypatch.setattr(
        languages, "language", lambda _: {**words, "Nobody says this.": "Niemand.", "Remove {1}": "Weg: {2}"}
    )
    amiss = catalogue.lacking("de", known | {"A new sentence of the page."})
    assert amiss["is missing"] == {"A new sentence of the page."}
    assert amiss["is not used"] == {"Nobody says this."}
    assert amiss["has other places"] == {"Remove {1}"}


def test_texts_of_scripts_are_found_with_their_places():
    source = r"""
      // "not this", nor `this`
      const shape = /["'`]/; const half = count / 2;
      say("One \"text\"", `Remove ${name}`, `${several ? `${count} of them` : 'none'} on ${list[`of ${place}`]}.`);
    """
    found = [*catalogue.script_texts(source)]
    assert found == ['One "text"', "Remove {1}", "{1} of them", "none", "of {1}", "{1} on {2}."]


def test_texts_of_python_are_found_with_their_places():
    source = '''
"""No text of the page."""
raise RequestError(f"width must be {wanted}, not {given!r}", field="width")
page = f'<p title="A tip">Some {name} text<b>bold</b></p>'
'''
    tree = catalogue.ast.parse(source)
    assert {"width must be {1}, not {2}", "A tip", "bold"} <= {*catalogue._python_texts(tree, is_front=True)}
    assert [*catalogue._python_texts(tree, is_front=False)] == ["width must be {1}, not {2}", "width"]


def test_words_of_another_language_stand_for_the_english_ones():
    words = languages.language("de")
    texts = {
        "Queue": "Warteschlange",
        " Queue ": " Warteschlange ",
        "Starting the engine ...": "Engine startet ...",
        "Waiting: 3 ahead": "Wartet: 3 davor",
        "Steps 75% · Loading 25%": "Schritte 75% · Lädt 25%",
        "Stop the jobs of Guest 33d59d": "Die Aufträge von Gast 33d59d stoppen",
        "Different: redrawn, it is another picture (by up to 9 of 255 levels): nothing that the recipe knows of has"
        " changed.": "Anders: Neu erzeugt ist es ein anderes Bild (um bis zu 9 von 255 Stufen): nichts hat sich"
        " geändert, wovon das Rezept weiß.",
        "Model “x” needs 1.0 GiB of memory on cuda, and 0.9 GiB are free. A smaller picture would fit.": "Das Modell"
        " „x“ braucht 1.0 GiB Speicher auf cuda, und 0.9 GiB sind frei. Ein kleineres Bild würde passen.",
        "Done in 8.2 s. LoRA fox:1: in place already.": "Fertig in 8.2 s. LoRA fox:1: schon an ihrem Platz.",
        "Remove a red fox": "a red fox entfernen",
        "Steps 62%, Waiting 7%": "Schritte 62%, Warten 7%",
        "3 pictures finished: a fox.": "3 Bilder fertig: a fox.",
        "1 picture": "1 Bild",
        "Step 3 of 20 · Refiner · 5 it/s · 4 s left": "Schritt 3 von 20 · Refiner · 5 it/s · noch 4 s",
        "Place 3 · 2 of others ahead": "Platz 3 · 2 von anderen davor",
        "Brackets: 3 ( that is never closed": "Klammern: 3 ( ohne schließende Klammer",
        "width must be a multiple of 8 from 64 to 2048, such as 128 or 136, not 130": "Breite muss ein Vielfaches"
        " von 8 zwischen 64 und 2048 sein, etwa 128 oder 136, nicht 130",
        "There is no sampler “x”. There are 15: Heun, LMS and 13 more.": "Sampler „x“ gibt es nicht. Es gibt 15: Heun,"
        " LMS und 13 weitere.",
        "x and y both vary steps: one of them is enough": "x und y ändern beide steps: eine davon genügt",
        "the request was too slow, so others went first; try again": "die Anfrage war zu langsam, darum kamen andere"
        " zuerst; versuch es noch einmal",
        "3 of your downloads are on their way; wait until one is done": "3 deiner Downloads sind unterwegs; warte, bis"
        " einer fertig ist",
        "preset “x” cannot be replaced: it ships with the product; choose another name": "Preset “x” lässt sich nicht"
        " ersetzen: Es gehört zu Darkroom; wähle einen anderen Namen",
        "sampler LCM cannot draw with a model that predicts flow": "Sampler LCM kann nicht mit einem Modell zeichnen,"
        " das Flow vorhersagt",
        "files: there are too many pictures for one batch; the limit is 50": "Das sind zu viele Bilder für einen"
        " Stapel; die Grenze ist 50",
        "model: “gone” is not here": "Modell: „gone“ ist nicht hier",
        "the values of x cannot be read: x must be a number, not 'a'": "die Werte von x lassen sich nicht lesen: x muss"
        " eine Zahl sein, nicht 'a'",
        "no job has this id": "kein Auftrag hat diese Kennung",
        "kind is one of txt2img and grid, not 'x'": "kind ist eines von txt2img und grid, nicht 'x'",
        "Reuse in grid": "In Raster übernehmen",
        "Upscale: scale": "Vergrößern: Faktor",
    }
    assert _translated(words, [*texts]) == [*texts.values()]


def test_a_sentence_with_a_sign_of_code_in_it_is_to_be_said_too():
    told = ("What it shows. Left out, [PROMPT] stands for all", "Guests log in with --auth's accounts.")
    assert all(map(catalogue.is_sentence, told))
    assert not catalogue.is_sentence("DELETE FROM marked WHERE mark = ?")


def test_what_people_wrote_is_not_taken_for_a_text():
    written = [
        "a cat, red, not blue",
        "queue of people",
        "a step on pictures",
        "for sale",
        "seven pictures",
        "1girl, solo",
    ]
    assert _translated(languages.language("de"), written) == written


def _translated(words: dict[str, str], texts: list[str]) -> list[str]:
    begin = f"darkroomWords.begin({json.dumps(words)})"
    call = f"(texts) => {{ {begin}; return texts.map((text) => darkroomWords.translate(text)); }}"
    return evaluate([SCRIPT], call, texts)
