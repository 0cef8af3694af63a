"""img2img and inpaint over HTTP and from the command line. What is asserted is what comes out."""

import base64
import io
import json
import re

import pytest
from PIL import Image as PilImages

from webui.cli import main

from .server import run_webui
from .start_pictures import BOX, assert_only_inside, changed, picture, png, queued, rectangle, text


class TestHttp:
    def test_a_job_with_picture_and_mask_changes_only_what_is_masked(self, server):
        init = {"image": text(picture()), "mask": "data:image/png;base64," + text(rectangle()), "strength": 0.9}
        job = server.submit(prompt="a red apple", seed=4, steps=3, init=init)
        end = server.finish(job)
        assert end["event"] == "done", end
        result = PilImages.open(io.BytesIO(server.client.get(f"/api/jobs/{job}/images/0").content))
        assert_only_inside(BOX, picture(), result)
        shown = server.show(job, pictures=True)["request"]["init"]
        assert not changed(picture(), PilImages.open(io.BytesIO(base64.b64decode(shown["image"])))).any()
        assert "Mask blur: 4" in result.text["parameters"]

    @pytest.mark.parametrize(
        ("init", "reason"),
        [
            ({"image": "no base64!"}, "init.image is not base64 text of a picture"),
            ({"image": text(picture((64, 64)))[:200]}, "init.image is"),
            ({"image": base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode()}, "is not a picture"),
            ({"image": text(picture((4, 4)))}, "init.image is 4 x 4 px; each side must be at least 8 px"),
            (
                {"image": text(picture()), "mask": text(rectangle(size=(32, 64)))},
                "the mask is 32 x 64 px, but the picture is 64 x 64 px",
            ),
            ({"image": text(picture()), "mask": text(PilImages.new("L", (64, 64)))}, "nothing would be drawn"),
            ({"image": text(picture()), "strength": 1.5}, "init.strength must be at most 1, not 1.5"),
            ({}, "init.image is missing"),
        ],
        ids=["base64", "truncated", "SVG", "tiny", "mask size", "black mask", "strength", "nothing"],
    )
    def test_what_is_wrong_is_said_and_not_queued(self, server, init, reason):
        before = queued(server)
        answer = server.client.post("/api/jobs", json={"prompt": "a", "init": init})
        assert answer.status_code in (400, 422), answer.text
        assert reason in json.dumps(answer.json(), ensure_ascii=False) and "Traceback" not in answer.text
        assert queued(server) == before

    @pytest.mark.parametrize("mode", ["CMYK", "LA", "P", "L", "RGBA"])
    def test_a_start_picture_of_any_kind_can_be_shown_again(self, server, mode):
        buffer = io.BytesIO()
        picture().convert(mode).save(buffer, "JPEG" if mode == "CMYK" else "PNG")
        image = base64.b64encode(buffer.getvalue()).decode()
        job = server.submit(prompt="a", steps=1, init={"image": image, "strength": 0})
        assert server.finish(job)["event"] == "done"
        assert server.show(job)["state"] == "done"

    def test_gradio_client_img2img_and_inpaint(self, server, tmp_path):
        from gradio_client import Client, handle_file

        start, mask = tmp_path / "start.png", tmp_path / "mask.png"
        start.write_bytes(png(picture()))
        mask.write_bytes(png(rectangle()))
        client = Client(server.url, verbose=False, download_files=str(tmp_path / "got"))
        made = {}
        for task, extra in (("img2img", {}), ("inpaint", {"mask": handle_file(str(mask))})):
            gallery, *_ = client.predict(
                image=handle_file(str(start)),
                prompt="a cat",
                steps=2,
                seed=6,
                strength=0.9,
                api_name=f"/{task}",
                **extra,
            )
            made[task] = PilImages.open(gallery[0]["image"])
        assert changed(picture(), made["img2img"]).mean() > 0.5
        assert_only_inside(BOX, picture(), made["inpaint"])


class TestCommandLine:
    @pytest.fixture
    def generate(self, tmp_path):
        def generate(*flags):
            return run_webui(
                "generate", "--prompt", "a red apple", "--device", "cpu", "--data-dir", tmp_path / "data", *flags
            )

        return generate

    def test_a_masked_picture_is_drawn_anew_where_the_mask_is_white(self, generate, tmp_path, start_file):
        mask = tmp_path / "mask.png"
        mask.write_bytes(png(rectangle()))
        flags = ("--init", start_file, "--mask", mask, "--strength", "0.9", "--mask-blur", "0", "--mask-fill", "noise")
        done = generate(*flags, "--steps", "3", "--seed", "4", "--out", tmp_path / "out", "--json")
        assert done.returncode == 0, done.stderr
        events = [json.loads(line) for line in done.stdout.splitlines()]
        (made,) = [event for event in events if event["event"] == "image"]
        totals = {event["total"] for event in events if event["event"] == "step"}
        assert totals <= {2}, "who reads late is told of the newest step alone, or of none"
        assert_only_inside(BOX, picture(), PilImages.open(made["path"]), reach_px=0)

    BAD = [
        (["--init", "missing.png"], "--init 'missing.png' does not exist"),
        (["--init", "{folder}"], "is a folder"),
        (["--init", "{words}"], "is not a picture that can be read"),
        (["--init", "{bomb}"], "6000 x 5000 px, 30 megapixels; the limit is 24"),
        (["--init", "{start}", "--mask", "{words}"], "--mask '{words}' is not a picture"),
        (["--init", "{start}", "--mask", "{small}"], "the mask is 32 x 32 px, but the picture is 64 x 64 px"),
        (["--init", "{start}", "--mask", "{black}"], "nothing would be drawn"),
        (["--init", "{start}", "--strength", "2"], "strength must be at most 1"),
        (["--init", "{start}", "--outpaint", "8,8"], "outpaint"),
        (["--strength", "0.5"], "--strength needs --init"),
        (["--mask", "{black}"], "--mask needs --init"),
    ]

    @pytest.fixture
    def fill(self, tmp_path, start_file):
        """Puts files into flags and reasons."""
        paths = {name: tmp_path / f"{name}.png" for name in ("words", "bomb", "small", "black")}
        paths["words"].write_text("just words")
        paths["bomb"].write_bytes(png(PilImages.new("L", (6000, 5000))))
        paths["small"].write_bytes(png(rectangle((0, 0, 8, 8), (32, 32))))
        paths["black"].write_bytes(png(PilImages.new("L", (64, 64))))
        return lambda pattern: pattern.format(**paths, start=start_file, folder=tmp_path)

    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    @pytest.mark.parametrize(
        ("flags", "reason"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
    )
    def test_bad_input_is_one_line_and_status_2(self, capsys, tmp_path, fill, flags, reason):
        where = ["--device", "cpu", "--data-dir", str(tmp_path / "data"), "--steps", "1"]
        assert main(["generate", "--prompt", "a", *where, *map(fill, flags)]) == 2
        out, err = capsys.readouterr()
        (line,) = err.splitlines()
        assert line.startswith("webui: ") and fill(reason) in line and out == ""
        assert not list(tmp_path.glob("data/outputs/**/*.png"))

    def test_so_it_is_in_a_process_of_its_own(self, generate, fill):
        done = generate("--init", fill("{bomb}"), "--steps", "1")
        assert done.returncode == 2 and done.stdout == ""
        assert re.fullmatch(
            r"webui: --init '.*bomb\.png' is 6000 x 5000 px, 30 megapixels; the limit is 24\n", done.stderr
        )
