"""An order's stages, one behind the other, for each batch of its pictures."""

from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import partial

import torch
from PIL.Image import Image as PilImage

from webui.core.canvas import begun_again
from webui.core.events import Image
from webui.core.files import FinderFile
from webui.core.finder_file import RUNTIME
from webui.core.images import FILTER
from webui.core.recipe import Batch, Recipe
from webui.core.stages import Detail, Pass, Upscale, steps_of
from webui.core.weight_files import hash_whole
from webui.engine.encoding import Encoder
from webui.engine.finders.network import Finders
from webui.engine.latents import cut_of_enlarged, enlarge, make_generators
from webui.engine.passes import Drawn, Passes
from webui.engine.provenance import describe_environment, versions
from webui.engine.residence import Residence
from webui.engine.run import Place, Run
from webui.engine.stages.detail import Detailer
from webui.engine.stages.upscale import Enlarger
from webui.engine.together import Said


class Drawing:
    """One try at an order; goes on behind the pictures that ``run`` has finished already."""

    def __init__(self, residence: Residence, encoder: Encoder, enlarger: Enlarger, finders: Finders, run: Run) -> None:
        self._residence, self._enlarger, self._run = residence, enlarger, run
        self._passes = Passes(residence, encoder, run)
        self._detailer = Detailer(finders, self._redraw, run)

    def draw(self) -> Iterator[Said]:
        """Everything from loading to the last picture."""
        order, request = self._run.order, self._run.order.request
        end = order.finished // request.count + order.batches
        for batch in range(self._run.finished // request.count, end):
            first, behind = batch * request.count, batch * self._run.batch_steps
            seeds = (request.picture(first + k).seed for k in range(request.count))
            drawn = Drawn(make_generators(seeds), first)
            self._detailer.begin()
            self._run.compiled = set()
            for stage in self._run.order.stages:
                if isinstance(stage, Upscale):
                    yield from self._upscale(stage, drawn, behind)
                elif isinstance(stage, Detail):
                    yield from self._detail(stage, drawn, behind)
                elif stage.begin in ("drawn", "latents"):
                    yield from self._again(stage, drawn, behind)
                else:
                    yield from self._passes.draw(stage, drawn, Place(behind))
                behind += steps_of(stage)
            yield from self._finish(drawn)

    def _again(self, stage: Pass, drawn: Drawn, behind: int) -> Iterator[Said]:
        """The batch's pictures, each drawn again by itself, ``behind`` steps after the start."""
        latents, count, made = self._enlarged(stage, drawn), len(drawn.generators), []
        is_whole = latents is not None and not (stage.init and stage.init.masked)
        pictures = [None] * count if is_whole else list(self._passes.finished(drawn))
        cut = None if latents is None else cut_of_enlarged(drawn.size, stage.size, self._passes.latent_scale)
        for number, picture in enumerate(pictures):
            if picture and cut:
                picture = picture.resize(stage.size, FILTER, cut)
            init = begun_again(picture, self._run.order.passes[0], cut) if picture else None
            own = None if latents is None else latents[number : number + 1]
            again = replace(stage, begin="picture" if own is None else "latents", init=init)
            place = Place(behind, number, count)
            made.append((yield from self._redraw(again, drawn.first + number, place, own)))
        drawn.pictures = made

    def _enlarged(self, stage: Pass, drawn: Drawn) -> torch.Tensor | None:
        """The latents that a pass begins from; None where it begins from pictures, or where nothing was drawn."""
        if stage.begin != "latents" or drawn.latents is None:
            return None
        return enlarge(drawn.latents, drawn.size, stage.size, stage.enlarged_by, self._passes.latent_scale)

    def _redraw(
        self, stage: Pass, number: int, place: Place, latents: torch.Tensor | None = None
    ) -> Generator[Said, None, PilImage]:
        """One picture, ``number`` in its job, as the pass draws it from its ``init``, or from latents, with noise of
        its own seed."""
        drawn = Drawn(make_generators([self._run.order.request.picture(number).seed]), number, latents)
        yield from self._passes.draw(stage, drawn, place, keep=False)
        (picture,) = self._passes.finished(drawn)
        return picture

    def _detail(self, stage: Detail, drawn: Drawn, behind: int) -> Iterator[Said]:
        """The batch's pictures, in each of which parts are drawn again; ``behind`` as for a pass."""
        drawn.pictures = list(self._passes.finished(drawn))
        for number in range(len(drawn.pictures)):
            place = Place(behind, number, len(drawn.pictures))
            picture = yield from self._detailer.draw(stage, drawn.pictures, number, drawn.first, place)
            drawn.pictures[number] = picture

    def _upscale(self, stage: Upscale, drawn: Drawn, behind: int) -> Iterator[Said]:
        """The batch's pictures, enlarged one after the other; ``behind`` as for a pass."""
        run = self._run
        if stage.file:
            run.hashes.want("upscaler", stage.file.name, partial(hash_whole, stage.file.path))
        pictures = [stage.init.image] if stage.init else list(self._passes.finished(drawn))
        drawn.pictures = []
        for number, picture in enumerate(pictures):
            enlarging = self._enlarger.enlarge(picture, stage, run.check)
            while True:
                with run.part("upscale"):
                    try:
                        done = (number + next(enlarging)) / len(pictures)
                    except StopIteration as stop:
                        drawn.pictures.append(stop.value)
                        break
                yield run.step(stage, Place(behind), done)

    def _finish(self, drawn: Drawn) -> Iterator[Image]:
        """The batch as pictures with their recipes; those that were finished before memory ran out are left out."""
        run, first = self._run, drawn.first
        begin = max(run.finished - first, 0)
        for k, image in enumerate(self._passes.finished(drawn, begin), start=begin):
            run.finished = first + k + 1
            yield Image(first + k, image, self._make_recipe(first, k))

    def _make_recipe(self, first: int, k: int) -> Recipe:
        run, request = self._run, self._run.order.request
        with run.part("hash"):
            hashes, warnings = run.hashes.collect()
        run.warn(*warnings)
        batch = Batch(request.picture(first).seed, request.count, k)
        found = self._detailer.take(first + k)
        return Recipe(request.picture(first + k), hashes, batch, run.sampler, self._environment(), found=found)

    def _environment(self) -> dict[str, str | int | bool | None]:
        """What the pixels may depend on; where nothing is drawn, that is the CPU, which enlarges in float32."""
        run, home = self._run, self._residence
        if not run.order.passes:
            return describe_environment(torch.device("cpu"), torch.float32)
        compiled = "partly" if len(run.compiled) > 1 else True in run.compiled
        return describe_environment(home.device, home.dtype, home.options.cpu_kernels) | {
            "compiled": compiled,
            "memory": home.plan,
            "decoded": run.decoded,
            **({"together": run.together} if run.together > 1 else {}),
            **({"weights": home.small_weights} if home.small_weights else {}),
            **(versions(RUNTIME) if any(isinstance(file, FinderFile) for file in run.order.files) else {}),
        }
