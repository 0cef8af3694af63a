"""Wildcards and choices as people meet them: draws below the prompt, pictures of several words, the other fronts."""

import json
from pathlib import Path

import pytest

from webui.core.recipe import read_picture

from .server import Server, run_webui, wait_for
from .tab import Tab

SMALL = ("--steps", "1", "--width", "64", "--height", "64")
TEMPLATE = "a __fruit__, {flat|soft} {style}"


@pytest.fixture(scope="module")
def fruit(server: Server) -> Path:
    path = server.data_dir / "wildcards/fruit.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("red apple\ngreen pear\nyellow banana\n")
    return path


def drawn(tab: Tab, field: str = "prompt") -> list[str]:
    return tab.page.locator(f'.prompt-draws[data-page="txt2img"][data-field="{field}"] li').all_inner_texts()


def heading(tab: Tab) -> str:
    return tab.page.locator('.prompt-draws[data-page="txt2img"][data-field="prompt"] summary').inner_text()


def ask(server: Server, **fields) -> dict:
    return server.client.post("/api/tokens", json=fields).json()


def test_three_draws_are_seen_and_the_next_pictures_say_them(open_tab, server, fruit):
    tab = open_tab()
    assert not tab.page.locator(".prompt-draws:visible").count()
    tab.set(prompt=TEMPLATE)
    wait_for(lambda: len(drawn(tab)) == 3 and heading(tab) == "Three examples", "three draws")
    assert all("{style}" in text and "fruit" not in text for text in drawn(tab))
    tab.open_settings()
    tab.set(seed=21, count=3)
    wait_for(lambda: heading(tab) == "What the next pictures say", "the draws of the seed")
    said = drawn(tab)
    tab.draw(steps=1, width=64, height=64)
    recipes = [read_picture(path) for path in server.pictures()[-3:]]
    words = {recipe.request.seed: recipe.request.prompt for recipe in recipes}
    assert words == dict(zip((21, 22, 23), said, strict=True))
    assert {recipe.request.template for recipe in recipes} == {TEMPLATE}
    assert "Template: " + TEMPLATE in tab.infotext
    tab.page.locator("#txt2img-reuse-seed").click()
    tab.wait_for_value("prompt", said[0])
    tab.page.locator("#txt2img-reuse-settings").click()
    tab.wait_for_value("prompt", TEMPLATE)
    tab.set(prompt="a __fruits__", count=1)
    trouble = tab.page.locator('.prompt-help[data-page="txt2img"][data-field="prompt"] .prompt-trouble')
    wait_for(lambda: "There is no wildcard “fruits”; did you mean fruit?" in trouble.inner_text(), "the error")
    assert not drawn(tab) or not tab.page.locator(".prompt-draws:visible").count()
    tab.set(prompt="a red apple {x}")
    wait_for(lambda: not tab.page.locator(".prompt-draws:visible").count(), "no draws")


def test_http_says_what_is_drawn_and_refuses_before_anything_waits(server, fruit):
    answer = ask(server, prompt="__fruit__", seed=3)
    assert len(answer["draws"]) == 3 and answer["draws"] == ask(server, prompt="__fruit__", seed=3)["draws"]
    assert "draws" not in ask(server, prompt="a {x}")
    assert ask(server, prompt="__nope__")["unsupported"] == ["There is no wildcard “nope”."]
    before = len(server.client.get("/api/jobs").json())
    refused = server.client.post("/api/jobs", json={"prompt": "__nope__"})
    assert 400 <= refused.status_code < 500 and "There is no wildcard “nope”" in refused.json()["detail"]
    assert str(server.data_dir) not in refused.text and len(server.client.get("/api/jobs").json()) == before
    small = {"steps": 1, "width": 64, "height": 64}
    body = {"prompt": TEMPLATE, "negative_prompt": "{a|b}", "seed": 5, "batch_size": 2} | small
    found = json.loads(server.client.post("/sdapi/v1/txt2img", json=body, timeout=120).json()["info"])
    assert found["all_seeds"] == [5, 6] and found["all_prompts"] == ask(server, prompt=TEMPLATE, seed=5)["draws"][:2]
    assert all(f"\nTemplate: {TEMPLATE}\nNegative Template: {{a|b}}" in text for text in found["infotexts"])


@pytest.mark.slow
def test_the_command_line_draws_and_verifies(tmp_path):
    (tmp_path / "data/wildcards").mkdir(parents=True)
    wildcard = tmp_path / "data/wildcards/fruit.txt"
    wildcard.write_text("red apple\ngreen pear\n")
    flags = ("--data-dir", str(tmp_path / "data"), "--device", "cpu")
    made = run_webui(
        "generate", "--prompt", "a __fruit__ {x|y}", "--seed", "1", "--count", "2", *SMALL, *flags, "--json"
    )
    events = [json.loads(line) for line in made.stdout.splitlines()]
    paths = [event["path"] for event in events if event["event"] == "image"]
    assert made.returncode == 0 and len(paths) == 2 and events[-1]["event"] == "done"
    wildcard.unlink()
    verified = run_webui("verify", *paths, *flags)
    assert verified.returncode == 0 and verified.stdout.count("identical") == 2
