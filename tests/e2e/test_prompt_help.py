"""What helps while a prompt is typed: tokens are counted, brackets are checked, Ctrl+Up and Ctrl+Down weigh words."""

import json

import pytest

from webui.core.request import MAX_PROMPT_CHARACTERS
from webui.engine.tokens import Tokenizer, count_tokens
from webui.library.library import DEMO_MODEL

from .server import ENDLESS, wait_for
from .tab import Tab

LONG = ", ".join(["a red apple on a wooden table"] * 14)
# text, what is selected in it ("|" twice, or once for the cursor), keys, what becomes of it with the words selected
WEIGHED = [
    ("a c|at sat", "Up", "a (|cat|:1.1) sat"),
    ("a c|at sat", "Up Up", "a (|cat|:1.2) sat"),
    ("a c|at sat", "Up Up Down Down", "a |cat| sat"),
    ("a c|at sat", "Down", "a (|cat|:0.9) sat"),
    ("a cat|, sat", "Up", "a (|cat|:1.1), sat"),
    ("a| black cat| ", "Up", "a (|black cat|:1.1) "),
    ("a (black c|at:1.3) sat", "Up", "a (|black cat|:1.4) sat"),
    ("a (|black cat|:1.3) sat", "Down", "a (|black cat|:1.2) sat"),
    ("a |(black cat:1.3)| sat", "Down", "a (|black cat|:1.2) sat"),
    ("a (|black| cat:1.3)", "Up", "a ((|black|:1.1) cat:1.3)"),
    ("(c|at)", "Up", "(|cat|:1.2)"),
    ("(c|at)", "Down", "|cat|"),
    ("(c|at:0.25)", "Up", "(|cat|:0.35)"),
    ("((c|at) sat:0.5)", "Up", "((|cat|:1.2) sat:0.5)"),
    (r"\(c|at\)", "Up", r"\((|cat|:1.1)\)"),
    ("a <lora:ni|ght:0.8>", "Up", "a <|lora:night|:0.9>"),
    ("a <lora:night:0.8|>", "Down Down", "a <|lora:night|:0.6>"),
    ("a <lora:ni|ght>", "Up", "a <|lora:night|:1.1>"),
    ("<lora:ni|ght:0.3:0.8:lbw=OUTALL>", "Up", "<|lora:night:0.3|:0.9:lbw=OUTALL>"),
    ("<lora:ni|ght:lbw=1,0>", "Down", "<|lora:night|:0.9:lbw=1,0>"),
    ("<lora:ni|ght:1@0,0@1>", "Up", "<lora:ni|ght:1@0,0@1>"),
    ("a | , b", "Up", "a | , b"),
    ("a (|b) c|", "Up", "a (|b) c|"),
    ("|", "Up", "|"),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(DEMO_MODEL / "tokenizer")


def help_of(tab: Tab, field: str, part: str) -> str:
    help_below = f'.prompt-help[data-page="txt2img"][data-field="{field}"] .prompt-{part}'
    return tab.page.locator(f"#txt2img-{field} .prompt-count" if part == "count" else help_below).inner_text()


def wait_for_count(tab: Tab, text: str, field: str = "prompt") -> None:
    wait_for(lambda: help_of(tab, field, "count") == text, f"the count {text} of the {field}", timeout_s=10)


def test_tokens_are_counted_while_people_type(tab, tokenizer):
    asked = []
    tab.page.on("request", lambda request: asked.append(request) if request.url.endswith("/api/tokens") else None)
    assert help_of(tab, "prompt", "count") == "0/75"
    tab.find("prompt").locator("textarea").press_sequentially("a red apple, flat")
    wait_for_count(tab, "{}/{}".format(*count_tokens("a red apple, flat", tokenizer)))
    assert len(asked) < 5
    tab.set(prompt=LONG)
    used, room = count_tokens(LONG, tokenizer)
    assert room > 75
    wait_for_count(tab, f"{used}/{room}")
    before = len(asked)
    tab.find("prompt").locator("textarea").press("ArrowLeft")
    tab.set(prompt=LONG)
    tab.page.wait_for_timeout(500)
    assert len(asked) == before
    tab.set(negative="a blue background")
    wait_for_count(tab, "{}/{}".format(*count_tokens("a blue background", tokenizer)), "negative")
    tab.reload()
    wait_for_count(tab, f"{used}/{room}")
    tab.set(prompt="")
    wait_for_count(tab, "0/75")


def test_what_changes_over_the_steps_is_counted_for_the_steps_that_are_taken(tab, server, tokenizer):
    short, long = ("{}/{}".format(*count_tokens(text, tokenizer)) for text in ("a cat", LONG))
    tab.set(prompt=f"[a cat:{LONG}:30]")
    wait_for_count(tab, short)
    tab.set(steps=40)
    wait_for_count(tab, long)
    tab.set(steps=30)
    wait_for_count(tab, short)

    def count(**fields) -> str:
        answer = server.client.post("/api/tokens", json={"prompt": f"[a cat:{LONG}:30]", **fields}).json()
        return "{tokens}/{room}".format(**answer)

    assert (count(), count(steps=31), count(steps=60, strength=0.5), count(steps=62, strength=0.5)) == (
        *(short, long, short, long),
    )


def test_an_old_answer_does_not_replace_a_newer_one(tab, tokenizer):
    held = []

    def hold_first(route) -> None:
        held.append(route) if not held else route.continue_()

    tab.page.route("**/api/tokens", hold_first)
    tab.set(prompt="a red apple")
    wait_for(lambda: tab.page.evaluate("1") and held, "the first question")
    tab.set(prompt=LONG)
    newest = "{}/{}".format(*count_tokens(LONG, tokenizer))
    wait_for_count(tab, newest)
    with tab.page.expect_response("**/api/tokens"):
        held[0].continue_()
    tab.page.wait_for_timeout(200)
    assert help_of(tab, "prompt", "count") == newest


def test_brackets_that_do_not_match_are_told_in_words(tab):
    tab.set(prompt="a (cat, [dog)")
    wait_for(lambda: help_of(tab, "prompt", "trouble") == "Brackets: 1 [ that is never closed", "the words")
    tab.set(prompt="a (cat), [dog] <lora:a (b:1>")
    wait_for(lambda: not help_of(tab, "prompt", "trouble"), "nothing to be wrong")


def test_forms_that_are_not_done_are_told_below_the_box_and_with_the_picture(tab):
    said = "${hue} (a variable) is not supported here and is read as plain words."
    tab.set(prompt="an apple ${hue}")
    wait_for(lambda: help_of(tab, "prompt", "trouble") == said, "the words")
    tab.draw(steps=1, width=64, height=64)
    tab.wait_for_message(said)


def test_ctrl_up_and_down_weigh_what_the_cursor_is_in(tab):
    box = tab.find("prompt").locator("textarea")
    for text, keys, expected in WEIGHED:
        start, *rest = (place - k for k, place in enumerate(p for p, letter in enumerate(text) if letter == "|"))
        box.fill(text.replace("|", ""))
        box.evaluate("(box, [start, end]) => box.setSelectionRange(start, end)", [start, rest[0] if rest else start])
        for key in keys.split():
            box.press(f"Control+Arrow{key}")
        value, start, end = box.evaluate("(box) => [box.value, box.selectionStart, box.selectionEnd]")
        marks = ["|", value[start:end], "|"] if start < end else ["|"]
        assert value[:start] + "".join(marks) + value[end:] == expected, (text, keys)


def test_a_weight_reaches_the_picture_and_can_be_undone(tab):
    tab.set(prompt="apple")
    box = tab.find("prompt").locator("textarea")
    box.focus()
    box.press("Control+ArrowUp")
    box.press("Control+ArrowUp")
    box.press("Control+z")
    assert box.input_value() == "(apple:1.1)"
    tab.draw(steps=1, width=64, height=64)
    tab.wait_for_infotext("(apple:1.1)")
    tab.set(negative="blur")
    negative = tab.find("negative").locator("textarea")
    negative.focus()
    negative.press("Control+ArrowDown")
    assert negative.input_value() == "(blur:0.9)"


def test_http_counts_while_a_picture_is_made(server, tokenizer):
    job = server.submit(**ENDLESS)
    wait_for(lambda: server.show(job)["state"] == "running", "the job to run")
    answer = server.client.post("/api/tokens", json={"model": "demo", "prompt": f"{LONG} <lora:x:1> ("})
    assert not server.is_idle()
    server.cancel(job)
    used, room = count_tokens(f"{LONG} (", tokenizer)
    brackets = "1 ( that is never closed"
    assert answer.json() == {"tokens": used, "room": room, "unbalanced": brackets, "unsupported": []}


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"prompt": "x" * (MAX_PROMPT_CHARACTERS + 1)}, 422, "prompt must be at most 8000 characters long"),
        ({"prompt": 3}, 422, "prompt must be text"),
        ({"prompt": "a", "steps": 0}, 422, "steps must be at least 1"),
        ({"prompt": "a", "strength": 2}, 422, "strength must be a number from 0 to 1, not 2"),
        ({"prompt": "BREAK " * 1_333}, 422, "prompt: it comes to more than 64 chunks of 75 tokens"),
        ({"prompt": "a", "model": ""}, 422, "model must not be empty"),
        (["a"], 422, "body must be an object"),
        ({"prompt": "half a character: \ud83d"}, 422, "prompt"),
        ({"prompt": "a <lora:x:99> <lora:y:"}, 200, ""),
        ({}, 200, ""),
    ],
)
def test_http_says_what_is_wrong_with_a_question(server, body, status, detail):
    answer = server.client.post("/api/tokens", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert detail in answer.json().get("detail", "") and (status == 200) == ("tokens" in answer.json())
