"""A graph of ComfyUI's as it ran: nodes with inputs, each a value or a link to an output of another node.

Following links is counted, so that a stranger's graph costs a bounded number of steps however it is woven.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from webui.interop.found import Unreadable

MAX_NODES = 2_000
MAX_STEPS = 50_000
MAX_DEPTH = 100

_SELECTORS = (
    "select",
    "selected",
    "index",
    "input",
    "switch",
    "boolean",
    "condition",
    "cond",
    "boolean_value",
    "value",
)
_TRUE = ("on_true", "if_true", "true", "tt_value", "true_value")
_FALSE = ("on_false", "if_false", "false", "ff_value", "false_value")
_WRITTEN = ("value", "boolean", "int", "number")  # what holds a number or a truth value calls it


@dataclass(frozen=True, eq=False)
class Node:
    """``kind`` is its ``class_type``; ``outputs`` are the names of its outputs, where a workflow says them."""

    name: str
    kind: str
    inputs: Mapping[str, Any]
    outputs: tuple[str, ...] = ()

    def says(self, *words: str) -> bool:
        """Whether one of the words, in lower case, is part of its kind."""
        return any(word in self.kind.casefold() for word in words)


class Graph:
    """The nodes by name; ``notes`` are lines for people about what was met on the way."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.notes: list[str] = []
        self.texts: dict[tuple[Node, int], str | None] = {}  # those that were read, by node and output
        self._steps = 0
        if len(self.nodes) > MAX_NODES:
            raise Unreadable(f"ComfyUI's graph has {len(self.nodes):,} nodes; up to {MAX_NODES:,} are read")

    def note(self, line: str) -> None:
        """Keeps a line, once."""
        if line not in self.notes[-100:]:
            self.notes.append(line)

    def linked(self, value: Any) -> tuple[Node, int] | None:
        """The node and the number of its output that an input is linked to; None where it is no link."""
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise Unreadable("ComfyUI's graph is too large to be followed")
        if not (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int)):
            return None
        node, slot = self.nodes.get(str(value[0])), value[1]
        return (node, slot) if node and isinstance(slot, int) else None

    def links(self, node: Node) -> Iterator[tuple[str, Any]]:
        """The inputs that are linked, by name."""
        for name, value in node.inputs.items():
            if self.linked(value):
                yield name, value

    def chosen(self, node: Node) -> Any:
        """The link that a switch passes on by what its own inputs say, None for any other node."""
        name = self._chosen_name(node)
        if name is None and node.says("any switch", "context switch"):  # the first that is not muted
            name = next((name for name, _ in self.links(node)), None)
        return None if name is None else node.inputs.get(name)

    def passed_on(self, node: Node) -> Any:
        """The link that a switch, or a node that does nothing else, passes on; None for any other node."""
        if (chosen := self.chosen(node)) is not None:
            return chosen
        links = [value for _, value in self.links(node)]
        alone = len(links) == len(node.inputs) or node.says("reroute", "show", "display", "preview")
        return links[0] if len(links) == 1 and alone else None

    def source(self, value: Any, keys: tuple[str, ...], *onward: str) -> Node | None:
        """The nearest node behind a link that has one of the inputs in ``keys``; None where there is none.

        The way goes by inputs named ``onward``, and through whatever passes a link on.
        """

        def follow(node: Node) -> list[Any]:
            return [node.inputs[name] for name in onward if name in node.inputs] or [self.passed_on(node)]

        nodes = self.upstream([value], follow)
        return next((node for node in nodes if any(key in node.inputs for key in keys)), None)

    def upstream(self, values: Iterable[Any], follow: Callable[[Node], Iterable[Any]] | None = None) -> Iterator[Node]:
        """Every node behind the links, nearest first, each once; ``follow`` gives the links to go on by."""
        waiting, seen = deque(values), set[str]()
        while waiting:
            linked = self.linked(waiting.popleft())
            if linked is None or linked[0].name in seen:
                continue
            node = linked[0]
            seen.add(node.name)
            yield node
            chosen = self.chosen(node)
            waiting.extend([chosen] if chosen is not None else node.inputs.values() if follow is None else follow(node))

    def _chosen_name(self, node: Node) -> str | None:
        """The input that a switch passes on, where its own inputs say which; None for any other node."""
        if not node.says("switch", "select", "conditionalbranch", "if ", "ifelse", "if_else"):
            return None
        by_key = {str(name).casefold(): name for name in node.inputs}
        for selector in _SELECTORS:
            chosen = node.inputs.get(by_key.get(selector, ""))
            if linked := self.linked(chosen):
                chosen = _written(linked[0])
            if isinstance(chosen, bool):
                return next((by_key[key] for key in (_TRUE if chosen else _FALSE) if key in by_key), None)
            if isinstance(chosen, int):
                ends = re.compile(rf"\D+0?{chosen}")
                return next((name for key, name in by_key.items() if ends.fullmatch(key)), None)
        return None


def _written(node: Node) -> Any:
    """The number or truth value of a node that does nothing but hold it."""
    if node.says("primitive", "constant", "literal") or len(node.inputs) == 1:
        return next((node.inputs[key] for key in _WRITTEN if key in node.inputs), None)
    return None
