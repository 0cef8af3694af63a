"""``generate --resume``: what was interrupted goes on where it stopped, and is finished as one command would have."""

import pytest

from webui.cli import generate, make_parser
from webui.core.events import Image

FIELDS = {"prompt": "panda", "seed": 7, "repeat": 3, "steps": 2, "width": 64, "height": 64, "device": "cpu"}
ARGUMENTS = ["generate", "--resume", *(word for name, value in FIELDS.items() for word in (f"--{name}", str(value)))]


def run(settings, *more: str) -> int:
    parser = make_parser("generate")
    options, _ = parser.parse_known_args([*ARGUMENTS, "--data-dir", str(settings.data_dir), *more])
    return generate.run(options)


def test_an_interrupted_command_goes_on_where_it_stopped(settings, monkeypatch, capsys):
    def interrupt(events) -> int:
        for event in events:
            if isinstance(event, Image):
                raise KeyboardInterrupt
        raise AssertionError("nothing was drawn")

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(generate, "print_progress", interrupt)
        run(settings)
    before = {path.name: path.stat().st_mtime_ns for path in settings.outputs_dir.rglob("*.png")}
    assert 1 <= len(before) <= 3 and len(list((settings.data_dir / "unfinished").glob("*.sqlite3"))) == 1
    assert run(settings) == 0
    out, err = capsys.readouterr()
    after = {path.name: path.stat().st_mtime_ns for path in settings.outputs_dir.rglob("*.png")}
    assert len(after) == 3 and before.items() <= after.items() and len(out.split()) == 3
    assert f"continuing, {len(before)} pictures are finished" in err
    assert not list((settings.data_dir / "unfinished").glob("*.sqlite3"))
