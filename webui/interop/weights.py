"""Weights of words as other programs mark them -> ``(words:weight)``, as A1111 and we do."""

import re

MAX_CHARACTERS = 10_000

_FACTORS = {"{": 1.05, "[": round(1 / 1.05, 4)}
_CLOSINGS = {"}": "{", "]": "["}
_NOVELAI = re.compile(r"-?\d+(?:\.\d+)?::|::|[{}\[\]()]")
_MORE, _LESS = 1.1, 0.9
_END = r"(?=[\s,.;)]|\Z)"
_COMPEL = re.compile(
    rf"\\.|[(\[\]]|\)(\d{{1,9}}(?:\.\d{{0,9}})?|\.\d{{1,9}}|(?:\+{{1,9}}|-{{1,9}}){_END})?"
    rf"|(?<![^\s(,])([^\s()\[\]\\,]{{0,99}}[^\s()\[\]\\,+-])(\+{{1,9}}|-{{1,9}}){_END}",
    re.S,
)


def from_novelai(text: str) -> str:
    """NovelAI's ``{more}`` (1.05), ``[less]`` and ``1.3::exactly::`` as ``(words:weight)``; round brackets are words.

    What is never closed counts to the end, what was never opened is left out.
    """
    pieces: list[str] = []
    open_marks: list[tuple[str, float]] = []
    place = 0
    for match in _NOVELAI.finditer(text):
        pieces.append(text[place : match.start()])
        place, mark = match.end(), match[0]
        if mark in ("(", ")"):
            pieces.append("\\" + mark)
        elif mark in _FACTORS:
            open_marks.append((mark, _FACTORS[mark]))
            pieces.append("(")
        elif mark in _CLOSINGS:
            if open_marks and open_marks[-1][0] == _CLOSINGS[mark]:
                pieces.append(f":{open_marks.pop()[1]:g})")
        else:
            if open_marks and open_marks[-1][0] == "::":
                pieces.append(f":{open_marks.pop()[1]:g})")
            if mark != "::":
                open_marks.append(("::", float(mark.removesuffix("::"))))
                pieces.append("(")
    pieces.append(text[place:])
    pieces += [f":{weight:g})" for _, weight in reversed(open_marks)]
    return "".join(pieces)


def from_compel(text: str) -> str:
    """InvokeAI's (Compel's) ``word++``, ``(words)-`` and ``(words)1.3``; brackets of its that have no weight are none.

    A plus is 1.1, a minus 0.9. Square brackets are words, and so are round ones that do not pair.
    """
    if len(text) > MAX_CHARACTERS:
        return text  # no prompt here; what is in brackets is copied once for each pair around it
    open_groups: list[list[str]] = [[]]
    place = 0
    for match in _COMPEL.finditer(text):
        open_groups[-1].append(text[place : match.start()])
        place, mark = match.end(), match[0]
        if mark == "(":
            open_groups.append([])
        elif mark[0] == ")" and len(open_groups) > 1:
            inner = "".join(open_groups.pop())
            open_groups[-1].append(f"({inner}:{_compel_weight(match[1]):g})" if match[1] else inner)
        elif match[3]:
            open_groups[-1].append(f"({match[2]}:{_compel_weight(match[3]):g})")
        else:
            open_groups[-1].append(mark if mark[0] == "\\" else "\\" + mark)
    open_groups[-1].append(text[place:])
    return "\\(".join("".join(group) for group in open_groups)


def _compel_weight(mark: str) -> float:
    if mark[0] in "+-":
        return (_MORE if mark[0] == "+" else _LESS) ** len(mark)
    return float(mark)
