"""What a request leaves to chance becomes one order a picture, before anything is queued."""

import subprocess
import sys

import pytest

from webui.core.errors import RequestError
from webui.core.request import Request
from webui.jobs.resolve import make_orders
from webui.jobs.texts import draw_examples
from webui.library.library import Library


@pytest.fixture
def library(settings):
    folder = settings.data_dir / "wildcards"
    folder.mkdir(parents=True)
    (folder / "fruit.txt").write_text("apple\npear\nplum\nfig\n")
    (folder / "style.txt").write_text("<lora:sepia:{0.3|0.7}>\n<lora:night:1>\n")
    return Library(settings).snapshot()


def test_each_picture_is_asked_for_alone_with_what_its_seed_draws(library):
    asked = Request(prompt="a __fruit__ {red|green}", negative="{x|y}", seed=4, count=2, repeat=3, steps=7)
    orders = make_orders(asked, library)
    assert [order.request.seed for order in orders] == [4, 5, 6, 7, 8, 9]
    assert len({order.request.prompt for order in orders}) > 2
    for order in orders:
        said = order.request
        assert (said.template, said.negative_template) == (asked.prompt, asked.negative)
        assert said.image_count == 1 and said.steps == 7 and "{" not in said.prompt + said.negative
        (again,) = make_orders(said, library)  # so a job that is planned again, and a recipe, say the same
        assert again == order
        (plain,) = make_orders(Request(prompt=said.prompt, negative=said.negative, seed=said.seed, steps=7), library)
        assert plain.stages == order.stages


def test_a_second_pass_has_wildcards_of_its_own_and_draws_alike(library):
    asked = Request(prompt="a __fruit__", seed=4, count=4, hires={"prompt": "a __fruit__", "negative": "{x|y}"})
    for order in make_orders(asked, library):
        said = order.request.hires
        assert said.prompt == order.request.prompt and said.negative in ("x", "y")
        assert (said.template, said.negative_template) == (asked.hires.prompt, asked.hires.negative)
        assert [stage.prompt for stage in order.passes] == [said.prompt] * 2
        assert make_orders(order.request, library) == (order,)


def test_a_seed_that_is_left_open_is_one_for_all(library):
    first, second = make_orders(Request(prompt="{a|b} __fruit__", count=2), library)
    assert second.request.seed == first.request.seed + 1 >= 1


def test_the_pictures_of_a_variation_keep_their_words(library):
    varied = {"seed": 3, "strength": 0.2}
    orders = make_orders(Request.parse({"prompt": "__fruit__", "seed": 1, "count": 4, "variation": varied}), library)
    assert len({order.request.prompt for order in orders}) == 1
    assert [order.request.varied.seed for order in orders] == [3, 4, 5, 6]


def test_tags_are_read_after_the_draw(library):
    orders = make_orders(Request(prompt="a {cat|dog} __style__", seed=0, count=12), library)
    found = {str(ref) for order in orders for ref in order.request.loras}
    assert found == {"sepia:0.3", "sepia:0.7", "night:1"}
    assert {order.stages[0].loras[0].file.name for order in orders} == {"sepia", "night"}


@pytest.mark.parametrize(
    "text", ["a red apple", "a {thing} #1 $5", "my__neg__v2", "[a|b] AND c", r"\{a|b}", "<lora:my__x__2:0>"]
)
def test_a_text_without_its_marks_is_what_it_was(library, text):
    asked = Request(prompt=text.replace("<lora:my__x__2:0>", "x"), negative=text.partition("<")[0], seed=1, count=3)
    (order,) = make_orders(asked, library)
    assert order.request.count == 3 and order.request.prompt == asked.prompt
    assert not order.request.template and not order.request.negative_template


def test_a_name_that_may_have_been_meant_is_said_and_splits_no_batch(library):
    (order,) = make_orders(Request(prompt="a __aple__s", count=3), library)
    assert order.request.count == 3
    assert "There is no wildcard “aple”; “__aple__” is read as words." in order.warnings


def test_a_recipe_s_words_are_not_drawn(library):
    (order,) = make_orders(Request(prompt="{a|b} __nope__", syntax=2, count=2), library)
    assert order.request.prompt == "{a|b} __nope__" and order.request.syntax == 2


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"prompt": "a __nope__"}, "prompt", "There is no wildcard “nope”"),
        ({"negative": "{a|__fruits__}"}, "negative", "There is no wildcard “fruits”; did you mean fruit?"),
        ({"prompt": "{<lora:nope:1>|<lora:nope:2>}"}, "loras", "There is no LoRA “nope”"),
        ({"negative": "{<lora:sepia:1>|<lora:night:1>}"}, "negative", "negative: a LoRA acts on the whole picture"),
        ({"negative": "{a|b}" * 251}, "negative", "negative: it comes to more than 250"),
    ],
)
def test_what_cannot_be_drawn_is_refused_for_its_field(library, fields, field, reason):
    with pytest.raises(RequestError) as caught:
        make_orders(Request(**fields, seed=0), library)
    assert str(caught.value).startswith(reason) and caught.value.field == field


def test_examples_are_what_pictures_would_say(library):
    text = "__fruit__ {a|b|c}"
    orders = make_orders(Request(prompt=text, seed=6, count=3), library)
    assert draw_examples(text, range(6, 9), library) == tuple(order.request.prompt for order in orders)
    assert draw_examples("a red apple {x}", range(3), library) == ()
    with pytest.raises(RequestError, match="nope"):
        draw_examples("__nope__", range(3), library)


def test_who_leaves_nothing_to_chance_does_not_wait_for_the_library():
    program = (
        "import sys\nfrom webui import Request, Settings\nfrom webui.jobs.resolve import make_orders\n"
        "from webui.library.library import Library\n"
        "library = Library(Settings()).snapshot()\nmake_orders(Request(prompt='a {red} apple'), library)\n"
        "print('dynamicprompts' in sys.modules)\nmake_orders(Request(prompt='{a|b}'), library)\n"
        "print('dynamicprompts' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "True"]
