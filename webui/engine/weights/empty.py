"""Networks without memory, to be filled from files."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from webui.compat.late_torch import make_meta_functions

Module = TypeVar("Module", bound=nn.Module)

FILLING = frozenset({"kaiming_uniform_", "xavier_uniform_", "uniform_", "normal_", "trunc_normal_", "fill_", "zero_"})
"""Functions of torch that networks put their first numbers into weights with."""


def build_empty(make: Callable[[], Module]) -> Module:
    """The module that ``make`` makes, without memory."""

    def build() -> Module:
        with torch.device("meta"), _NoNumbers():
            return make().eval().requires_grad_(False)

    try:
        return build()
    except NotImplementedError:  # it calculates, and torch has not got all that is needed without numbers
        make_meta_functions()
        return build()


class _NoNumbers(TorchFunctionMode):
    """Leaves out what would put numbers into tensors without memory: half of the time that building takes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """torch's own hook: each of its functions, with what it is called with."""
        if func.__name__ in FILLING:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **(kwargs or {}))
