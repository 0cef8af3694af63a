"""Flags of what is drawn become a request."""

import pytest
from PIL import Image as PilImages

from webui.cli import make_parser
from webui.cli.request_flags import read_request
from webui.core import images
from webui.core.errors import RequestError
from webui.core.groups.control import Control
from webui.core.groups.detail import Detail
from webui.core.groups.hires import Hires
from webui.core.groups.upscale import Upscale
from webui.core.groups.variation import Variation
from webui.workspace.preset import read_preset

PRESET = "[fields]\nprompt = 'a cat'\n[variation]\nseed = 3\nstrength = 0.5\n"


def test_a_group_s_flags_have_its_name_before_the_field_s(tmp_path):
    def variation(*flags):
        return read_request(make_parser("generate").parse_args(["generate", *flags]), tmp_path)[0].variation

    (tmp_path / "near.toml").write_text(PRESET)
    flags = "--variation.seed", "9", "--variation.strength", "0.25"
    assert variation("--prompt", "a") is None
    assert variation("--prompt", "a", *flags) == Variation(seed=9, strength=0.25)
    assert variation("--preset", "near") == Variation(seed=3, strength=0.5)
    assert variation("--preset", "near", *flags[:2]) == Variation(seed=9, strength=0.5)


def test_styles_lie_around_the_flags_and_around_a_preset(tmp_path):
    def prompt(*flags):
        return read_request(make_parser("generate").parse_args(["generate", *flags]), tmp_path)[0].prompt

    (tmp_path / "near.toml").write_text(PRESET)
    styles = "--style", "3D style", "--style", "style-night"
    assert prompt("--prompt", "a fox", *styles) == "a fox, 3d style, night"
    assert prompt("--preset", "near", *styles) == "a cat, 3d style, night"
    with pytest.raises(RequestError, match="is not a style"):
        prompt("--prompt", "a", "--style", "near")


def test_a_group_with_a_switch_is_turned_on_and_off_by_a_flag(tmp_path):
    def upscale(*flags):
        return read_request(make_parser("generate").parse_args(["generate", *flags]), tmp_path)[0].upscale

    (tmp_path / "large.toml").write_text("[fields]\nprompt = 'a cat'\n[upscale]\nscale = 3\n")
    assert upscale("--prompt", "a") is None
    assert upscale("--prompt", "a", "--upscale") == Upscale()
    assert upscale("--prompt", "a", "--upscale.scale", "4", "--upscale.upscaler", "Lanczos").upscaler == "Lanczos"
    assert upscale("--preset", "large") == upscale("--preset", "large", "--upscale") == Upscale(scale=3)
    assert upscale("--preset", "large", "--upscale.width", "640") == Upscale(scale=3, width=640)
    assert upscale("--preset", "large", "--no-upscale") is None


def test_a_second_pass_has_flags_for_all_that_people_can_say(tmp_path):
    def hires(*flags):
        return read_request(make_parser("generate").parse_args(["generate", "--prompt", "a", *flags]), tmp_path)[
            0
        ].hires

    assert hires() is None and hires("--hires") == Hires()
    flags = "--hires.scale 1.5 --hires.upscaler Latent --hires.loras ink:0.5,line --hires.guidance 3 --hires.prompt b"
    own = Hires(scale=1.5, upscaler="Latent", loras=("ink:0.5", "line"), guidance=3, prompt="b")
    assert hires(*flags.split()) == own
    table = "[fields]\nprompt = 'a'\n[hires]\nsteps = 3\n[[hires.loras]]\nname = 'ink'\nweight = 0.5\n"
    (tmp_path / "second.toml").write_text(table)
    assert hires("--preset", "second") == Hires(steps=3, loras=("ink:0.5",))
    preset = read_preset(table.encode(), "x")
    assert read_preset(preset.text.encode(), "x") == preset
    assert hires("--preset", "second", "--no-hires") is None


def test_a_group_that_is_a_list_has_a_flag_for_each_entry(tmp_path):
    def details(*flags):
        return read_request(make_parser("generate").parse_args(["generate", *flags]), tmp_path)[0].detail

    (tmp_path / "faces.toml").write_text("[fields]\nprompt = 'a cat'\n[[detail]]\nfinder = 'face'\n")
    assert details("--prompt", "a") == ()
    both = details("--prompt", "a", "--detail", "finder=face,strength=0.5,prompt=eyes, sharp", "--detail")
    assert both == (Detail(finder="face", strength=0.5, prompt="eyes, sharp"), Detail())
    assert details("--preset", "faces") == (Detail(finder="face"),)
    assert details("--preset", "faces", "--detail", "finder=hand") == (Detail(finder="hand"),)
    assert details("--preset", "faces", "--no-detail") == ()
    with pytest.raises(RequestError, match=r"--detail must look like finder=NAME,prompt=TEXT, .* not 'face'"):
        details("--prompt", "a", "--detail", "face")


def test_a_control_s_picture_is_a_file_and_a_preset_s_gets_one(tmp_path):
    def controls(*flags):
        return read_request(make_parser("generate").parse_args(["generate", *flags]), tmp_path)[0].controls

    red = PilImages.new("RGB", (16, 16), "red")
    red.save(tmp_path / "red.png")
    (tmp_path / "edges.toml").write_text("[fields]\nprompt = 'a'\n[[controls]]\nmodel = 'x'\npreprocessor = 'canny'\n")
    flag = f"model=x,image={tmp_path / 'red.png'},weight=0.8"
    assert controls("--prompt", "a", "--control", flag) == (Control(model="x", image=red, weight=0.8),)
    (over,) = controls("--preset", "edges", "--control", f"image={tmp_path / 'red.png'}")
    assert over == Control(model="x", image=red, preprocessor="canny")
    assert controls("--preset", "edges", "--no-controls") == ()
    with pytest.raises(RequestError, match="--control image='.*none.png' "):
        controls("--prompt", "a", "--control", f"model=x,image={tmp_path / 'none.png'}")


def test_regions_are_flags_their_masks_files(tmp_path):
    def regions(*flags):
        return read_request(make_parser("generate").parse_args(["generate", "--prompt", "a", *flags]), tmp_path)[
            0
        ].regions

    PilImages.new("L", (64, 32), 255).save(tmp_path / "m,ask.png")
    box, painted = regions(
        *("--region", "box=0:0:0.5:1,prompt=a cat, red", "--region", f"mask={tmp_path}/m,ask.png,prompt=b")
    )
    assert (box.box, box.prompt) == ((0, 0, 0.5, 1), "a cat, red") and images.decode_text(painted.mask).size == (64, 32)
    with pytest.raises(RequestError, match=r"--region mask='nowhere.png' does not exist"):
        regions("--region", "mask=nowhere.png,prompt=b")
