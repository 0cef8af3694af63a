"""What a job will take of memory, told before anything is loaded: from the files' headers and what a device has."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from webui.core.errors import Mend, RequestError, show
from webui.core.files import AnnotatorFile, ControlFile, File, FinderFile, ImageEncoderFile, ModelFile, UpscalerFile
from webui.core.images import Size
from webui.core.memory import PLANS, Asked, Need, Room, control_bytes, need_of, rests_in_files, step_bytes
from webui.core.order import Order
from webui.core.stages import Detail, Pass
from webui.core.tensor_file import BadFile
from webui.core.uses import lenders
from webui.jobs.workers.worker import WorkerStatus
from webui.library.library import Snapshot

ON_CPU = UpscalerFile, FinderFile, AnnotatorFile
"""What computes on the processor, whatever draws."""
BESIDE = *ON_CPU, ImageEncoderFile
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
        step = step_bytes(checkpoint, asked.size, asked.rows, room.number_bytes)
        try:
            need = need_of(file, others, room, step)
        except (BadFile, OSError) as error:
            raise RequestError(f"model {show(asked.model)!r}: {error}", field="model") from None
        try:
            need = _with_controls(need, controls, room)
        except BadFile as error:
            raise RequestError(f"a control cannot be read: it {error}", field="controls") from None
        need = need.in_int8(room.number_bytes) if asked.int8 and not room.no_int8 else need
        said: dict[str, object] = {"parts": dict(need.parts), "weight_bytes": need.weight_bytes}
        said["step_bytes"] = need.step_bytes
        said |= {"control_bytes": need.control_bytes} if controls else {}
        rank = len(PLANS)
        if room is not UNKNOWN:
            plan = need.choose(room.free_bytes, room.plans)
            rank = PLANS.index(plan) if plan else rank
            least = room.free_bytes + need.missing(room)
            said |= {"device": room.device, "free_bytes": room.free_bytes, "least_bytes": least, "plan": plan}
            said |= {"load_s": checkpoint.nbytes / room.read_bytes_s} if room.read_bytes_s else {}
        told.append((rank, said))
    return min(told, key=lambda one: one[0])[1]


def check_memory(orders: Iterable[Order], workers: Sequence[WorkerStatus]) -> None:
    """RequestError for a pass that fits none of these workers under any plan: what it takes, what is free, what helps.

    One that has the model in memory may draw it, and so may one whose memory is not known.
    """
    for drawn in dict.fromkeys(_drawn(orders)) if workers else ():
        found: list[tuple[Need, Room]] = []
        for worker in workers:
            if not (room := worker.room) or drawn.model.name in worker.models:
                break
            try:
                need = drawn.need(room)
            except (BadFile, OSError):  # said where it is loaded
                break
            if need is None or need.missing(room) <= 0:
                break
            found.append((need, room))
        else:
            need, room = min(found, key=lambda one: one[0].missing(one[1]))
            raise RequestError(need.refusal(drawn.model.name, room), "model")


def check_int8(orders: Iterable[Order], workers: Iterable[WorkerStatus]) -> None:
    """RequestError for a pass in 8 bits where a worker cannot draw one."""
    reasons = (worker.room.no_int8 for worker in workers if worker.room)
    if any(drawn.int8 for drawn in _drawn(orders)) and (reason := next(filter(None, reasons), "")):
        raise RequestError(f"int8: {reason}", "int8", Mend("use", False))


@dataclass(frozen=True)
class _Drawn:
    """What of a pass takes memory; ``rows`` are the prompts at once, ``beside`` the networks that its order has too."""

    model: ModelFile
    lenders: tuple[ModelFile, ...]
    size: Size
    rows: int
    controls: tuple[ControlFile, ...]
    int8: bool
    beside: tuple[File, ...]

    def need(self, room: Room) -> Need | None:
        """Of a worker, None where the file has nothing to go by; raises BadFile and OSError."""
        if self.model.checkpoint is None:
            return None
        step = step_bytes(self.model.checkpoint, self.size, self.rows, room.number_bytes)
        need = _with_controls(need_of(self.model, self.lenders, room, step), self.controls, room)
        need = need.in_int8(room.number_bytes) if self.int8 else need
        return replace(need, beside_bytes=_beside_bytes(self.beside, room))


def _drawn(orders: Iterable[Order]) -> Iterator[_Drawn]:
    for order in orders:
        beside = tuple(file for file in order.files if isinstance(file, BESIDE))
        for stage in order.stages:
            if isinstance(stage, Pass | Detail):
                each = stage if isinstance(stage, Pass) else stage.each
                controls = tuple({use.file: 0 for use in each.controls})
                rows = order.request.count * each.rows
                yield _Drawn(each.model, each.lenders, each.size, rows, controls, each.int8, beside)


def _with_controls(need: Need, controls: Iterable[ControlFile], room: Room) -> Need:
    """Raises BadFile."""
    return replace(need, control_bytes=sum(control_bytes(one, room.number_bytes) for one in controls))


def _beside_bytes(files: Iterable[File], room: Room) -> int:
    """What networks beside the model are yet to take where it computes, by the size of their files; raises OSError.

    Image encoders that rest in their files take next to nothing.
    """
    resting = ImageEncoderFile if rests_in_files(room.device, room.plan) else ()
    wanted = (file for file in files if file.path not in room.beside and not isinstance(file, resting))
    own = [file for file in wanted if room.device == "cpu" or not isinstance(file, ON_CPU)]
    found = (sorted(file.path.rglob("*.safetensors")) if file.path.is_dir() else [file.path] for file in own)
    return sum(path.stat().st_size for paths in found for path in paths)
