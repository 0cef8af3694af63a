"""Who may import whom (CONTRIBUTING.md, "The tree"), read from the imports themselves."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
EVERYTHING = {
    *("webui", "compat", "process", "core", "library", "workspace", "interop", "engine", "jobs", "ui", "api", "cli"),
    *("app", "darkroom", "doctor", "setup", "languages"),
}

FRONT = {"webui", "core", "library", "workspace", "interop", "jobs"}

# layer -> the layers it may import at any time, and those it may import only inside a function. "webui" is the package
# itself, for its version; what Python programs import from it is looked up when it is asked for.
MAY_IMPORT: dict[str, tuple[set[str], set[str]]] = {
    "webui": (set(), {"core", "darkroom"}),
    "__main__": ({"cli"}, set()),
    "compat": ({"compat"}, set()),
    "process": (set(), set()),
    "setup": ({"setup"}, set()),
    "languages": ({"webui", "languages"}, set()),
    "core": ({"webui", "core"}, set()),
    "library": ({"webui", "core", "library"}, set()),
    "workspace": ({"webui", "core", "workspace"}, set()),
    "interop": ({"webui", "core", "library", "interop"}, set()),
    "engine": ({"webui", "compat", "core", "engine"}, set()),
    "jobs": ({"webui", "process", "core", "library", "workspace", "jobs"}, {"engine"}),
    "ui": ({*FRONT, "compat", "languages", "ui"}, set()),
    "api": ({*FRONT, "languages", "api"}, set()),
    "cli": ({*FRONT, "process", "cli"}, {"app", "doctor"}),
    "darkroom": ({"webui", "core", "library", "jobs"}, {"engine"}),
    "doctor": ({"webui", "core", "library", "setup"}, {"engine"}),
    "app": (EVERYTHING, set()),
}
# What fronts know of the room that runs jobs.
PROTOCOLS = "webui.jobs.protocols"
# All that a network in plain torch knows: no file, no family, and nothing of what computes it faster.
PLAIN_TORCH = ("webui.engine.nets", "webui.engine.speed.shortcuts")
# Import names -> who may have them. The doctor is the one exception: it says which device torch finds, and imports it
# inside the function that does, so that `webui doctor` can still say that torch is missing.
OWNERS: dict[str, set[str]] = {
    "gradio": {"ui"},
    "gradio_client": set(),
    "ray": {"jobs"},
    **dict.fromkeys(("torch", "diffusers", "safetensors", "spandrel"), {"engine", "doctor"}),
    "onnxruntime": {"engine", "core", "doctor"},
    "transformers": {"engine"},
    **dict.fromkeys(("torchvision", "onnx", "training", "benchmarks", "tests"), set()),
}
# What only some families of models need: imported inside the functions of their rows, so that others do not pay for it.
WAITS = ("transformers", "spandrel", "onnxruntime")


@dataclass(frozen=True)
class Import:
    """``module`` imports ``target``; ``lazy`` where that waits for a function, or is for type checkers only."""

    module: str
    target: str
    lazy: bool


def layer_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "webui"


@functools.cache
def read_imports(root: Path) -> list[Import]:
    """Every import of every module of the package below ``root``."""
    files = sorted((root / "webui").rglob("*.py"))
    modules = {}
    for file in files:
        parts = list(file.relative_to(root).with_suffix("").parts)
        modules[file] = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    known = set(modules.values())
    found = []
    for file, module in modules.items():
        tree = ast.parse(file.read_text("utf-8"), str(file))
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        for node, lazy in _walk(tree, False):
            found += [Import(module, target, lazy) for target in _targets(node, package, known)]
    return found


def _walk(node: ast.AST, lazy: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        inside = inside or isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        yield child, inside
        yield from _walk(child, inside)


def _targets(node: ast.AST, package: str, known: set[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        return [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
    if isinstance(node, ast.Call) and re.search(r"(^|\.)(import_module|__import__)$", ast.unparse(node.func)):
        return [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
    return []


def violations(root: Path) -> list[str]:
    """What breaks the rules, one line each."""
    broken = []
    for found in read_imports(root):
        layer, top = layer_of(found.module), found.target.split(".")[0]
        line = f"{found.module} imports {found.target}{' lazily' if found.lazy else ''}"
        waits = layer == "doctor" or top in WAITS
        if top in OWNERS and (layer not in OWNERS[top] or waits and not found.lazy):
            broken.append(line)
        if top != "webui":
            continue
        always, lazily = MAY_IMPORT.get(layer, (set(), set()))
        if layer_of(found.target) not in always | (lazily if found.lazy else set()):
            broken.append(line)
        if found.module.startswith("webui.engine.nets") and not found.target.startswith(PLAIN_TORCH):
            broken.append(line)
        if layer in ("ui", "api", "cli", "interop") and layer_of(found.target) == "jobs" and found.target != PROTOCOLS:
            broken.append(line)
    return sorted(set(broken))


# What walks folders or decodes pictures: in a function of the event loop it would keep everybody waiting.
SLOW_CALLS = {"catalog", "submit", "reload", "count_tokens", "draw_texts", "start", "tell_memory"}


def slow_calls(function: ast.AsyncFunctionDef) -> list[str]:
    """The slow calls that the function itself makes, not those that it hands to a thread."""
    found, waiting = [], list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SLOW_CALLS:
            found.append(f"{function.name} calls {ast.unparse(node.func)}")
        waiting += ast.iter_child_nodes(node)
    return found


def test_the_event_loop_waits_for_no_disk():
    trees = [
        ast.parse(file.read_text("utf-8"))
        for part in ("api", "ui")
        for file in (REPOSITORY / "webui" / part).rglob("*.py")
    ]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
    assert functions and [line for function in functions for line in slow_calls(function)] == []
    (wrong,) = ast.parse("async def f():\n    to_thread(lambda: x.catalog())\n    x.catalog()").body
    assert slow_calls(wrong) == ["f calls x.catalog"]


MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60
LONG = re.compile(r"#\s*long: \S")


def too_long(file: str, source: str) -> list[str]:
    """The file, and functions that do not say in a comment before their first statement why they are: ``# long: why``.

    Functions inside count with the one they are in, and for themselves; a function's docstring is no statement.
    """
    lines = source.splitlines()
    found = [f"{file}: {len(lines)} lines, {MAX_FILE_LINES} at most"] if len(lines) > MAX_FILE_LINES else []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        statements = node.body if ast.get_docstring(node) is None else node.body[1:]
        begin = statements[0].lineno - 1 if statements else node.lineno
        reason = LONG.search("\n".join(lines[node.lineno - 1 : begin]))
        length = (node.end_lineno or 0) - node.lineno + 1
        if length > MAX_FUNCTION_LINES and not reason:
            found.append(f"{file}: {node.name} has {length} lines, {MAX_FUNCTION_LINES} at most without `# long: why`")
    return found


def test_files_and_functions_are_short():
    files = [file for part in ("webui", "benchmarks", "training") for file in (REPOSITORY / part).rglob("*.py")]
    sources = {file.relative_to(REPOSITORY).as_posix(): file.read_text("utf-8") for file in files}
    found = {file: too_long(file, source) for file, source in sources.items()}
    assert len(found) > 100
    assert [line for lines in found.values() for line in lines] == []


def test_what_is_too_long_is_named():
    body = "\n".join(f"    x = {number}" for number in range(MAX_FUNCTION_LINES))
    assert too_long("x.py", f"def f():\n{body}") == ["x.py: f has 61 lines, 60 at most without `# long: why`"]
    assert too_long("x.py", f"async def f():\n    pass\n    # long: late\n{body}") != []
    assert too_long("x.py", f"def f(\n    a,\n):  # long: one table\n{body}") == []
    assert too_long("x.py", f"def f():\n    '''Does x.'''\n    # long: one table\n{body}") == []
    assert too_long("x.py", f"def f():\n    '''Does x.'''\n    # long:\n{body}") != []
    assert too_long("x.py", f"def f():\n    def g():\n        pass\n{body}")[0].startswith("x.py: f has 63 lines")
    assert too_long("x.py", "x = 1\n" * (MAX_FILE_LINES + 1)) == ["x.py: 401 lines, 400 at most"]


def test_nobody_imports_what_is_not_theirs_to_import():
    assert violations(REPOSITORY) == []


def test_stand_ins_for_parts_of_libraries_are_in_compat_alone():
    files = [file for file in (REPOSITORY / "webui").rglob("*.py") if "compat" not in file.parts]
    found = [file for file in files if re.search(r"unittest\.mock|\bsys\.modules\b", file.read_text("utf-8"))]
    assert files and found == []


def test_the_set_up_needs_nothing_that_is_installed():
    """launch.py runs it with whatever Python is there."""
    tops = {found.target.split(".")[0] for found in read_imports(REPOSITORY) if layer_of(found.module) == "setup"}
    assert tops and tops <= {"webui", *sys.stdlib_module_names}


def test_the_engine_is_told_all_and_looks_nothing_up():
    """It is given options and orders: what they are made from is none of its business."""
    named = {
        f"{file.relative_to(REPOSITORY)}: {name}"
        for file in (REPOSITORY / "webui/engine").rglob("*.py")
        for name in re.findall(r"\b(Settings|Library|Snapshot|resolve)\b", file.read_text("utf-8"))
    }
    assert named == set()


def test_every_part_of_the_package_has_its_rule():
    assert {layer_of(found.module) for found in read_imports(REPOSITORY)} <= set(MAY_IMPORT)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("core/x.py", "import torch"),
        ("core/x.py", "def f():\n    import gradio"),
        ("core/x.py", "from webui.engine.samplers import SAMPLERS"),
        ("core/x.py", "from webui import engine"),
        ("core/deep/x.py", "from ...engine import manager"),
        ("engine/x.py", "from webui.workspace.outputs import save_picture"),
        ("engine/x.py", "from webui.library.library import Library"),
        ("engine/x.py", "def f():\n    from webui.jobs.resolve import resolve"),
        ("engine/x.py", "import gradio as gr"),
        ("engine/nets/x.py", "from webui.engine.cpu.install import install"),
        ("engine/nets/x.py", "def f():\n    from webui.engine.cpu import conv"),
        ("engine/x.py", "from transformers import CLIPTextModel"),
        ("core/x.py", "def f():\n    from transformers import CLIPTextModel"),
        ("jobs/x.py", "from webui.engine.manager import PipelineManager"),
        ("jobs/x.py", "class A:\n    from ..engine import manager"),
        ("jobs/x.py", "import torch.nn"),
        ("ui/x.py", "from webui.api import jobs"),
        ("ui/x.py", "def f():\n    from webui.jobs.executor import LocalExecutor"),
        ("ui/pages/x.py", "import safetensors"),
        ("api/x.py", "from gradio import Blocks"),
        ("api/x.py", "import webui.ui.form"),
        ("api/x.py", "import importlib\ndef f():\n    importlib.import_module('torch')"),
        ("cli/x.py", "from webui.app import serve"),
        ("cli/x.py", "def f():\n    from webui.engine.manager import PipelineManager"),
        ("app.py", "import gradio"),
        ("app.py", "def f():\n    import torch"),
        ("doctor.py", "import torch"),
        ("doctor.py", "def f():\n    from webui.ui import layout"),
        ("setup/x.py", "from webui.core import request"),
        ("extras/x.py", "from webui.core import request"),
        ("core/x.py", "import training.captions"),
    ],
)
def test_the_rules_catch(tmp_path, file, source):
    for name in ("core", "engine", "jobs", "library", "workspace", "interop", "ui", "api", "cli"):
        (tmp_path / "webui" / name).mkdir(parents=True)
    modules = "engine/__init__ engine/manager engine/samplers jobs/__init__ jobs/executor workspace/outputs api/jobs"
    for name in ("__init__", *modules.split()):
        (tmp_path / "webui" / f"{name}.py").touch()
    path = tmp_path / "webui" / file
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(source)
    module = "webui." + file.removesuffix(".py").replace("/", ".")
    assert [line.split(" imports ")[0] for line in violations(tmp_path)] == [module]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("core/x.py", "from webui import __version__\nfrom webui.core.request import Request"),
        ("engine/x.py", "import torch\nfrom webui.core.request import Request"),
        ("engine/x.py", "def f():\n    from transformers import Qwen3Model"),
        ("jobs/x.py", "def f():\n    from webui.engine.manager import PipelineManager"),
        ("jobs/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from webui.engine import manager"),
        ("cli/x.py", "def f():\n    from webui.app import serve"),
        ("doctor.py", "def f():\n    import torch"),
        ("app.py", "def f():\n    from webui.ui import layout"),
    ],
)
def test_the_rules_let_through(tmp_path, file, source):
    path = tmp_path / "webui" / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("webui, webui.cli", "torch diffusers transformers accelerate gradio pydantic PIL"),
        ("webui.darkroom, webui.jobs.executor", "torch diffusers transformers accelerate gradio"),
        ("webui.ui.layout, webui.app", "torch diffusers transformers accelerate pandas"),
        ("webui.engine.manager", "diffusers transformers accelerate scipy onnxruntime huggingface_hub"),
    ],
)
def test_importing_them_does_not_load(modules, heavy):
    program = f"import sys, {modules}; print(*sorted(sys.modules.keys() & set({heavy!r}.split())))"
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_every_path_of_the_where_do_i_add_table_exists():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")
    section = re.search(r"^## Where do I add.*?\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert section, "CONTRIBUTING.md has no section 'Where do I add'"
    rows = [line for line in section[1].splitlines() if line.startswith("|")][2:]
    paths = [path for row in rows for path in re.findall(r"`([\w./-]*(?:/|\.py))`", row)]
    assert len(rows) >= 5 and len(paths) >= len(rows)
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []
