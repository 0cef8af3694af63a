"""``verify`` as people use it: pictures from page, command line and HTTP, made again in a process of its own."""

import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image as PilImages
from PIL.PngImagePlugin import PngInfo

from webui.library.library import DEMO_MODEL

from .server import run_here, run_webui

REQUEST = {"prompt": "a red apple, flat style", "seed": 41, "steps": 4, "width": 64, "height": 64, "sampler": "Euler a"}
FLAGS = [f"--{name}={value}" for name, value in REQUEST.items()]
PRESETS = Path(__file__).resolve().parents[2] / "presets"


def verify(data_dir: Path, *arguments: str | Path):
    done = run_webui("verify", *arguments, "--json", "--data-dir", data_dir)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def draw(data_dir: Path, *flags: str | Path) -> list[Path]:
    """The files that ``generate`` makes with these flags."""
    done = run_here("generate", *FLAGS, *flags, "--dtype=float32", "--data-dir", data_dir)
    assert done.returncode == 0, done.stderr
    return [Path(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A picture that ``generate`` made."""
    (path,) = draw(tmp_path_factory.mktemp("drawn"))
    return path


def test_what_is_untouched_is_identical_in_a_new_process_and_the_others_are_told_each_in_one_line(drawn, tmp_path):
    PilImages.linear_gradient("L").resize((64, 64)).save(tmp_path / "start.png")
    good = draw(tmp_path, "--count=2") + draw(tmp_path, "--lora=blueprint:0.8", "--format=jpeg")
    good += draw(tmp_path, f"--init={tmp_path / 'start.png'}", "--strength=0.6", "--format=webp")
    foreign, text, edited = tmp_path / "foreign.png", tmp_path / "text.png", tmp_path / "edited.png"
    PilImages.new("RGB", (64, 64)).save(foreign)
    text.write_text("no picture")
    with PilImages.open(drawn) as picture:
        texts = PngInfo()
        for name in ("parameters", "darkroom"):
            texts.add_itxt(name, picture.info[name])
        picture.paste((255, 255, 255), (0, 0, 9, 9))
        picture.save(edited, pnginfo=texts)
    before = set((tmp_path / "outputs").rglob("*.*"))
    status, found, errors = verify(tmp_path, foreign, text, tmp_path / "gone.png", *good, edited)
    assert status == 2
    assert [entry["outcome"] for entry in found] == ["failed"] * 3 + ["identical"] * 4 + ["different"]
    reasons = ("no recipe of Darkroom", "not a picture", "does not exist")
    for line, reason in zip(errors.splitlines(), reasons, strict=False):
        assert reason in line
    assert "edited" in found[-1]["reasons"][0]
    assert PilImages.open(found[-1]["comparison"]).width > 3 * 64
    assert set((tmp_path / "outputs").rglob("*.*")) - before == {Path(found[-1]["comparison"])}  # and nothing else


def test_page_command_line_and_http_give_the_same_pixels_and_verify_says_so(server, open_tab, drawn, tmp_path):
    job = server.client.post("/api/jobs", json=REQUEST).json()["id"]
    server.client.get(f"/api/jobs/{job}/events").read()
    by_http = tmp_path / "http.png"
    by_http.write_bytes(server.client.get(f"/api/jobs/{job}/images/0").content)
    tab = open_tab()
    tab.choose("sampler", REQUEST["sampler"])
    tab.draw(**{name: value for name, value in REQUEST.items() if name != "sampler"})
    by_page = tmp_path / "page.png"
    by_page.write_bytes(tab.picture_bytes())
    assert len({PilImages.open(path).tobytes() for path in (by_http, by_page, drawn)}) == 1
    assert verify(tmp_path, by_http, by_page)[0] == 0
    tab.find("verify").click()
    tab.page.locator('#txt2img-verdict [data-outcome="identical"]').wait_for()


def test_another_file_under_a_lora_s_name_explains_a_difference_and_a_missing_one_stops_it(tmp_path):
    loras = tmp_path / "models" / "Lora"
    loras.mkdir(parents=True)
    shutil.copy(DEMO_MODEL / "loras" / "blueprint.safetensors", loras / "mine.safetensors")
    (path,) = draw(tmp_path, "--lora=mine:1")
    other = next(file for file in (DEMO_MODEL / "loras").glob("*.safetensors") if file.stem != "blueprint")
    shutil.copy(other, loras / "mine.safetensors")
    status, (entry,), _ = verify(tmp_path, path)
    assert (status, entry["outcome"]) == (1, "different") and "lora 'mine' is another file" in entry["reasons"][0]
    (loras / "mine.safetensors").unlink()
    status, (entry,), _ = verify(tmp_path, path)
    assert status == 2 and "lora 'mine' (SHA-256" in entry["message"] and "not here" in entry["message"]


def test_another_number_format_is_equal_and_named(tmp_path):
    (native,) = draw(tmp_path, "--width=128", "--height=128")
    status, (entry,), _ = verify(tmp_path, native, "--dtype=bfloat16")
    assert (status, entry["outcome"]) == (0, "equal")
    assert any("dtype float32, now bfloat16" in reason for reason in entry["reasons"])


@pytest.mark.slow
def test_every_shipped_preset_gives_the_picture_it_promises(tmp_path):
    names = [path.stem for path in PRESETS.glob("*.toml") if "\nexpected = " in path.read_text("utf-8")]
    assert len(names) >= 8
    listed = run_here("presets", "--data-dir", tmp_path).stdout.splitlines()
    flags = [f"--preset={line.partition(chr(9))[0]}" for line in listed]
    status, found, errors = verify(tmp_path, *flags)
    outcomes = [entry["outcome"] for entry in found]
    assert outcomes.count("identical") + outcomes.count("equal") >= len(names), found
    assert "different" not in outcomes and status in (0, 2), errors


def test_bad_usage_is_one_line(tmp_path):
    done = run_here("verify", "--data-dir", tmp_path)
    assert (done.returncode, done.stderr) == (2, "webui: verify needs an IMAGE, or --preset NAME\n")
    status, _, errors = verify(tmp_path, "--preset=../../x")
    assert status == 2 and "There is no preset" in errors


def test_the_picture_over_http_holds_its_recipe(server):
    job = server.client.post("/api/jobs", json=REQUEST).json()["id"]
    server.client.get(f"/api/jobs/{job}/events").read()
    content = server.client.get(f"/api/jobs/{job}/images/0").content
    recipe = json.loads(PilImages.open(io.BytesIO(content)).info["darkroom"])
    shown = server.client.get(f"/api/jobs/{job}").json()["images"][0]
    assert recipe["schema"] == 1 and recipe["pixels_sha256"] == shown["pixels_sha256"]
