"""All texts that people can meet on the page, read from the source: what a language has to say in its own words.

``python -m webui.languages.catalogue`` says what a language lacks, and has too much.
"""

import ast
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from html.parser import HTMLParser

from webui import languages

WEBUI = languages.HERE.parent
FRONTS = (
    "ui",
    "api",
    "core/errors.py",
    "core/notices.py",
    "core/prompt.py",
    "core/groups",
    "core/maps",
    "core/images.py",
    "core/request.py",
    "core/memory.py",
    "cli",
    "setup",
    "doctor.py",
)
"""Whose texts are all looked through; of the others, what errors say and what fields are called."""
UNSEEN = ("cli", "setup", "languages", "doctor.py", "api/description.py", "api/metrics.py", "api/installable.py")
"""What no page shows."""
GRADIO = (
    *("number input for {1}", "range slider for {1}", "Reset to default value", "Empty value"),
    *("File upload", "Upload file", "Paste from clipboard", "Click to upload or drop files", "Error"),
)
"""Of Gradio's own texts those that it has in English alone."""
CALLED = ("title", "description", "reason", "keys", "count", "drawn_at")
ERRORS = re.compile(
    r"(Error|Bad\w+|File|Unreadable|Load|Full|Over\w+|Cut|Taken|Refused|Apply|Exception|Lost|Found|Memory)$"
)
SHOWN = ("title", "aria-label", "placeholder", "alt")
PLACE = re.compile(r"\{(\w+)[^}]*\}")
"""The place of a value, by its number or, in a text that Python formats later, by its name."""
KEY = " (key)"
"""Ends a text that is the name of a key, where the same text means something else elsewhere."""
SENTENCE = re.compile(r"[A-Z“].* .*|.* .*\.", re.DOTALL)
PROSE = re.compile(r"[A-Z“](?!.*%s)[^<>=#\n]*([a-z]{2}[.;] .*|[a-z}]\.)")
"""A sentence with a flag or another sign of code in it."""
CODE = re.compile(r"^M0 |^Segoe|[<>=#\[\]_\n]|^[A-Z]+ /|--|[|]|\+\+|\.{2}/|^[a-z-]+( [a-z-]+)+$|%s| LIMIT |: var\(")


class _Pieces(HTMLParser):
    """The texts of a piece of HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, _tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attributes if name in SHOWN and value]

    def handle_data(self, data: str) -> None:
        self.found.append(data)


def texts(unseen: tuple[str, ...] = UNSEEN) -> set[str]:
    """Every text of the source, with places numbered in their order: ``Remove {1}``; none of what is ``unseen``."""
    found = {*GRADIO, *_shipped()}
    for path in sorted(WEBUI.rglob("*.*")):
        name = path.relative_to(WEBUI).as_posix()
        if name.startswith(unseen):
            continue
        if path.suffix == ".py":
            found |= set(_python_texts(ast.parse(path.read_text("utf-8")), name.startswith(FRONTS)))
        elif path.suffix in READERS and name.startswith(FRONTS):
            found |= set(READERS[path.suffix](path.read_text("utf-8")))
    plain = (PLACE.sub(r"{\1}", " ".join(one.split())) for one in found)
    return {text for text in plain if re.search("[A-Za-z]", PLACE.sub("", text))}


def _shipped() -> Iterator[str]:
    """What the presets and LoRAs that ship say of themselves."""
    for path in sorted((WEBUI.parent / "presets").glob("*.toml")):
        yield tomllib.loads(path.read_text("utf-8")).get("note", "")
    for path in sorted((WEBUI / "demo" / "loras").glob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        yield header["__metadata__"]["modelspec.description"]


def is_sentence(text: str) -> bool:
    """Whether that is surely meant for people: a short word might be a name of the code's own."""
    if not CODE.search(text):
        return bool(SENTENCE.fullmatch(text))
    return bool(PROSE.fullmatch(text)) and len(re.findall("[a-z]{2,}", text)) > 4


def _html_texts(text: str) -> list[str]:
    pieces = _Pieces()
    pieces.feed(text)
    return pieces.found


