"""How a process of ours begins and ends without waste."""

import atexit
import ctypes
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

MANY = 10_000
"""Objects: from so many on, looking through them takes longer than a hundredth of a second."""

IN_C = ("asyncio", "multiprocessing.connection", "queue", "sqlite3", "ssl", "subprocess", "yaml")
"""Modules with parts in C that ``webui.app`` imports. The system loads one library at a time: they would wait for
torch's, and hold Python meanwhile."""


@contextmanager
def importing() -> Iterator[None]:
    """Imports without the garbage collector: it looks through everything that is there again and again, a tenth of the
    time, and finds nothing.

    Where much has come, it is left out of the later rounds too (``gc.freeze``), which would stop all threads for 0.2 s.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if gc.get_count()[0] > MANY:
            gc.freeze()
        gc.enable()


@cache
def load_torch_ahead() -> None:
    """Has another thread load torch's largest library, once: 0.2 s of work that the import of torch finds done.

    The C library is called for it as any other: unlike ``import`` and ``ctypes.CDLL`` that lets Python go on meanwhile.
    The libraries are those that torch asks for first, in its order. On Linux alone; elsewhere nothing happens.
    """
    torch = find_spec("torch") if sys.platform == "linux" else None
    if torch and torch.origin:
        for name in IN_C:
            import_module(name)
        libraries = Path(torch.origin).with_name("lib")
        threading.Thread(target=_load, args=(libraries,), name="libraries", daemon=True).start()


def _load(libraries: Path) -> None:
    load = ctypes.CDLL(None).dlopen
    load.argtypes, load.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
    load(os.fsencode(libraries / "libtorch_global_deps.so"), os.RTLD_LAZY | os.RTLD_GLOBAL)
    load(os.fsencode(libraries / "libtorch_cpu.so"), os.RTLD_LAZY)


def exit_process(status: int) -> NoReturn:
    """Ends the process now that all is written and closed.

    Python would take half a second and more to take everything apart, and ends in a crash where a thread is still at
    work in torch.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
