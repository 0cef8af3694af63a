"""What Gradio's page will ask for, so that a browser can begin with all of it at once.

Gradio 6.31 is many small modules, and its script asks for them in four waves: itself, its page, what lays components
out, and each kind of component with what that needs. Which ones those are is in its files.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import gradio

FRONTEND = Path(gradio.__file__).parent / "templates" / "frontend"
ENTRY = re.compile(r'src="\./assets/(index-[^"]+)"')
FILES = re.compile(r"m\.f=(\[.*?\])")
ASKS = re.compile(r"import\(`\./([^`]+)`\)[^`]{0,60}?__vite__mapDeps\(\[([\d,]*)\]\)")
COMPONENT = re.compile(r"(\w+):\{[^{}]*?component:\(\)=>\w+\(\(\)=>import\(`\./([^`]+)`\)")


def tags(components: Iterable[str]) -> str:
    """Elements of a document's head that ask for what a page with components of these kinds is made of; none where
    Gradio's files do not say it."""
    files = dict.fromkeys(_find(frozenset(components)))
    return "".join(
        f'<link rel="modulepreload" crossorigin href="assets/{name}">'
        if name.endswith(".js")
        else f'<link rel="preload" as="style" crossorigin href="assets/{name}">'
        for name in files
    )


def styles() -> str:
    """Elements with the styles of the first wave, in Gradio's order: what comes after them has the last word, as what
    Gradio itself puts into the head has."""
    asked = _asked_by(entry[1]).values() if (entry := _entry()) else ()
    sheets = dict.fromkeys(name for needed in asked for name in needed if name.endswith(".css"))
    return "".join(f'<link rel="stylesheet" crossorigin href="assets/{name}">' for name in sheets)


def _entry() -> re.Match[str] | None:
    return ENTRY.search((FRONTEND / "index.html").read_text("utf-8"))


def _find(components: frozenset[str]) -> Iterator[str]:
    if not (entry := _entry()):
        return
    yield entry[1]
    for asked, needed in _asked_by(entry[1]).items():
        yield from (asked, *needed)
        for name, further in _asked_by(asked).items():
            if name.startswith("Blocks-"):
                yield from (name, *further)
        if asked.startswith("core-"):
            kinds = dict(COMPONENT.findall(_read(asked)))
            found = _asked_by(asked)
            for kind in sorted(components & kinds.keys()):
                yield from (kinds[kind], *found.get(kinds[kind], ()))


def _asked_by(name: str) -> dict[str, list[str]]:
    """The modules that one asks for while it runs, each with the files that it needs."""
    text = _read(name)
    named = FILES.search(text)
    files = [file.removeprefix("./") for file in json.loads(named[1])] if named else []
    return {match[1]: [files[int(k)] for k in match[2].split(",") if k] for match in ASKS.finditer(text)}


def _read(name: str) -> str:
    return (FRONTEND / "assets" / name).read_text("utf-8")
