"""LoRAs and their strengths -> the model's weights: reads files once, keeps merged sets, says what the switch cost."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import psutil
import torch
from cachetools import LRUCache

from webui.core.block_weights import block_of
from webui.core.events import Loading, LoraSwitch
from webui.core.files import LoraFile
from webui.core.lora_files import find_adapter_config
from webui.core.stages import LoraUse
from webui.core.tensor_file import hash_file
from webui.core.weight_files import hash_whole
from webui.engine.devices import free_bytes
from webui.engine.embeddings import Embedding
from webui.engine.families.base import Conditioning, Steering
from webui.engine.families.model import Model
from webui.engine.lora.cache import Shapes, WeightCache
from webui.engine.lora.names import ModuleIndex
from webui.engine.lora.reading import CannotApply, LoraWeights, read_lora
from webui.engine.lora.sets import Contributions, SetKey, set_key

READ_BYTES = 512 * 2**20
"""Memory for LoRA files that were read, whether their merged weights are kept or not."""


class LoraSwitcher:
    """The LoRAs of one loaded model. ``budget_bytes`` bounds the merged weights; None is a quarter of what is free.

    ``in_place`` is ``WeightCache``'s.
    """

    def __init__(
        self, model: Model, device: torch.device, budget_bytes: int | None = None, in_place: bool = False
    ) -> None:
        self._model, self._device = model, device
        self._index = ModuleIndex(model.components, model.family.parts, model.kind)
        self._read: LRUCache[str, LoraWeights] = LRUCache(READ_BYTES, getsizeof=lambda weights: weights.nbytes)
        self._warnings: dict[str, tuple[str, ...]] = {}
        self._bundled: dict[str, tuple[Embedding, ...]] = {}
        self.embeddings: dict[str, Embedding] = {}
        """What words, in lower case, stand for while the present set is on."""
        host_bytes = psutil.virtual_memory().available // 4 if device.type == "cuda" else 0
        budget_bytes = free_bytes(device) // 4 if budget_bytes is None else budget_bytes
        self.cache = WeightCache(model.components, budget_bytes, host_bytes, device, in_place)

    @property
    def text_key(self) -> Contributions:
        """What of the present set changes the text encoders."""
        return self.cache.text_key

    def is_installed(self, uses: Sequence[LoraUse]) -> bool:
        """Whether the model is already what these make of it."""
        return self.key_of(uses) == self.cache.key

    def key_of(self, uses: Sequence[LoraUse]) -> SetKey:
        """The set that these are, by what their files hold now."""
        return self._key(uses)[0]

    def must_merge(self, uses: Sequence[LoraUse]) -> bool:
        """Whether switching to these would take computing."""
        return self.key_of(uses) not in self.cache

    def merges(self, turns: Sequence[Sequence[LoraUse]]) -> int:
        """How many sets would be merged if these were switched to in turn."""
        keys, files = [], dict[str, LoraFile]()
        for uses in turns:
            key, by_hash = self._key(uses)
            keys.append(key)
            files |= by_hash
        return self.cache.merges(keys, lambda content_hash: self._weights(files[content_hash]))

    @torch.inference_mode()
    def order(
        self,
        turns: Sequence[tuple[Sequence[LoraUse], Sequence[Conditioning], Steering | None]],
        latents: torch.Tensor,
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[Loading]:
        """Before the first step, what a set's first forward would do in its step; yields once where that is something.

        ``turns`` are the LoRAs of each span, merged, with what the model is told then; ``latents`` are those of a step.
        """
        shapes: dict[SetKey, Shapes] = {}
        for uses, told, steering in turns:
            if (key := self.key_of(uses)) not in shapes:
                shapes[key] = self._model.backbone.convolved(told, latents, steering)
        if missing := self.cache.unordered(shapes):
            yield Loading("Preparing the LoRAs for this size", 0.0)
            self.cache.order(missing, check)

    def switch(self, uses: Sequence[LoraUse], check: Callable[[], None] = lambda: None) -> tuple[LoraSwitch, list[str]]:
        """Makes the model what these LoRAs make of it; returns the cost, and warnings for people.

        ``check`` may raise to stop. Raises CannotApply, and after any error the model is without LoRAs.
        """
        key, by_hash = self._key(uses)
        self.embeddings = {}
        how, seconds = self.cache.switch(key, self._reader(key, by_hash), check)
        warnings = [
            f"LoRA {file.name}: {text[:1].lower()}{text[1:]}"
            for content_hash, file in by_hash.items()
            for text in self._warnings.get(content_hash, ())
        ]
        for embedding in (embedding for content_hash, *_ in key for embedding in self._bundled[content_hash]):
            if self.embeddings.setdefault(embedding.name.casefold(), embedding) is not embedding:
                warnings.append(f"Several LoRAs bring an embedding called {embedding.name}; one of them is used.")
        return LoraSwitch(tuple(str(use) for use in uses), how, seconds), warnings

    def prepare(self, uses: Sequence[LoraUse]) -> bool:
        """Merges what the next job wants without installing it; whether it is ready then."""
        key, by_hash = self._key(uses)
        return self.cache.prepare(key, self._reader(key, by_hash))

    def _key(self, uses: Sequence[LoraUse]) -> tuple[SetKey, dict[str, LoraFile]]:
        by_hash: dict[str, LoraFile] = {}
        entries = []
        for use in uses:
            content_hash = _content_hash(use.file)
            by_hash[content_hash] = use.file
            entries.append((content_hash, use.unet, use.text, use.blocks))
        return set_key(entries), by_hash

    def _reader(self, key: SetKey, by_hash: Mapping[str, LoraFile]) -> Callable[[str], LoraWeights]:
        """What gives the weights of a content hash; it raises CannotApply."""
        by_block = {content_hash for content_hash, _, _, blocks in key if blocks}

        def read(content_hash: str) -> LoraWeights:
            file = by_hash[content_hash]
            weights = self._weights(file)
            for component, path, _ in weights.deltas if content_hash in by_block else ():
                if component == "backbone" and not block_of(path):
                    raise CannotApply(file.name, f"changes {path}, which no block of lbw and lbwe has in it")
            return weights

        return read

    def _weights(self, file: LoraFile) -> LoraWeights:
        content_hash = _content_hash(file)
        if (known := self._read.get(content_hash)) is not None:
            return known
        weights = read_lora(file, self._index, self._device)
        if _content_hash(file) != content_hash:
            raise CannotApply(file.name, "was changed while it was read; try again")
        self._warnings[content_hash], self._bundled[content_hash] = weights.warnings, weights.embeddings
        if weights.nbytes <= READ_BYTES:
            self._read[content_hash] = weights
        return weights


def _content_hash(file: LoraFile) -> str:
    """Of the file and of what PEFT says beside it."""
    try:
        config = find_adapter_config(file.path)
        own = hash_file(file.path).content
        return own if config is None else f"{own}-{hash_whole(config)}"
    except OSError as error:
        raise CannotApply(file.name, f"cannot be read: {error.strerror}") from None
