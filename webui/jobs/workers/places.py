"""Where the workers of one machine are: a process for each device that is asked for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from webui.core.errors import RequestError
from webui.core.settings import Settings

VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "xpu": "ZE_AFFINITY_MASK"}
"""What makes a process see one card alone; it is the first one there."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Place:
    """``name`` is for people, ``device`` is the engine's name for it. ``variables`` are set in the process's
    environment before torch is there."""

    name: str
    device: str
    variables: Mapping[str, str] = field(default_factory=dict)


def places_of(devices: Sequence[str], cores: int, environment: Mapping[str, str]) -> tuple[Place, ...]:
    """A place for each of ``devices``: ``cuda``, ``cuda:1``, ``xpu:0``, ``mps`` or ``cpu``, of which the last may be
    named several times: they share the machine's ``cores``. Raises RequestError.

    Where ``environment`` says which cards are to be seen, numbers count among these.
    """
    twice = [name for name, count in Counter(map(_canonical, devices)).items() if count > 1 and name != "cpu"]
    if twice:
        raise RequestError(f"devices: {twice[0]} is named twice; one process has it", field="devices")
    on_cpu = sum(name == "cpu" for name in devices)
    found: list[Place] = []
    for at, device in enumerate(devices):
        kind, _, number = device.partition(":")
        if kind == "cpu" and not number:
            threads = {name: str(max(1, cores // on_cpu)) for name in THREADS if name not in environment}
            name = f"cpu {sum(name == 'cpu' for name in devices[: at + 1])}" if on_cpu > 1 else "cpu"
            found.append(Place(name, "cpu", threads))
        elif kind in VISIBLE and (number or "0").isdecimal():
            found.append(Place(_canonical(device), kind, {VISIBLE[kind]: _card(kind, int(number or 0), environment)}))
        elif device == "mps":
            found.append(Place(device, device))
        else:
            raise RequestError(
                f"devices: {device[:40]!r} is not one of cuda:0, cuda:1 and so on, xpu:0, mps and cpu", field="devices"
            )
    return tuple(found)


def devices_for(workers: int, device: str, cards: int) -> tuple[str, ...]:
    """The devices of so many workers: a card each on a machine that has ``cards``, or all on the processor where there
    are none or ``device`` says so. Raises RequestError where they are too few."""
    if device in ("cpu", "mps") or (device == "auto" and not cards):
        return ("cpu",) * workers
    if workers > cards:
        there = "one graphics card" if cards == 1 else f"{cards} graphics cards"
        raise RequestError(
            f"workers: {workers} are too many for {there}: each takes a card. --devices names others, as"
            " cuda:0,cpu; --device cpu has all draw on the processor",
            field="workers",
        )
    return tuple(f"{'xpu' if device == 'xpu' else 'cuda'}:{number}" for number in range(workers))


def _canonical(device: str) -> str:
    return f"{device}:0" if device in VISIBLE else device


def _card(kind: str, number: int, environment: Mapping[str, str]) -> str:
    """What card ``number`` is called among those that this process may see."""
    seen = [name.strip() for name in environment.get(VISIBLE[kind], "").split(",") if name.strip()]
    if seen and number >= len(seen):
        raise RequestError(
            f"devices: {kind}:{number} is not there: {VISIBLE[kind]} shows {len(seen)} of the cards", field="devices"
        )
    return seen[number] if seen else str(number)


def check_together(settings: Settings) -> None:
    """Raises RequestError where jobs cannot be drawn together with what else is asked for."""
    others = {"ray": settings.ray, "workers": settings.workers > 1, "devices": settings.devices}
    faster = {"compile": settings.compile, "cuda_graphs": settings.cuda_graphs}
    for name, is_on in (others | faster).items() if settings.together > 1 else ():
        if is_on:
            why = "it needs a single worker" if name in others else "each number of pictures would be prepared anew"
            flag = f"--{name.replace('_', '-')}"
            raise RequestError(f"--together does not go with {flag}: {why}; leave one out", field="together")
