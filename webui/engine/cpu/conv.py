"""3 x 3 convolutions with their weights in the order that oneDNN computes with, or by ``winograd``."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

import psutil
import torch
from torch import nn
from torch.nn import functional

from webui.engine.cpu import winograd
from webui.engine.devices import trim_heap
from webui.engine.weights.layers import StoredConv2d

LARGE_BYTES = 2**20
"""A weight of so many bytes is not kept twice; putting smaller ones in order again is more work than it is worth."""
LOW_MEMORY_ORDERS = 2  # the warm-up's, and that of the size that is drawn
RESULTS = 32
"""Of a convolution with a small weight, computed at once on each thread: no less than oneDNN's own blocks of them."""
TRIM_AFTER_BYTES = 64 * 2**20
"""Of weights that were let go of. The next copy does not fit into the hole that glibc keeps of one of the same size."""
ROOM_BYTES = 2 * 2**30
"""With so much memory free, a weight that is put in a further order is kept: sizes change, and time counts more."""

STATE = ("_of", "_version", "_packed", "_packed_for", "_orders", "_rounded")

HAS_ONEDNN = torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64")


@dataclass(frozen=True)
class Ordered:
    """A weight with its ordered copy, which is for one shape of input and one padding."""

    weight: torch.Tensor
    packed: Any
    packed_for: tuple[torch.Size, tuple[int, ...]]

    @property
    def nbytes(self) -> int:
        """Of the copy."""
        return self.weight.nbytes


