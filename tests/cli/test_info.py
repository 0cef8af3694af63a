"""``webui info`` prints settings, and names in one line what it cannot read."""

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image as PilImages
from PIL.PngImagePlugin import PngInfo


def test_info_prints_settings_and_names_what_it_cannot_read(tmp_path: Path, repository: Path) -> None:
    chunks = PngInfo()
    chunks.add_itxt("parameters", "an apple\nSteps: 13, Sampler: Euler a, CFG scale: 4.5, Seed: 42, Size: 128x192")
    PilImages.new("RGB", (64, 64)).save(tmp_path / "good.png", pnginfo=chunks)
    PilImages.new("RGB", (64, 64)).save(tmp_path / "bare.png")
    (tmp_path / "bad.png").write_text("no picture")

    def info(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "webui", "info", *arguments]
        return subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120, input=text)

    good, bare, bad = (str(tmp_path / f"{name}.png") for name in ("good", "bare", "bad"))
    done = info(good, bare)
    assert done.returncode == 1 and "  prompt: an apple\n" in done.stdout and "  seed: 42\n" in done.stdout
    assert f"{bare}: no settings" in done.stdout and not done.stderr
    done = info("--json", good, bad)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 2 and answers[0]["values"]["steps"] == 13 and "not a picture" in answers[1]["error"]
    assert done.stderr.startswith(f"webui: {bad}: ") and done.stderr.count("\n") == 1
    done = info("-", text="an apple\nSteps: 13, Sampler: Euler a, CFG scale: 4.5, Seed: 42")
    assert done.returncode == 0 and done.stdout.startswith("-: AUTOMATIC1111\n") and "  seed: 42\n" in done.stdout
