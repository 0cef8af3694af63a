"""Runs the page's scripts that know no page, with the node that Playwright brings along."""

import json
import subprocess
from pathlib import Path
from typing import Any

import playwright

STATIC = Path(__file__).resolve().parents[2] / "webui" / "ui" / "static"
NODE = next((Path(playwright.__file__).parent / "driver").glob("node*"))


def evaluate(scripts: list[str], expression: str, argument: Any = None) -> Any:
    """What a function in JavaScript, called with the argument, gives or promises once these scripts have run."""
    sources = [(STATIC / name).read_text("utf-8") for name in scripts]
    call = f"Promise.resolve(({expression})({json.dumps(argument)})).then((told) => console.log(JSON.stringify(told)));"
    code = "\n".join(["globalThis.window = globalThis;", *sources, call])
    run = subprocess.run([NODE, "-"], input=code, capture_output=True, text=True, encoding="utf-8", timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)
