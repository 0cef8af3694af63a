"""torch without what tells the shapes of results that have no numbers, until somebody asks for it."""

import inspect
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError
from types import ModuleType
from typing import Any
from unittest.mock import patch

from webui.compat import version

LATE = "torch._meta_registrations"
WITH_IT = ("torch._decomp", "torch._prims", "torch._refs")
"""Parts of torch that are imported for ``LATE`` alone, which has to be the first of them."""
CONTEXT = "torch.utils._device"
"""What torch imports itself when a device is a context, as where networks are made."""


def make_meta_functions_late() -> None:
    """torch 2.13, to be imported: makes 800 functions for tensors on its device ``meta``, which have a shape and no
    numbers, and for its compiler. It is a third of what its own modules take, and no picture needs one.

    They are made once one more module of torch is imported, or a part of ``WITH_IT`` is asked for, as its compiler
    does. What calculates on ``meta`` calls ``make_meta_functions``: torch says NotImplementedError where it has none.
    All is as ever where torch is there already, is another version, or is for macOS: a solver of its is made with them.
    """
    if "torch" in sys.modules or _Torch in sys.meta_path:
        return
    with suppress(PackageNotFoundError):
        if sys.platform != "darwin" and version("torch").startswith("2.13."):
            sys.meta_path.insert(0, _Torch)


def make_meta_functions() -> None:
    """Makes them, where that was left for later."""
    with suppress(ModuleNotFoundError), _lines_alone():  # a torch that has no such module
        import_module(LATE)


class _Torch(PathFinder):
    """Has torch imported without ``LATE``."""

    @classmethod
    def find_spec(cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        """Python's own hook: how this module is imported; None where others know."""
        spec = super().find_spec(fullname, path, target) if fullname == "torch" else None
        if spec and spec.loader:
            loader: Any = spec.loader

            def execute(module: ModuleType) -> None:
                del loader.exec_module  # its class has one
                sys.meta_path.remove(cls)
                _import_torch(module, partial(loader.exec_module, module))

            loader.exec_module = execute
        return spec


def _import_torch(torch: ModuleType, execute: Callable[[], None]) -> None:
    sys.modules[LATE] = ModuleType(LATE)
    try:
        with _lines_alone():
            execute()
    finally:
        del sys.modules[LATE]
    parts = vars(torch)
    del parts["_meta_registrations"]
    import_module(CONTEXT)
    # what a module of theirs does beside them, without which there is no generator
    parts["_C"]._set_generator_metaclass(parts["_opaque_base"].OpaqueBaseMeta)
    others = parts["__getattr__"]

    def part(name: str) -> Any:
        return import_module(f"torch.{name}") if f"torch.{name}" in (LATE, *WITH_IT) else others(name)

    parts["__getattr__"] = part
    sys.meta_path.insert(0, _More())


class _More(MetaPathFinder):
    """Has ``LATE`` imported before one more module of torch."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        """Python's own hook: how this module is imported, which may be done then; None where others know."""
        if not fullname.startswith("torch.") or fullname == LATE or LATE in sys.modules:
            return None
        make_meta_functions()
        return _as_it_is(sys.modules[fullname]) if fullname in sys.modules else None


def _lines_alone() -> AbstractContextManager[Any]:
    """torch 2.13, to be imported: asks ``inspect`` in which file and line a function is registered, which looks through
    the files of all modules first, 0.05 s, for the text of the line."""
    theirs = inspect.getframeinfo

    def told(frame: Any, context: int = 1) -> Any:
        if sys._getframe(1).f_globals.get("__name__") != "torch._library.utils":
            return theirs(frame, context)
        return inspect.Traceback(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, None, None)

    return patch("inspect.getframeinfo", told)


def _as_it_is(module: ModuleType) -> ModuleSpec | None:
    """How this module was imported; to import it once more leaves it as it is."""
    loader: Any = module.__spec__ and module.__spec__.loader

    def leave(module: ModuleType) -> None:
        del loader.create_module, loader.exec_module  # its class has both

    loader.create_module = lambda _: module
    loader.exec_module = leave
    return module.__spec__
