"""Texts drawn by a seed: as the library draws what it reads the same, frozen, bounded, and nothing else touched."""

import time
import warnings as python_warnings

import pytest
from dynamicprompts.generators.randomprompt import RandomPromptGenerator
from dynamicprompts.wildcards import WildcardManager
from hypothesis import given, settings
from hypothesis import strategies as st

from webui.core.draws import MAX_CHOSEN, Drawer
from webui.core.dynamic import MAX_FORMS
from webui.core.errors import RequestError
from webui.core.wildcards import Entry, Wildcard, Wildcards

FILES: dict[str, list[str | tuple[str, float]]] = {
    "colour": ["red", "green", "blue"],
    "animals/cat": ["tabby", "{small|big} lion"],
    "animals/dog": ["pug, __colour__", "$5 dog #1"],
    "rare": [("always", 5.0), ("never", 0.0)],
    "half": [("a", 0.5), ("b", 10.0)],
    "many": [f"number {k}" for k in range(150)],
}

FROZEN = [
    "g 1 6 3 z,x blue pug, green u b",
    "e 2 4 3 y,x,z green big lion u b",
    "h 4 1 5 y,z blue $5 dog #1 u b",
    "b 4 6 3 y,x blue pug, red u b",
    "f 2 6 4 z red big lion u b",
]


def drawer(**more: list[str]) -> Drawer:
    def entries(texts: list[str | tuple[str, float]]) -> list[Entry]:
        return [Entry(*text) if isinstance(text, tuple) else Entry(text) for text in texts]

    files = (FILES | more).items()
    return Drawer(Wildcards({name: Wildcard(name, lambda texts=texts: entries(texts)) for name, texts in files}))


def draws(text: str, seeds: range = range(60)) -> set[str]:
    all_of_them = drawer()
    return {all_of_them.draw(text, seed) for seed in seeds}


@pytest.mark.parametrize(
    ("text", "possible"),
    [
        ("a {red|green} apple", {"a red apple", "a green apple"}),
        ("{a|{b|c} d}", {"a", "b d", "c d"}),
        ("{[a|b]|c} [x|y]", {"[a|b] [x|y]", "c [x|y]"}),
        ("{2$$a|b}", {"a,b", "b,a"}),
        ("{2$$ and $$a|b}", {"a and b", "b and a"}),
        ("{2$$、$$a|b} {2$$|$$c|c}", {"a、b c|c", "b、a c|c"}),
        ("{2$$$$a|b}", {"ab", "ba"}),
        ("{0-1$$a|a}", {"", "a"}),
        ("{1-9$$a|b}", {"a", "b", "a,b", "b,a"}),
        ("{0::a|1::b} {0.::a|.5::b}", {"b b"}),
        ("__colour__s", {"reds", "greens", "blues"}),
        ("__COLOUR__", {"red", "green", "blue"}),
        ("__cat__", {"tabby", "small lion", "big lion"}),
        ("__animals/*__", {"tabby", "small lion", "big lion", "pug, red", "pug, green", "pug, blue", "$5 dog #1"}),
        ("__*/cat__", {"tabby", "small lion", "big lion"}),
        ("__rare__", {"always"}),
        ("{2$$ & $$__half__}", {"a & b", "b & a"}),
        (
            "{<lora:ink:1>|<lora:__colour__:0.5>}",
            {"<lora:ink:1>", *(f"<lora:{c}:0.5>" for c in ("red", "green", "blue"))},
        ),
        ("(a:1.2) [b:c:0.5] {x|x} AND y:0.5 BREAK", {"(a:1.2) [b:c:0.5] x AND y:0.5 BREAK"}),
        ("{!a|b}", {"a", "b"}),
        ("{~a|b}", {"a", "b"}),
        ("  {a|a}\n\n__rare__\t", {"  a\n\nalways\t"}),
        ("{thing} #1 $5 // /* */ %{y} ~20~ {a|a} ${x} 100%", {"{thing} #1 $5 // /* */ %{y} ~20~ a ${x} 100%"}),
        ("{#1|$5 // {thing}}", {"#1", "$5 // {thing}"}),
        (r"\{a|b\} {c|c}", {r"\{a|b\} c"}),
    ],
)
def test_a_text_says_one_of_what_it_can(text, possible):
    assert draws(text) == possible


def test_what_is_in_turn_goes_by_the_seed():
    all_of_them = drawer()
    assert [all_of_them.draw("{@a|b|c} {@x|y}", seed) for seed in range(4)] == ["a x", "b y", "c x", "a y"]
    assert [all_of_them.draw("__@colour__", seed) for seed in range(4)] == ["blue", "green", "red", "blue"]
    assert [all_of_them.draw("{@2$$a|b|c}", seed) for seed in range(3)] == ["a,b", "b,c", "c,a"]
    assert {all_of_them.draw("{@a|{b|c}}", seed) for seed in range(1, 40, 2)} == {"b", "c"}


def test_draws_are_frozen():
    """These may change with another library or Python: then new pictures of old templates do, and a note says so."""
    text = "{a|b|c|d|e|f|g|h} {3$$ $$1|2|3|4|5|6} {1-3$$x|y|z} __colour__ __animals/*__ {9::u|1::v} __half__"
    all_of_them = drawer()
    assert [all_of_them.draw(text, seed) for seed in (0, 1, 7, 2**32 - 1, 2**50)] == FROZEN


def test_each_text_begins_the_seed_s_numbers_anew():
    all_of_them = drawer()
    alone = all_of_them.draw("{a|b|c|d}", 5)
    all_of_them.draw("{e|f} __colour__", 5)
    assert all_of_them.draw("{a|b|c|d}", 5) == drawer().draw("{a|b|c|d}", 5) == alone


plain = st.recursive(
    st.text("ab ,.", min_size=1, max_size=4).filter(lambda text: text.strip() == text),
    lambda inner: (
        st.builds(
            lambda parts, before, head: f"{before}{{{head}{'|'.join(parts)}}}",
            st.lists(inner, min_size=2, max_size=4),
            st.sampled_from(["", "x ", " "]),
            st.sampled_from(["", "2$$", "1-2$$", "1-$$", "2$$ and $$", "~"]),
        )
        | st.sampled_from(["__colour__", "x __animals/*__", "{2$$__colour__}"])
    ),
    max_leaves=12,
)


@settings(max_examples=60)
@given(plain, st.integers(0, 2**40))
def test_the_library_s_extension_draws_the_same(text, seed):
    """Where it reads the same, and weights are equal."""
    names = {name: texts for name, texts in FILES.items() if name == "colour"} | {
        "animals/cat": FILES["animals/cat"],
        "animals/dog": ["pug, __colour__"],
    }
    theirs = RandomPromptGenerator(WildcardManager(root_map={"": [names]}), seed=seed).generate(text, 1)
    ours = drawer(**{"animals/dog": ["pug, __colour__"]}).draw(text, seed)
    assert [ours] == theirs


def test_what_the_library_refuses_stays_as_it_is_written():
    all_of_them = drawer()
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("error", UserWarning)
        for text in ("{0::a|0::b}", "{2$$1::a|0::b}", "{-1::a|2::b}"):
            assert all_of_them.draw(f"{text} {{x|x}}", 1) == f"{text} x"
            assert f"{text} cannot be drawn and stays as it is written." in all_of_them.warnings
        assert all_of_them.draw("{!a|a}", 1) == "a" and any("“!”" in line for line in all_of_them.warnings)


def test_of_several_each_keeps_its_weight():
    """The library takes another's weight away with the first that was chosen."""
    all_of_them = drawer()
    last = [all_of_them.draw("{2$$ $$1::a|1000::b|1::c|1000::d}", seed).split() for seed in range(60)]
    assert sum(set(pair) == {"b", "d"} for pair in last) > 50


@pytest.mark.parametrize(
    ("text", "more", "reason"),
    [
        ("__nope__", {}, "There is no wildcard “nope”."),
        ("{a|__colur__}", {}, "There is no wildcard “colur”; did you mean colour?"),
        ("__../colour__", {}, "There is no wildcard “../colour”; did you mean colour?"),
        ("__nope*__", {}, "There is no wildcard “nope*”."),
        (
            "__cat__",
            {"wild/cat": ["lynx"]},
            "2 wildcards are called “cat”: animals/cat and wild/cat; name the folder too",
        ),
        ("__x__", {"x": ["__y__"]}, "Wildcard “x”: There is no wildcard “y”."),
        ("__x__", {"x": []}, "Wildcard “x” is empty: nothing can be drawn from it"),
        ("__x__", {"x": ["a", "{b|__x__}"]}, "Wildcard “x” names itself: x → x"),
        ("__x__", {"x": ["__y__"], "y": ["__*__"]}, "Wildcard “x” names itself: x → y → x"),
        ("__w0__", {f"w{k}": [f"__w{k + 1}__"] for k in range(40)}, "Wildcard “w0” is more than 10 deep"),
        ("__x__", {"x": ["{a|b}" * (MAX_FORMS + 1)]}, "prompt: it comes to more than 250 choices and wildcards"),
        ("__x__", {"x": ["word " * 1600], "y": []}, "prompt: what was drawn has 8,0"),
        ("{101$$__many__}", {}, f"prompt: 101 of one choice are too many; {MAX_CHOSEN} is the limit"),
        (
            "__w0__",
            {f"w{k}": [f"__w{k + 1}__ " * 8] for k in range(8)} | {"w8": ["x"]},
            "prompt: more than 1,000 choices and wildcards would be drawn",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(text, more, reason):
    if "8,0" in reason:
        text = f"{text} and more"
    with pytest.raises(RequestError) as caught:
        drawer(**more).draw(text, 1)
    assert str(caught.value).startswith(reason) and caught.value.field == "prompt"


def test_whether_it_can_be_drawn_does_not_hang_on_the_seed():
    for seed in range(8):
        with pytest.raises(RequestError, match="no wildcard “nope”"):
            drawer(x=["a"] * 50 + ["__nope__"]).draw("{1000::a|__x__}", seed)


def test_a_long_prompt_is_drawn_quickly():
    all_of_them, text = drawer(), "{a|b|__colour__} " * (MAX_FORMS // 2)
    started = time.process_time()
    all_of_them.draw(text, 1)
    read_at = time.process_time()
    for seed in range(20):
        all_of_them.draw(text, seed)
    assert read_at - started < 5 and time.process_time() - read_at < 5