class PackedConv2d(nn.Conv2d):
    """A convolution whose weight is kept, on the CPU, in the order that oneDNN computes with.

    torch gives oneDNN the weight as it is, and oneDNN puts it in order in each call: a third of a UNet's time. The
    ordered copy belongs to one tensor and one shape of input: where another tensor takes its place (a LoRA's), or an
    input has another shape, it is made anew, unless an ``exchange`` brings one back. The order changes no result, but
    with AVX2 a step can take ten times as long in another shape's.

    Large ones in float32 take ``winograd``'s way, for which the weight stays as it is.

    With ``low_memory`` it keeps a large weight in the ordered copy alone: the weight's storage is empty until it has
    been put in several orders and there is room for both, or until somebody asks for the weight. All of torch's ways to
    it (the attribute, parameters, state dicts, moving, copying, saving) go by ``weight`` or ``_parameters``, or are
    below; they find its numbers, and the weight keeps them from then on.
    """

    low_memory = False
    _orders = 0
    padding: tuple[int, ...]
    _of: torch.Tensor | None = None
    _version = 0
    _packed: Any = None
    _packed_for: tuple[torch.Size, tuple[int, ...]] | None = None

    @staticmethod
    def suits(convolution: nn.Conv2d) -> bool:
        """Whether it is one that this class can stand for: all that the networks have but those of 1 x 1."""
        plain = {"kernel_size": (3, 3), "dilation": (1, 1), "groups": 1, "padding_mode": "zeros"}
        return all(getattr(convolution, name) == value for name, value in plain.items())

    def forward(
        self, input: torch.Tensor, padding: tuple[int, ...] | None = None, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(n, in, h, w) to (n, out, h', w'), both channels-last; ``padding`` and ``bias``, if given, instead of its
        own."""
        padding = self.padding if padding is None else padding
        bias = parameter_of(self, "bias") if bias is None else bias
        if not self.packs:
            return functional.conv2d(input, self.weight, bias, self.stride, padding)
        if torch.compiler.is_compiling():
            output: torch.Tensor = torch.ops.darkroom.packed_conv(input, self.weight, bias, self.stride, padding)
            return output
        weight = parameter_of(self, "weight")
        if winograd.suits(input, weight, self.stride):
            self._refill()
            self._packed = None
            return winograd.convolve(input, weight, bias, padding)
        self.hold()
        return _convolve(input, self.pack(input.shape, padding), bias, self.stride, padding)

    @property
    def packs(self) -> bool:
        """Whether the weight is where, and in a format in which, an ordered copy helps."""
        weight = parameter_of(self, "weight")
        return weight.device.type == "cpu" and convolves(weight.dtype)

    def order(self, weight: torch.Tensor, shape: torch.Size) -> Ordered | None:
        """A copy for inputs of that shape of a weight that may take the present one's place, if one would be used."""
        if not self.orders(shape):
            return None
        return Ordered(weight, _pack(weight, self.stride, self.padding, shape), (shape, self.padding))

    def orders(self, shape: torch.Size) -> bool:
        """Whether it computes with an ordered copy for inputs of that shape."""
        weight = parameter_of(self, "weight")
        return self.packs and not winograd.suits(weight.new_empty(1).expand(shape), weight, self.stride)

    def is_ordered(self, shape: torch.Size) -> bool:
        """Whether it has the present weight's ordered copy for inputs of that shape."""
        self.hold()
        return self._packed is not None and self._packed_for == (shape, self.padding)

    def hold(self) -> None:
        """Has the present weight be the one to order, found by its address from then on."""
        weight = parameter_of(self, "weight")
        version = version_of(weight)
        if self._of is not None and self._of.data_ptr() == weight.data_ptr() and self._of.dtype == weight.dtype:
            if version != self._version:
                self._version, self._packed = version, None
            return
        if self._of is not None:
            self.unpack()  # the tensor in its place is somebody else's, who keeps it
        self._of = weight.data  # held, so that no other tensor gets its address
        self._version = version
        _BY_ADDRESS[self._of.data_ptr()] = self

    def pack(self, shape: torch.Size, padding: Sequence[int]) -> Any:
        """The ordered copy of the weight that is held, for inputs of that shape with that padding."""
        if self._packed is None or self._packed_for != (shape, tuple(padding)):
            _HOLES.add(0 if self._packed is None else parameter_of(self, "weight").nbytes)
            self._refill()
            self._orders += 1
            if self._orders > LOW_MEMORY_ORDERS and psutil.virtual_memory().available > ROOM_BYTES:
                self.__dict__.pop("low_memory", None)
            self._packed = None  # its memory first
            self._packed = _pack(self._of, self.stride, padding, shape)
            self._packed_for = (shape, tuple(padding))
            self._empty()
        return self._packed

    def keep(self) -> None:
        """The weight has its numbers again, and keeps them beside its ordered copy from now on."""
        self.__dict__.pop("low_memory", None)
        self._refill()

    def unpack(self) -> None:
        """Lets go of the ordered copy, and keeps nothing but what a plain convolution has."""
        self.keep()
        self._forget_address()
        for name in STATE:
            self.__dict__.pop(name, None)

    def exchange(self, weight: torch.Tensor, ordered: Ordered | None = None) -> Ordered | None:
        """Puts another weight in the place of the present one; gives that one's ordered copy, if it has one.

        ``ordered`` is what an exchange before gave for the new one, in which nobody has written since.
        """
        parameter, former = parameter_of(self, "weight"), None
        if parameter.data_ptr() == weight.data_ptr() and parameter.dtype == weight.dtype:
            return None
        if self._of is not None:
            is_present = self._of.data_ptr() == parameter.data_ptr() and self._version == version_of(parameter)
            if is_present and self._packed is not None and self._packed_for is not None:
                former = Ordered(self._of, self._packed, self._packed_for)
            self.unpack()
        parameter.data = weight
        if (
            ordered is not None
        ):  # past nn.Module's way to set attributes: all of a network's are exchanged within a step
            self.__dict__.update(_of=ordered.weight, _packed=ordered.packed, _packed_for=ordered.packed_for)
            self.__dict__["_version"] = version_of(parameter)
            _BY_ADDRESS[weight.data_ptr()] = self
        return former

    def __getattr__(self, name: str) -> Any:
        """What torch keeps apart from other attributes; of it, the weight may be read."""
        if name == "weight":
            self.keep()
        return super().__getattr__(name)

    @property
    def _parameters(self) -> dict[str, nn.Parameter | None]:
        """torch's own attribute; what is in it may be read."""
        self.keep()
        parameters: dict[str, nn.Parameter | None] = self.__dict__["_parameters"]
        return parameters

    @_parameters.setter
    def _parameters(self, parameters: dict[str, nn.Parameter | None]) -> None:
        self.__dict__["_parameters"] = parameters

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """For moving and changing formats: the ordered copy is of the weight as it was."""
        self.unpack()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and files: the weight, without its ordered copy."""
        self.keep()
        return {name: value for name, value in self.__dict__.items() if name not in STATE}

    def _empty(self) -> None:
        if not self.low_memory or self._of is None or self._of.nbytes < LARGE_BYTES or not _gives_back(self._of.dtype):
            return
        storage = self._of.untyped_storage()
        if storage.nbytes() == self._of.nbytes:  # nobody else's
            self._forget_address()
            storage.resize_(0)
            _HOLES.add(self._of.nbytes)

    def _refill(self) -> None:
        if self._of is None or self._of.untyped_storage().nbytes():
            return
        with torch.inference_mode():
            numbers = self._packed.to_dense()  # first: where memory ends here, nothing is half done
            self._of.untyped_storage().resize_(self._of.nbytes)
            self._of.copy_(numbers)
        _BY_ADDRESS[self._of.data_ptr()] = self

    def _forget_address(self) -> None:
        if self._of is not None and _BY_ADDRESS.get(self._of.data_ptr()) is self:
            del _BY_ADDRESS[self._of.data_ptr()]


class StoredPackedConv2d(StoredConv2d):
    """What a ``PackedConv2d`` has with the dense weight, which is made for each forward, some results' at a time.

    So few stay in the processor's cache while they are made dense, put in order and computed with, and no memory is
    taken anew for them, which costs more than all the rest.
    """

    def _convolve(self, input: torch.Tensor) -> torch.Tensor:
        if input.device.type != "cpu" or not convolves(input.dtype):
            return super()._convolve(input)
        assert isinstance(self.padding, tuple)
        if winograd.suits(input, input.new_empty(1).expand(self.stored.shape), self.stride):
            return winograd.convolve(input, self._dense(input), self.bias, self.padding)
        if isinstance(self.changed, torch.Tensor):
            return self._ordered(input, self._dense(input), self.bias)
        rows, out = RESULTS * torch.get_num_threads(), None
        for number, weight in enumerate(self.stored.in_turn(rows, input.dtype)):
            part = slice(number * rows, number * rows + len(weight))
            made = self._ordered(input, weight, None if self.bias is None else self.bias[part])
            if len(weight) == self.out_channels:
                return made
            if out is None:
                shape = (len(made), self.out_channels, *made.shape[2:])
                out = torch.empty(shape, dtype=made.dtype, memory_format=torch.channels_last)
            out[:, part] = made
        assert out is not None
        return out

    def _ordered(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        assert isinstance(self.padding, tuple)
        packed = _pack(weight, self.stride, self.padding, input.shape)
        return _convolve(input, packed, bias, self.stride, self.padding)


class _Holes:
    """What was let go of since the heap was last trimmed."""

    def __init__(self) -> None:
        self._nbytes = 0

    def add(self, nbytes: int) -> None:
        """So many more bytes; from ``TRIM_AFTER_BYTES`` on the system gets them back."""
        self._nbytes += nbytes
        if self._nbytes >= TRIM_AFTER_BYTES:
            self._nbytes = 0
            trim_heap()


_HOLES = _Holes()


def parameter_of(module: nn.Module, name: str) -> nn.Parameter:
    """The parameter as it is: that of a convolution of low memory may have no numbers, and must not be read then."""
    parameter: nn.Parameter = module.__dict__["_parameters"][name]
    return parameter


def version_of(weight: torch.Tensor) -> int:
    """Grows as the weight is written to in its place."""
    return 0 if weight.is_inference() else weight._version


@cache
def convolves(dtype: torch.dtype) -> bool:
    """Whether oneDNN convolves this format on this processor."""
    if not HAS_ONEDNN:
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return dtype == torch.float32


@cache
def _gives_back(dtype: torch.dtype) -> bool:
    """Whether an ordered copy in this format has the weight's very bits, tried on two weights."""
    generator = torch.Generator().manual_seed(0)
    for out, into in ((64, 32), (17, 33)):
        weight = torch.randn(out, into, 3, 3, generator=generator).to(dtype)
        packed = _pack(weight, (1, 1), (1, 1), (1, into, 16, 16))
        try:
            if not torch.equal(packed.to_dense(), weight):
                return False
        except RuntimeError:  # torch does not do it for this format
            return False
    return True


_BY_ADDRESS: WeakValueDictionary[int, PackedConv2d] = WeakValueDictionary()
"""Who has the ordered copy of the weight at an address; each holds that weight."""


@cache
def define_packed_conv() -> None:
    """Makes a packed convolution one operation, ``darkroom::packed_conv``, which torch.compile leaves as it is.

    Inductor would give oneDNN the unordered weight, or freeze it. The operation finds the ordered copy by the weight
    that it is given, so that code is for any model of the same shapes.
    """
    torch.library.define(
        "darkroom::packed_conv", "(Tensor input, Tensor weight, Tensor? bias, int[] stride, int[] padding) -> Tensor"
    )

    @torch.library.impl("darkroom::packed_conv", "CPU")
    def convolve(
        input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: list[int], padding: list[int]
    ) -> torch.Tensor:
        if winograd.suits(input, weight, stride):
            return winograd.convolve(input, weight, bias, padding)
        owner = _BY_ADDRESS.get(weight.data_ptr())
        packed = owner.pack(input.shape, padding) if owner else _pack(weight, stride, padding, input.shape)
        return _convolve(input, packed, bias, stride, padding)

    @torch.library.register_fake("darkroom::packed_conv")
    def shape(
        input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: list[int], padding: list[int]
    ) -> torch.Tensor:
        sides = zip(input.shape[2:], padding, stride, strict=True)
        height, width = ((side + 2 * pad - 3) // step + 1 for side, pad, step in sides)
        return input.new_empty(len(input), height, width, len(weight)).permute(0, 3, 1, 2)


def _pack(weight: Any, stride: Sequence[int], padding: Sequence[int], shape: Sequence[int]) -> Any:
    return torch.ops.mkldnn._reorder_convolution_weight(weight, list(padding), list(stride), [1, 1], 1, list(shape))


def _convolve(
    input: torch.Tensor, packed: Any, bias: torch.Tensor | None, stride: Sequence[int], padding: Sequence[int]
) -> torch.Tensor:
    if torch._C._is_tracing():
        traced: torch.Tensor = for_traces().convolve(input, packed, bias, list(padding), list(stride))
        return traced
    output: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
        input, packed, bias, list(padding), list(stride), [1, 1], 1, "none", [], ""
    )
    return output


@cache
def for_traces() -> Any:
    """Operations in the only form in which ``torch.jit.trace`` takes their arguments."""
    return torch.jit.CompilationUnit("""
def convolve(input: Tensor, packed: Tensor, bias: Optional[Tensor], padding: List[int], stride: List[int]):
    return torch.ops.mkldnn._convolution_pointwise(
        input, packed, bias, padding, stride, [1, 1], 1, "none", [], ""
    )

def linear(input: Tensor, weight: Tensor, bias: Optional[Tensor], then: str, form: str):
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, then, [], form)
""")
