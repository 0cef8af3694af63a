"""What a host does not want drawn for guests."""

import pytest
from PIL import Image as PilImages

from webui.core.errors import RequestError
from webui.core.events import Done, Failed, Image, Step
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.core.visitor import OWNER, Visitor
from webui.jobs.filters import BROKEN, Filters

GUEST = Visitor("guest")
BY_COLOUR = """
def check_picture(picture):
    return "too red" if picture.getpixel((0, 0))[0] > 200 else ""
"""


HIDDEN = (
    "a c\u200bat",
    "ca\u00adt",
    "c\ufe0fat",
    "cat_food",
    "cat2",
    "2cat",
    "a cat's toy",
    "<lora:cat:1>",
    "__bad__ WORD",
)


def picture(index: int, colour: tuple[int, int, int]) -> Image:
    return Image(index, PilImages.new("RGB", (8, 8), colour), Recipe(Request()))


def sift(folder, events, visitor):
    filters, refused = Filters(folder), []
    return [found for event in events if (found := filters.sift(event, visitor, refused)) is not None]


def test_the_list_of_words_that_ships_is_empty_and_says_how(tmp_path):
    filters = Filters(tmp_path / "filters")
    filters.prepare()
    text = (tmp_path / "filters" / "words.txt").read_text("utf-8")
    assert all(line.startswith("#") for line in text.splitlines()) and "one a line" in text
    filters.check([Request(prompt="anything")], GUEST)
    (tmp_path / "filters" / "words.txt").write_text("mine")
    filters.prepare()
    assert (tmp_path / "filters" / "words.txt").read_text("utf-8") == "mine"


def test_whole_words_and_phrases_are_refused_as_the_list_is_now(tmp_path):
    filters = Filters(tmp_path)
    (tmp_path / "words.txt").write_text("# a note\nBad Word\n\ncat\n")
    for prompt in ("a CAT", "a (cat:1.2), flat", "one bad  word", "ｃａｔ", "[dog:cat:0.5]", *HIDDEN):
        with pytest.raises(RequestError, match="does not draw “"):
            filters.check([Request(prompt="fine"), Request(prompt=prompt)], GUEST)
        with pytest.raises(RequestError, match="does not draw “"):
            filters.check([Request(prompt="fine", detail=({"prompt": prompt},))], GUEST)
    filters.check([Request(prompt="a category of bad, but word", negative="cat")], GUEST)
    filters.check([Request(prompt="a cat")], OWNER)
    with pytest.raises(RequestError, match="does not draw “cat”"):
        filters.check([Request(prompt="a dog", negative="a cat", guidance=0.5)], GUEST)  # which would draw it
    (tmp_path / "words.txt").write_text("")
    filters.check([Request(prompt="a cat")], GUEST)


def test_a_refused_picture_is_not_there_and_the_end_says_so(tmp_path):
    (tmp_path / "filters.py").write_text(BY_COLOUR)
    events = [Step(1, 2, 0.1, b"jpeg"), picture(0, (255, 0, 0)), picture(1, (0, 0, 255)), Done(1.0, warnings=("x",))]
    step, kept, done = sift(tmp_path, events, GUEST)
    assert step == Step(1, 2, 0.1, None), "a preview would show it"
    assert kept is events[2]
    assert done.warnings == ("x", "A picture was refused by this server's filter: too red.")
    assert sift(tmp_path, events, OWNER) == events


def test_a_function_may_look_at_texts(tmp_path):
    (tmp_path / "filters.py").write_text("check_text = lambda text: 'no shouting' if text.isupper() else ''")
    Filters(tmp_path).check([Request(prompt="a cat")], GUEST)
    with pytest.raises(RequestError, match="prompt: no shouting"):
        Filters(tmp_path).check([Request(prompt="A CAT")], GUEST)


@pytest.mark.parametrize(
    "code", ["this is no Python", "def check_text(a): 1/0\ndef check_picture(a): exit()", "exit()"]
)
def test_a_filter_that_fails_lets_nothing_through(tmp_path, code):
    (tmp_path / "filters.py").write_text(code)
    with pytest.raises(RequestError, match=BROKEN):
        Filters(tmp_path).check([Request(prompt="a cat")], GUEST)
    assert sift(tmp_path, [picture(0, (0, 0, 0))], GUEST) == [Failed(BROKEN)]
    Filters(tmp_path).check([Request(prompt="a cat")], OWNER)
