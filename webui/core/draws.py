"""What a prompt says in a picture: its choices and wildcards drawn by the picture's seed, through dynamicprompts.

The drawn text depends on the text, the seed and the wildcards' entries, and on nothing else. Numbers come from Python's
``random.Random(seed)``, which each text begins anew, as in the library's extension for A1111. Different from the
library, each on purpose:

- ``{@a|b}`` goes by the seed, which is one more from picture to picture, not by what was drawn before.
- ``{!a|b}`` is drawn like any other: one picture cannot be all of them.
- Of several at once each keeps its own weight; the library may exchange them, and takes a wildcard's weights below 1
  for 0.

Imported where something is drawn: the library takes its time.
"""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from random import Random

from dynamicprompts.commands import Command, LiteralCommand, VariantCommand, VariantOption, WildcardCommand
from dynamicprompts.enums import SamplingMethod
from dynamicprompts.parser.parse import parse
from dynamicprompts.samplers import RandomSampler
from dynamicprompts.sampling_context import SamplingContext
from dynamicprompts.types import ResultGen
from dynamicprompts.wildcards import WildcardManager
from dynamicprompts.wildcards.item import WildcardItem
from dynamicprompts.wildcards.values import WildcardValues
from pyparsing import ParseBaseException

from webui.core.dynamic import Choice, Template, scan, undisguised
from webui.core.errors import RequestError, show
from webui.core.request import MAX_PROMPT_CHARACTERS
from webui.core.wildcards import Wildcards

MAX_CHOSEN = 100
"""Of one choice at once: each is drawn from all that are left."""
MAX_DRAWN = 1_000
"""In one text, those within wildcards too."""
_WEIGHT = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+))::")

_parsing = threading.Lock()  # the library's parser is one object, and nothing says that threads may share it


class Drawer:
    """Draws texts. ``warnings`` are lines for people. What was read of a text is kept."""

    def __init__(self, wildcards: Wildcards) -> None:
        self.wildcards = wildcards
        self.warnings: dict[str, None] = {}
        self._commands: dict[str, Command] = {}

    def draw(self, text: str, seed: int, field: str = "prompt") -> str:
        """The text with nothing left to chance.

        Raises RequestError, which is about ``field``, for a wildcard that is not there, and for what is too much.
        """
        drawn = _Draw(self, seed, field).text(self.command(text, field))
        if len(drawn) > MAX_PROMPT_CHARACTERS:
            raise RequestError(
                f"{field}: what was drawn has {len(drawn):,} characters; {MAX_PROMPT_CHARACTERS:,} is the limit",
                field=field,
            )
        return drawn

    def command(self, text: str, field: str, inside: bool = False) -> Command:
        """A text as the library reads it; one ``inside`` a wildcard was checked with it."""
        if text not in self._commands:
            template = scan(text, self.wildcards.is_wildcard, field)
            if not inside:
                self.wildcards.check(template, field)
            self._commands[text] = self._read(template)
        return self._commands[text]

    def _read(self, template: Template) -> Command:
        """What the library refuses stays as it is written, with a warning."""
        self.warnings |= dict.fromkeys(template.notices)
        refused = [choice for choice in template.choices if not _can_be_drawn(template.text, choice)]
        for choice in refused:
            self._warn(f"{show(template.text[choice.start : choice.stop])} cannot be drawn and stays as it is written.")
        template = replace(template, choices=tuple(choice for choice in template.choices if choice not in refused))
        text = template.disguised()
        if not template.forms:
            return LiteralCommand(text)
        try:
            with _parsing:
                return parse(text)
        except (ParseBaseException, ValueError, RecursionError):
            self._warn(f"{show(template.text)} cannot be drawn and stays as it is written.")
            return LiteralCommand(replace(template, names=(), choices=()).disguised())

    def _warn(self, line: str) -> None:
        self.warnings[line] = None