def _python_texts(tree: ast.AST, is_front: bool) -> Iterator[str]:
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    for root in [tree] if is_front else _told(tree):
        for node in ast.walk(root):
            if id(node) in docs or id(node) in inside:
                continue
            text = _written(node)
            if text and "<" in text:
                yield from _html_texts(text)
            elif text:
                yield text


def _told(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            if ERRORS.search(ast.unparse(node.exc.func)):
                yield node.exc
        elif isinstance(node, ast.Assign | ast.keyword):
            name = node.arg if isinstance(node, ast.keyword) else ast.unparse(node.targets[0])
            if name in CALLED:
                yield node.value
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).split(".")[-1] in ("Failed", "Loading")
            or _is_line(_written(node))
        ):
            yield node


def _is_line(text: str) -> bool:
    """Whether that is a whole sentence, which is for people wherever it stands: a warning, or the end of one."""
    return len(text) < 400 and text.endswith((".", "?")) and text.count(" ") > 2 and "<" not in text


def _written(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return ""
    count, text = 0, ""
    for part in node.values:
        if isinstance(part, ast.Constant):
            text += str(part.value)
        else:
            count += 1
            text += f"{{{count}}}"
    return text


def script_texts(source: str) -> Iterator[str]:
    """The strings and templates of a script, those in the places of templates too."""
    stack: list[list[str]] = []  # templates whose place is being read: text so far, how many places
    depth: list[int] = []
    at, before = 0, ""
    while at < len(source):
        if match := re.compile(r"//[^\n]*|/\*.*?\*/|\s+", re.DOTALL).match(source, at):
            at = match.end()
            continue
        if match := re.compile(r'"(?:\\.|[^"\\])*"|' + r"'(?:\\.|[^'\\])*'").match(source, at):
            yield match[0][1:-1].replace('\\"', '"')
            at, before = match.end(), "x"
            continue
        letter = source[at]
        if letter == "/" and (not before or before in "(,=:[!&|?{};+>"):
            match = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\\[])+/").match(source, at)
            if match:
                at, before = match.end(), "x"
                continue
        ends = bool(depth) and letter == "}" and depth[-1] == 0
        if letter == "`" or ends:
            if ends:
                depth.pop()
            else:
                stack.append(["", "0"])
            at = _read_template(source, at + 1, stack[-1])
            if source.startswith("${", at):
                at += 2
                depth.append(0)
                before = "{"
            else:
                yield stack.pop()[0]
                at += 1
                before = "x"
            continue
        if depth and letter in "{}":
            depth[-1] += 1 if letter == "{" else -1
        at, before = at + 1, letter


def _read_template(source: str, at: int, template: list[str]) -> int:
    """Goes on to the template's next place, or its end."""
    while source[at] != "`" and not source.startswith("${", at):
        length = 2 if source[at] == "\\" else 1
        template[0] += source[at : at + length]
        at += length
    if source[at] != "`":
        template[1] = str(int(template[1]) + 1)
        template[0] += f"{{{template[1]}}}"
    return at


READERS: Mapping[str, Callable[[str], Iterable[str]]] = {".js": script_texts, ".html": _html_texts}


def lacking(code: str, known: Set[str]) -> dict[str, set[str]]:
    """What is amiss in a language beside all texts that are ``known``, by what is the matter."""
    words = languages.language(code)
    said = {text.removesuffix(KEY) for text in words}
    odd = {text for text, own in words.items() if not set(PLACE.findall(own)) <= set(PLACE.findall(text))}
    lost = {text for text, own in words.items() if set(PLACE.findall(text)) - set(PLACE.findall(own))}
    return {
        "is missing": {text for text in known if is_sentence(text)} - said,
        "is not used": said - known,
        "has other places": odd | lost,
    }


def main() -> int:
    """Says what is amiss in each language."""
    known = texts()
    amiss = [
        f"{code} {what}: {text}"
        for code in languages.names()
        for what, found in lacking(code, known).items()
        for text in sorted(found)
    ]
    print("\n".join(amiss))
    return 1 if amiss else 0


if __name__ == "__main__":
    sys.exit(main())
