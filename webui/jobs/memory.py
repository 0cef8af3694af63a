"""What a job will take of memory, told before anything is loaded: from the files' headers and what a device has."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from webui.core.errors import RequestError, show
from webui.core.memory import PLANS, Asked, Room, control_bytes, need_of, step_bytes
from webui.core.tensor_file import BadFile
from webui.core.uses import lenders
from webui.library.library import Snapshot

UNKNOWN = Room("", 0, 2)
"""Before there is an engine: weights of two bytes a number are the usual ones."""


def tell_memory(asked: Asked, library: Snapshot, rooms: Sequence[Room]) -> Mapping[str, object]:
    """As ``Executor.tell_memory``: of several devices the one with the fastest plan tells."""
    file = library.models.get(asked.model)
    if file is None or file.checkpoint is None:
        raise RequestError(f"there is no usable model {show(asked.model)!r}", field="model")
    checkpoint, others = file.checkpoint, lenders(file, library)
    controls = []
    for name in dict.fromkeys(asked.controls):
        if name not in library.controls:
            raise RequestError(f"there is no control {show(name)!r}", field="controls")
        controls.append(library.controls[name])
    told: list[tuple[int, Mapping[str, object]]] = []
    for room in rooms or (UNKNOWN,):
        step = step_bytes(checkpoint, asked.size, asked.count * (1 + asked.guided), room.number_bytes)
        try:
            need = need_of(file, others, room.number_bytes, step)
        except (BadFile, OSError) as error:
            raise RequestError(f"model {show(asked.model)!r}: {error}", field="model") from None
        try:
            need = replace(need, control_bytes=sum(control_bytes(one, room.number_bytes) for one in controls))
        except BadFile as error:
            raise RequestError(f"a control cannot be read: it {error}", field="controls") from None
        said: dict[str, object] = {"parts": dict(need.parts), "weight_bytes": need.weight_bytes, "step_bytes": step}
        said |= {"control_bytes": need.control_bytes} if controls else {}
        rank = len(PLANS)
        if room is not UNKNOWN:
            plan = need.choose(room.free_bytes, room.plans)
            rank = PLANS.index(plan) if plan else rank
            least = min(map(need.on_device, room.plans))
            said |= {"device": room.device, "free_bytes": room.free_bytes, "least_bytes": least, "plan": plan}
            said |= {"load_s": checkpoint.nbytes / room.read_bytes_s} if room.read_bytes_s else {}
        told.append((rank, said))
    return min(told, key=lambda one: one[0])[1]