class _Draw:
    """One text on its way."""

    def __init__(self, drawer: Drawer, seed: int, field: str) -> None:
        self.seed, self.field, self._drawer, self._count = seed, field, drawer, 0
        samplers = {SamplingMethod.RANDOM: _ByChance(self), SamplingMethod.CYCLICAL: _InTurn(self)}
        by_chance = SamplingMethod.RANDOM
        self._context = SamplingContext(by_chance, WildcardManager(), dict(samplers), rand=Random(seed))

    def text(self, command: Command) -> str:
        return undisguised(next(self._context.generator_from_command(command)).text)

    def count(self) -> None:
        """Counts what is drawn: wildcards may name more and more of them."""
        self._count += 1
        if self._count > MAX_DRAWN:
            raise RequestError(
                f"{self.field}: more than {MAX_DRAWN:,} choices and wildcards would be drawn", field=self.field
            )

    def values(self, command: WildcardCommand) -> WildcardValues:
        """What a wildcard can be."""
        entries = self._drawer.wildcards.entries(undisguised(str(command.wildcard)), self.field)
        return WildcardValues.from_items(WildcardItem(entry.text, entry.weight) for entry in entries)

    def command(self, text: str) -> Command:
        """One of these, as it is read."""
        return self._drawer.command(text, self.field, inside=True)


@dataclass(frozen=True)
class _Entry(Command):
    """One of a wildcard's texts, which is read if it is drawn."""

    text: str
    sampling_method: SamplingMethod | None = None


class _ByChance(RandomSampler):
    """The library's own, but for what is said above of weights; it also counts."""

    def __init__(self, draw: _Draw) -> None:
        self._draw = draw

    def generator_from_command(self, command: Command, context: SamplingContext) -> ResultGen:
        if isinstance(command, _Entry):
            return context.generator_from_command(self._draw.command(command.text))
        return super().generator_from_command(command, context)

    def _get_variant(self, command: VariantCommand, context: SamplingContext) -> ResultGen:
        only = command.values[0] if len(command) == 1 else None
        if isinstance(only, WildcardCommand):
            values = self._draw.values(only)
            options = [VariantOption(_Entry(str(item)), getattr(item, "weight", 1.0)) for item in values.items]
            command = replace(command, variants=options).adjust_range()
        return super()._get_variant(command, context)

    def _get_variant_num_choices(self, command: VariantCommand, context: SamplingContext) -> int:
        self._draw.count()
        return self._checked(super()._get_variant_num_choices(command, context))

    def _checked(self, number: int) -> int:
        if number > MAX_CHOSEN:
            field = self._draw.field
            raise RequestError(f"{field}: {number:,} of one choice are too many; {MAX_CHOSEN} is the limit", field)
        return number

    def _get_variant_choices(
        self, values: list[Command], weights: list[float], num_choices: int, rand: Random
    ) -> list[Command]:
        chosen: list[Command] = []
        values, weights = [*values], [*weights]
        while len(chosen) < num_choices and any(weights):
            (choice,) = rand.choices(values, weights)
            place = values.index(choice)
            chosen.append(values.pop(place))
            del weights[place]
        return chosen

    def _get_wildcard(self, command: WildcardCommand, context: SamplingContext) -> ResultGen:
        texts = self._texts(self._draw.values(command), context.rand)
        while True:
            self._draw.count()
            yield next(context.generator_from_command(self._draw.command(next(texts))))

    def _texts(self, values: WildcardValues, rand: Random) -> Iterator[str]:
        return values.get_weighted_random_generator(rand)


class _InTurn(_ByChance):
    """Chooses by the seed; what is within a part is drawn by chance again."""

    def _get_variant(self, command: VariantCommand, context: SamplingContext) -> ResultGen:
        return super()._get_variant(command, context.with_sampling_method(SamplingMethod.RANDOM))

    def _get_variant_num_choices(self, command: VariantCommand, context: SamplingContext) -> int:
        self._draw.count()
        return self._checked(command.min_bound)

    def _get_variant_choices(
        self, values: list[Command], weights: list[float], num_choices: int, rand: Random
    ) -> list[Command]:
        return [values[(self._draw.seed + k) % len(values)] for k in range(num_choices)]

    def _get_wildcard(self, command: WildcardCommand, context: SamplingContext) -> ResultGen:
        return super()._get_wildcard(command, context.with_sampling_method(SamplingMethod.RANDOM))

    def _texts(self, values: WildcardValues, rand: Random) -> Iterator[str]:
        return repeat(values.string_values[self._draw.seed % len(values)])


def _can_be_drawn(text: str, choice: Choice) -> bool:
    """Whether enough of its parts weigh something."""
    bounds = (choice.body, *(bar + 1 for bar in choice.bars))
    found = [_WEIGHT.match(text, place) for place in bounds]
    weights = [float(weight[1]) if weight else 1.0 for weight in found]
    most = re.search(r"\d+$", choice.bound)
    number = min(int(most[0]), len(weights)) if most else len(weights) if choice.bound else 1
    return min(weights) >= 0 and sum(weight > 0 for weight in weights) >= number
