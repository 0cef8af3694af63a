"""The fold "Speed-ups": what it does is said where it is switched on, when a picture is done, and in it."""

import json

import torch
from safetensors.torch import save_file

from webui.engine.cpu.int8 import INSTRUCTIONS, capabilities
from webui.engine.nets.tiny import TinyAutoencoder

from .server import SMALL, run_here
from .test_loras import use

FOLD = "Speed-ups"
HAS_INT8 = any(map(capabilities().get, INSTRUCTIONS))
GIVEN_UP = "guidance stops after 50% of the steps, step caching every 2 steps, token merging 0.25" + ", int8" * HAS_INT8


def unfold(tab):
    tab.find("shortcuts").get_by_role("button", name=FOLD).click()
    tab.find("token_merging").locator("input[type=number]").wait_for()
    tab.let_fields_settle()


def note(tab):
    return tab.find("approximate").locator(".approximate")


def test_a_picture_that_is_not_exact_says_so_wherever_it_is_shown(tab):
    unfold(tab)
    tab.page.set_viewport_size({"width": 390, "height": 844})
    assert not note(tab).count()
    tab.set(guidance_until=0.5, reuse=2, token_merging=0.25, seed=7, **SMALL)
    if HAS_INT8:
        tab.find("int8").locator("input").check()
    tab.find("shortcuts").get_by_role("button", name=FOLD).click()
    note(tab).get_by_text(f"Speed-ups on: {GIVEN_UP}", exact=True).wait_for()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    tab.draw()
    assert tab.message.endswith(f"Approximate: {GIVEN_UP}.")
    assert "Guidance until: 0.5, Deep features every: 2, Token merging ratio: 0.25" in tab.infotext
    assert ("Int8: True" in tab.infotext) is HAS_INT8
    fast = tab.picture_bytes()
    tab.reload()
    note(tab).wait_for()  # the browser remembers the fields, so the note is there too
    unfold(tab)
    tab.set(guidance_until=1, reuse=1, token_merging=0)
    tab.find("int8").locator("input").uncheck()
    note(tab).wait_for(state="detached")
    tab.draw()
    assert "Approximate" not in tab.message and "Guidance until" not in tab.infotext
    assert tab.picture_bytes() != fast


def test_few_steps_with_a_lora_are_approximate_too(tab):
    tab.choose("sampler", "LCM")
    use(tab, "few-steps")
    note(tab).get_by_text("few steps with LCM").wait_for()
    tab.draw(**(SMALL | {"steps": 4}), guidance=1)
    assert tab.message.endswith("Approximate: few steps with LCM.")
    tab.find("lora-panel").get_by_role("button", name="Remove few-steps").click()
    note(tab).wait_for(state="detached")


def test_what_cannot_be_is_refused_by_name(tab):
    unfold(tab)
    tab.set(reuse=99)
    tab.find("generate").click()
    tab.wait_for_message("reuse must be at most 10, not 99")


def test_a_tiny_vae_is_marked_where_it_is_chosen(tab, server):
    file = server.data_dir / "models/VAE/quick.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    save_file(TinyAutoencoder().state_dict(), file)
    try:
        tab.reload()
        tab.choose("vae", "quick (tiny, approximate)")
        note(tab).get_by_text("Speed-ups on: a tiny VAE", exact=True).wait_for()
        tab.draw(**SMALL)
        assert tab.message.endswith("Approximate: a tiny VAE.") and "VAE: quick" in tab.infotext
    finally:
        file.unlink()


def test_the_command_line_has_them_too_and_says_what_they_gave_up(tmp_path):
    flags = (
        "--prompt",
        "a red apple",
        "--steps",
        "2",
        "--width",
        "64",
        "--height",
        "64",
        "--device",
        "cpu",
        "--dtype",
        "float32",
    )
    told = run_here("generate", *flags, "--reuse", "2", "--guidance-until", "0.5", "--json", "--data-dir", tmp_path)
    done = json.loads(told.stdout.splitlines()[-1])
    assert done["warnings"] == ["Approximate: guidance stops after 50% of the steps, step caching every 2 steps."]
    refused = run_here("generate", *flags, "--token-merging", "0.9", "--data-dir", tmp_path)
    assert (refused.returncode, refused.stderr) == (2, "webui: token_merging must be at most 0.75, not '0.9'\n")


def test_what_guides_beside_guidance_is_on_in_its_fold_and_in_the_picture(tab):
    """Fold, switches and sliders; the next picture says so, and its text fills them again."""
    title = tab.find("guiding").get_by_role("button", name="More guidance")
    title.click()
    for group in ("pag", "nag"):
        tab.find(f"{group}-on").locator("input").check()
    tab.set(**{"guidance_rescale": 0.7, "pag-scale": 4.5, "nag-scale": 6, "seed": 7} | SMALL)
    title.get_by_text("rescale 0.7, PAG 4.5, NAG 6").wait_for()
    tab.draw(negative="green", guidance=5)
    assert "CFG Rescale: 0.7, PAG Active: True, PAG Scale: 4.5, NAG Scale: 6" in tab.infotext
