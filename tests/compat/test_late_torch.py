"""A torch whose functions for tensors without numbers are made late comes to be the one that makes them at once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
LATE = """
import sys
from webui.compat.late_torch import LATE, WITH_IT, make_meta_functions, make_meta_functions_late
make_meta_functions_late()
def is_ours(finder):
    return "late_torch" in str(finder)
"""
SAY = """
import json, sys
import torch
names = {name for name in sys.modules if name.startswith("torch.")}
registered = torch._C._dispatch_get_registrations_for_dispatch_key
said = {}
for key in torch._C.DispatchKey.__members__:
    try:
        said[key] = registered(key)
    except RuntimeError:  # a key that stands between others, or for both
        pass
said |= {"modules": [*names], "torch": [*vars(torch)], "operations": torch._C._dispatch_get_all_op_names()}
entries = torch._library.simple_registry.singleton._data
said["lines"] = [f"{name} {kernel.source}" for name, entry in entries.items() for kernel in entry.fake_impl.kernels]
said["generator"] = [type(torch.Generator).__name__]
for kind, table in getattr(sys.modules.get("torch._decomp"), "global_decomposition_table", {}).items():
    said[f"table {kind}"] = [str(operation) for operation in table]
print(json.dumps({kind: sorted(names) for kind, names in said.items()}))
"""


def run(program: str) -> str:
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def said_by(program: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(run(program + SAY))
    return found


@pytest.fixture(scope="module")
def whole() -> dict[str, list[str]]:
    return said_by("import torch.utils._device")


@pytest.mark.parametrize(
    "asks",
    [
        "make_meta_functions()",
        pytest.param("import torch._meta_registrations", marks=pytest.mark.slow),
        "import torch._decomp",
        pytest.param("import torch._refs.special", marks=pytest.mark.slow),
        "from torch._prims import view_of",
        pytest.param("from torch import _refs", marks=pytest.mark.slow),
        pytest.param("torch._decomp.decomposition_table", marks=pytest.mark.slow),
        pytest.param(
            "import importlib; importlib.import_module('torch._decomp.decompositions')", marks=pytest.mark.slow
        ),
    ],
)
def test_whoever_asks_for_a_part_gets_all(whole: dict[str, list[str]], asks: str) -> None:
    assert said_by(f"{LATE}\nimport torch\nassert LATE not in sys.modules\n{asks}\n") == whole


def test_what_is_not_there_is_for_tensors_without_numbers_alone(whole: dict[str, list[str]]) -> None:
    late: dict[str, Any] = said_by(f"{LATE}\nimport torch\n")
    kinds = whole.keys() & late.keys() - {"modules", "torch", "operations", "lines", "Meta"}
    assert late["lines"] and set(late["lines"]) < set(whole["lines"])
    assert len(kinds) > 50 and len(whole["Meta"]) > len(late["Meta"]) + 500
    for kind in kinds:
        different = set(whole[kind]) ^ set(late[kind])
        missing = {name for name in different if not name.partition("::")[0].endswith("prims")}
        assert missing == ({"aten::linalg_lu_solve.out"} if kind == "MPS" else set())  # macOS has all at once


@pytest.mark.parametrize(
    "asks",
    [
        "import torch.utils.flop_counter",
        pytest.param("import torch._dynamo", marks=pytest.mark.slow),
        pytest.param("import torch._inductor.compile_fx", marks=pytest.mark.slow),
    ],
)
def test_they_are_there_before_the_compiler_and_all_that_is_imported_later(asks: str) -> None:
    late = said_by(f"{LATE}\nimport torch\n{asks}\nassert LATE in sys.modules")
    assert late == said_by(f"import torch.utils._device\n{asks}\n")


def test_shapes_without_numbers_and_parts_that_need_them() -> None:
    program = f"""{LATE}
import torch
from torch import nn
assert torch.broadcast_shapes((2, 1), (1, 3)) == (2, 3)
x = torch.empty(1, 4, 8, 8, device="meta")
assert nn.Conv2d(4, 6, 3, device="meta")(x).shape == (1, 6, 6, 6)
try:
    torch.nothing_of_the_kind
except AttributeError as error:
    print(error)
"""
    assert run(program) == "module 'torch' has no attribute 'nothing_of_the_kind'\n"


def test_a_network_that_calculates_while_it_is_built_is_built() -> None:
    program = f"""{LATE}
import torch
from webui.engine.weights import build_empty
from torch import nn
class Plain(nn.Linear): ...
class Odd(nn.Linear):
    def __init__(self):
        super().__init__(4, 6)
        self.bias = nn.Parameter(torch.var_mean(self.weight, 1)[0])
assert build_empty(lambda: Plain(2, 3)).weight.is_meta and LATE not in sys.modules
built = build_empty(Odd)
assert built.bias.is_meta and built.bias.shape == (6,) and LATE in sys.modules
"""
    assert run(program) == ""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import torch", ""),
        ("import webui.compat.late_torch as late; late.version = lambda name: '2.14.0'", ""),
        ("import sys; sys.platform = 'darwin'", "sys.platform = 'linux'"),
    ],
)
def test_it_is_left_alone_where_it_is_there_or_another(before: str, after: str) -> None:
    all_at_once = "assert not [*filter(is_ours, sys.meta_path)]\nimport torch\nassert LATE in sys.modules"
    run(f"{before}\n{LATE}\n{after}\n{all_at_once}")


def test_a_picture_does_not_need_them(tmp_path: Path) -> None:
    program = f"""
import sys
import webui.cli as cli
flags = ["--model=demo", "--prompt=a red apple", "--steps=2", "--data-dir", {str(tmp_path)!r}]
assert cli.main(["generate", *flags]) == 0
without = ("torch._meta_registrations", "torch._decomp", "torch._refs", "torch._prims")
print([name for name in without if name in sys.modules])
"""
    assert run(program).splitlines()[-1] == "[]"
