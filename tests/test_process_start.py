"""A process of ours begins without the garbage collector, and has it afterwards."""

import gc
import os
import subprocess
import sys

import pytest

from webui.process import MANY, importing


def test_the_collector_rests_while_modules_are_imported_and_is_back_whatever_happens() -> None:
    with pytest.raises(ImportError), importing():
        with importing():
            assert not gc.isenabled()
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()


def test_what_came_in_large_numbers_is_not_looked_through_again() -> None:
    before = gc.get_freeze_count()
    with importing():
        few = [[] for _ in range(10)]
    assert gc.get_freeze_count() == before and few
    try:
        with importing():
            many = [[] for _ in range(2 * MANY)]
        assert gc.get_freeze_count() - before > len(many)
    finally:
        gc.unfreeze()


LATER = """
import importlib.machinery, os, sys
import webui.cli.generate
from webui.process import load_torch_ahead
load_torch_ahead()
before = set(sys.modules)
import webui.app
late = [sys.modules[name] for name in set(sys.modules) - before]
endings = tuple(importlib.machinery.EXTENSION_SUFFIXES)
print(*(module.__name__ for module in late if (getattr(module, "__file__", "") or "").endswith(endings)), flush=True)
os._exit(0)  # whatever the thread is at
"""


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is loaded ahead elsewhere")
def test_no_library_has_to_wait_for_torchs() -> None:
    run = subprocess.run([sys.executable, "-c", LATER], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


LIBGOMP = """
import ctypes, importlib.util, pathlib
import webui
torch = pathlib.Path(importlib.util.find_spec("torch").origin).parent
(library,) = [*torch.glob("lib/libgomp*"), *torch.parent.glob("torch.libs/libgomp*")]
ctypes.CDLL(str(library))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="torch's builds have other libraries for threads there")
@pytest.mark.parametrize(
    ("set_by_hand", "rounds"),
    [({}, "5000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "active"}, "30000000000")],
)
def test_threads_wait_briefly_with_the_processor_in_hand_unless_somebody_says_otherwise(
    set_by_hand: dict[str, str], rounds: str
) -> None:
    """What torch's libgomp says that it goes by, once it is loaded."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    variables = {name: value for name, value in os.environ.items() if name not in names} | set_by_hand
    run = subprocess.run(
        [sys.executable, "-c", LIBGOMP],
        env=variables | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"GOMP_SPINCOUNT = '{rounds}'" in run.stderr
